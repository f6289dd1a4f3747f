//! What opening a store costs, whole and by outlines, and what telling costs that it is as it was.
//!
//! `cargo run --release -p slos --example bench_open [CHECKPOINTS] [PAGES] [FOLDER]`: a store in a file
//! there, which is removed, of so many checkpoints of so many changed pages each; in the first 1024.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use slos::{
    Base, Device, Draft, FileDevice, Outline, Outlines, PAGE, PageIndex, SegmentId, Settings,
    SpaceDelta, SpaceId, Store, fingerprint, format_device,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const IMAGE: usize = 1024;
const ROUNDS: usize = 5;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let checkpoints = args.next().map_or(Ok(10_000), |n| n.parse())?;
    let pages = args.next().map_or(Ok(10), |n| n.parse())?;
    let folder = args.next().map_or(std::env::temp_dir(), PathBuf::from);
    for (what, whole) in [("a word of each changed", false), ("all of each", true)] {
        let file = tempfile::NamedTempFile::new_in(&folder)?;
        let held = fill(file.path(), checkpoints, pages, whole)?;
        println!("{checkpoints} checkpoints of {pages} pages, {what}: {held} MiB");
        measure(file.path())?;
    }
    Ok(())
}

/// MiB of segments.
fn fill(path: &Path, checkpoints: u64, pages: usize, whole: bool) -> Outcome<u64> {
    std::fs::File::options()
        .write(true)
        .open(path)?
        .set_len(16 << 30)?;
    format_device(&FileDevice::open(path)?)?;
    let (store, _) = Store::open_device(Arc::new(FileDevice::open(path)?), path)?;
    let part = store.add_partition("p", Settings::default())?;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut image = vec![[0u8; PAGE]; IMAGE];
    let mut parent = None;
    for n in 0..checkpoints {
        let all = 0..IMAGE;
        let changed: BTreeSet<usize> = match n {
            0 => all.collect(),
            _ => (0..pages).map(|_| below(next(), IMAGE)).collect(),
        };
        for &page in &changed {
            let words = image[page].chunks_exact_mut(8);
            let one = below(next(), PAGE / 8);
            for (at, word) in words.enumerate() {
                if whole || n == 0 || at == one {
                    word.copy_from_slice(&next().to_le_bytes());
                }
            }
        }
        let pages = changed
            .iter()
            .map(|&p| (PageIndex(p as u64), &image[p][..]));
        let draft = Draft {
            parent,
            branch: "main".to_owned(),
            name: None,
            time_ns: n,
            stop_us: 0,
            record: &[7; 2000],
            spaces: vec![SpaceDelta {
                space: SpaceId(0),
                base: parent.map_or(Base::Empty, |_| Base::Parent),
                dropped: Vec::new(),
                pages: pages.collect(),
            }],
            meta: Vec::new(),
        };
        parent = Some(part.commit(&draft)?.epoch);
    }
    Ok(store.stats()?.segments >> 20)
}

fn below(random: u64, limit: usize) -> usize {
    usize::try_from(random % limit as u64).unwrap_or(0)
}

fn measure(path: &Path) -> Outcome<()> {
    let kept = Kept::default();
    let open = || FileDevice::open(path).map(Arc::new);
    let whole = median(|| Ok(Store::open_device(open()?, path)?))?.0;
    println!("  opened whole        {whole:8.1} ms");
    Store::open_device_by(open()?, path, &kept)?;
    let (by, (_, report)) = median(|| Ok(Store::open_device_by(open()?, path, &kept)?))?;
    println!(
        "  opened by outlines  {by:8.1} ms, {} of {} segments",
        report.skimmed, report.segments
    );
    let bytes = kept.0.borrow().values().map(Vec::len).sum::<usize>();
    let looked = median(|| {
        let device: Arc<dyn Device> = open()?;
        Ok(fingerprint(&device)?.ok_or("it is not whole")?)
    })?;
    println!(
        "  fingerprint         {:8.1} ms; outlines take {bytes} bytes",
        looked.0
    );
    Ok(())
}

/// Of a few rounds, without what it takes to close again; with what the last one came to.
fn median<T>(what: impl Fn() -> Outcome<T>) -> Outcome<(f64, T)> {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..ROUNDS {
        drop(last.take());
        let began = Instant::now();
        last = Some(what()?);
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[ROUNDS / 2], last.ok_or("no rounds")?))
}

/// Encoded, as whoever keeps them has them.
#[derive(Default)]
struct Kept(RefCell<BTreeMap<SegmentId, Vec<u8>>>);

impl Outlines for Kept {
    fn outline(&self, _: &[u8; 16], segment: SegmentId) -> Option<Outline> {
        postcard::from_bytes(self.0.borrow().get(&segment)?).ok()
    }

    fn keep(&self, _: &[u8; 16], segment: SegmentId, outline: Outline) {
        if let Ok(bytes) = postcard::to_stdvec(&outline) {
            self.0.borrow_mut().insert(segment, bytes);
        }
    }

    fn keep_only(&self, _: &[u8; 16], segments: &BTreeSet<SegmentId>) {
        self.0.borrow_mut().retain(|s, _| segments.contains(s));
    }
}
