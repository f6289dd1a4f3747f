//! What the log costs and holds, against memcpy in the same run.
//!
//! `cargo run --release -p slos --example bench_log [CHECKPOINTS]`

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use slos::{
    Base, Draft, Epoch, Keep, Options, PAGE, PageIndex, Partition, Settings, SpaceDelta, SpaceId,
    Store,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const IMAGE: usize = 16_384;
const SPACE: SpaceId = SpaceId(0);

/// How pages differ from one checkpoint to the next.
#[derive(Clone, Copy)]
enum Mix {
    Zero,
    Equal,
    Xor,
    Text,
    Noise,
}

/// A small xorshift generator: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }
}

fn main() -> Outcome<()> {
    let checkpoints = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => 10_000,
    };
    let dir = tempfile::tempdir_in("/dev/shm")?;
    let copy = memcpy_speed();
    println!("memcpy                {copy:6.2} GB/s");
    for (name, mix) in [
        ("zero, every second", Mix::Zero),
        ("equal", Mix::Equal),
        ("xor, 20 bytes a page", Mix::Xor),
        ("lz4, new text", Mix::Text),
        ("raw, new noise", Mix::Noise),
    ] {
        let speed = commit_speed(&dir.path().join(name.replace([' ', ','], "-")), mix)?;
        println!(
            "{name:21} {speed:6.2} GB/s  {:5.2} us a page  {:.2} of memcpy",
            PAGE as f64 / speed / 1e3,
            speed / copy
        );
    }
    hold_many(&dir.path().join("many"), checkpoints)
}

fn memcpy_speed() -> f64 {
    let source = vec![1u8; IMAGE * PAGE];
    let mut target = vec![2u8; IMAGE * PAGE];
    let started = Instant::now();
    for _ in 0..8 {
        target.copy_from_slice(black_box(&source));
        black_box(&target);
    }
    (8 * IMAGE * PAGE) as f64 / started.elapsed().as_secs_f64() / 1e9
}

/// Objects of 64 bytes as a heap has them: a pointer, a hash, a length, text, nothing.
fn heap_page(random: &mut Random) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    for object in page.chunks_exact_mut(64) {
        let pointer = 0x7f12_3400_0000 + random.next() % 0x100_0000 * 16;
        object[..8].copy_from_slice(&pointer.to_le_bytes());
        object[8..16].copy_from_slice(&random.next().to_le_bytes());
        object[16] = 13;
        let text = format!("\"key:{:08}\"", random.next() % 100_000_000);
        object[24..24 + text.len()].copy_from_slice(text.as_bytes());
    }
    page
}

fn noise_page(random: &mut Random) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    for word in page.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    page
}

fn commit(
    part: &Partition,
    parent: Option<Epoch>,
    pages: Vec<(PageIndex, &[u8])>,
) -> Outcome<slos::Committed> {
    let draft = Draft {
        parent,
        branch: "main".to_owned(),
        name: None,
        time_ns: 0,
        stop_us: 0,
        record: &[7; 2000],
        spaces: vec![SpaceDelta {
            space: SPACE,
            base: parent.map_or(Base::Empty, |_| Base::Parent),
            dropped: Vec::new(),
            pages,
        }],
        meta: Vec::new(),
    };
    Ok(part.commit(&draft)?)
}

fn numbered(pages: &[[u8; PAGE]]) -> Vec<(PageIndex, &[u8])> {
    let numbered = pages.iter().zip(0..);
    numbered.map(|(b, p)| (PageIndex(p), &b[..])).collect()
}

/// GB of raw pages a second through commit, in rounds of 2048 pages; the first image is not timed.
fn commit_speed(dir: &Path, mix: Mix) -> Outcome<f64> {
    const PAGES: usize = 2048;
    const ROUNDS: usize = 12;
    let store = Store::create(dir, Options::default())?;
    let keep = Settings {
        keep: Keep::All,
        budget: None,
    };
    let part = store.add_partition("p", keep)?;
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut pages: Vec<[u8; PAGE]> = (0..PAGES).map(|_| heap_page(&mut random)).collect();
    let mut parent = commit(&part, None, numbered(&pages))?.epoch;
    let mut spent = 0.0;
    for round in 0..ROUNDS {
        for page in &mut pages {
            change(page, mix, round, &mut random);
        }
        let started = Instant::now();
        parent = commit(&part, Some(parent), numbered(&pages))?.epoch;
        spent += started.elapsed().as_secs_f64();
    }
    Ok((PAGES * ROUNDS * PAGE) as f64 / spent / 1e9)
}

fn change(page: &mut [u8; PAGE], mix: Mix, round: usize, random: &mut Random) {
    match mix {
        Mix::Zero if round.is_multiple_of(2) => page.fill(0),
        Mix::Zero => *page = heap_page(random),
        Mix::Equal => {}
        Mix::Xor => {
            for _ in 0..5 {
                let at = random.below(PAGE / 8) * 8;
                page[at..at + 4].copy_from_slice(&random.next().to_le_bytes()[..4]);
            }
        }
        Mix::Text => *page = heap_page(random),
        Mix::Noise => *page = noise_page(random),
    }
}

/// A redis-like load under a budget: what is held for what was dirtied, and how fast any of it
/// is found again.
fn hold_many(dir: &Path, checkpoints: u64) -> Outcome<()> {
    const DIRTY: usize = 100;
    let budget = 256 << 20;
    let options = Options {
        budget: Some(budget),
        segment_size: None,
    };
    let before = resident_bytes()?;
    let store = Store::create(dir, options)?;
    let part = store.add_partition("p", Settings::default())?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut image: Vec<[u8; PAGE]> = (0..IMAGE).map(|_| heap_page(&mut random)).collect();
    let mut parent = commit(&part, None, numbered(&image))?.epoch;
    let base = store.held()?;
    let image_resident = resident_bytes()? - before;
    let (mut slowest, mut peak) = (0.0f64, 0);
    let started = Instant::now();
    for _ in 1..checkpoints {
        let mut dirty: Vec<usize> = (0..DIRTY).map(|_| random.below(IMAGE)).collect();
        dirty.sort_unstable();
        dirty.dedup();
        for &page in &dirty {
            change(&mut image[page], Mix::Xor, 0, &mut random);
        }
        let pages = dirty
            .iter()
            .map(|&p| (PageIndex(p as u64), &image[p][..]))
            .collect();
        let began = Instant::now();
        parent = commit(&part, Some(parent), pages)?.epoch;
        slowest = slowest.max(began.elapsed().as_secs_f64());
        peak = peak.max(store.held()?);
    }
    let spent = started.elapsed().as_secs_f64();
    let stats = store.stats()?;
    let kept = stats.checkpoints;
    println!(
        "\n{checkpoints} checkpoints of an image of {} MiB, {DIRTY} pages dirtied between",
        (IMAGE * PAGE) >> 20
    );
    println!(
        "kept {kept}, {:.0} us a commit, slowest {:.1} ms",
        spent / checkpoints as f64 * 1e6,
        slowest * 1e3
    );
    println!("{stats:?}");
    println!(
        "budget {budget}, peak held {peak} ({})",
        if peak <= budget { "holds" } else { "BROKEN" }
    );
    let held = store.held()?.saturating_sub(base) as f64 / kept as f64;
    println!(
        "a checkpoint holds {held:.0} bytes for {} dirtied: {:.4}",
        DIRTY * PAGE,
        held / (DIRTY * PAGE) as f64
    );
    let resident = resident_bytes()? - before;
    println!(
        "index {} estimated; private memory grew by {} since the first image",
        stats.index,
        resident.saturating_sub(image_resident)
    );
    look_up(&part, &image, parent, &mut random)?;
    drop(part);
    drop(store);
    let began = Instant::now();
    let (store, report) = Store::open(dir, options)?;
    println!(
        "reopened {} checkpoints in {:.0} ms, clean: {}",
        report.checkpoints,
        began.elapsed().as_secs_f64() * 1e3,
        report.is_clean()
    );
    let began = Instant::now();
    let verified = store.verify()?;
    println!(
        "verified {} versions in {:.0} ms, clean: {}",
        verified.versions,
        began.elapsed().as_secs_f64() * 1e3,
        verified.is_clean()
    );
    Ok(())
}

fn look_up(
    part: &Partition,
    image: &[[u8; PAGE]],
    newest: Epoch,
    random: &mut Random,
) -> Outcome<()> {
    let history = part.history()?;
    let mut page = [0; PAGE];
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..200_000 {
        let epoch = history[random.below(history.len())].epoch;
        let index = PageIndex(random.below(IMAGE) as u64);
        let began = Instant::now();
        part.read_page(epoch, SPACE, index, &mut page)?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    let at = |thousandths: usize| times[(times.len() - 1) * thousandths / 1000];
    println!(
        "a page at any epoch, decoded: p50 {:.2} us, p99 {:.2} us, p99.9 {:.2} us",
        at(500),
        at(990),
        at(999)
    );
    for (index, expected) in image.iter().enumerate().step_by(37) {
        part.read_page(newest, SPACE, PageIndex(index as u64), &mut page)?;
        if page != *expected {
            return Err(format!("page {index} of {newest} is wrong").into());
        }
    }
    Ok(())
}

/// Anonymous memory of this process, from /proc/self/status.
fn resident_bytes() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .ok_or("no RssAnon")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib << 10)
}
