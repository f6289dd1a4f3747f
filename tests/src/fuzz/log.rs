//! Recovery of a store from a segment that anybody may have written.

use std::path::Path;

use slos::{Base, Draft, Keep, Options, PAGE, PageIndex, Settings, SpaceDelta, SpaceId, Store};

use super::memory::Memory;
use super::within;

const SEGMENT_HEADER: usize = 64;
const RECORD_HEADER: usize = 48;
/// A run of 64 pages is three bytes of a manifest, and an lz4 block expands 255 times.
const BYTES_A_BYTE: usize = 4096;
const BYTES_IN_ANY_CASE: usize = 64 << 20;
/// Checkpoints of a recovered history that are looked at.
const LOOKED_AT: usize = 16;
const OPTIONS: Options = Options {
    budget: Some(1 << 20),
    segment_size: Some(64 << 10),
};

/// The bytes as they are.
pub fn raw(bytes: &[u8]) {
    let limit = bytes.len() * BYTES_A_BYTE + BYTES_IN_ANY_CASE;
    within(limit, "recovery", || look(bytes.to_vec()));
}

/// The bytes as records whose checksums and order are right, whatever is in them.
pub fn mended(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    mend(&mut bytes);
    raw(&bytes);
}

/// Opens the store, asks it everything, goes on with it, and opens it again.
fn look(bytes: Vec<u8>) {
    let medium = Memory::of(bytes);
    let label = Path::new("fuzzed");
    let Ok((store, report)) = Store::open_on(Box::new(medium.clone()), label, OPTIONS) else {
        return;
    };
    assert!(report.damage.len() < 1 << 20);
    ask(&store);
    let settings = Settings::default();
    if let Ok(part) = store.add_partition("ours, after recovery", settings) {
        let written = commit(&part, 1, None).expect("a recovered store can be written to");
        drop(store);
        drop(part);
        let again = Store::open_on(Box::new(medium), label, OPTIONS);
        let (store, _) = again.expect("what was opened once can be opened again");
        let part = store
            .partition("ours, after recovery")
            .expect("it is there");
        let record = part
            .record(written)
            .expect("what was acknowledged is there");
        assert_eq!(record, [1; 100]);
        ask(&store);
    }
}

fn ask(store: &Store) {
    let _ = (store.stats(), store.verify());
    for info in store.partitions().unwrap_or_default() {
        let Ok(part) = store.partition(&info.name) else {
            continue;
        };
        let _ = (part.newest(), part.head("main"), part.settings());
        let history = part.history().unwrap_or_default();
        let mut before = None;
        for info in history.iter().rev().take(LOOKED_AT) {
            let _ = (part.record(info.epoch), part.ancestor(info.epoch));
            for space in part
                .spaces(info.epoch)
                .unwrap_or_default()
                .into_iter()
                .take(4)
            {
                let map = part.page_map(info.epoch, space).unwrap_or_default();
                for &page in map.iter().take(LOOKED_AT) {
                    let _ = part.read_page(info.epoch, space, page, &mut [0; PAGE]);
                }
                if let Some(before) = before {
                    let _ = part.diff_pages(info.epoch, before, space);
                    let _ = part.changed(info.epoch, before, space, &map);
                }
            }
            before = Some(info.epoch);
        }
    }
}

/// Gives every record the checksums, the number and the predecessor it should have.
fn mend(bytes: &mut [u8]) {
    if bytes.len() < SEGMENT_HEADER {
        return;
    }
    let header = [
        b"SLSSEG\r\n".as_slice(),
        &1u32.to_le_bytes(),
        &1u32.to_le_bytes(),
    ]
    .concat();
    bytes[..16].copy_from_slice(&header);
    bytes[32..40].copy_from_slice(&1u64.to_le_bytes());
    bytes[40..44].copy_from_slice(&1u32.to_le_bytes());
    let mut previous = seal(&mut bytes[..SEGMENT_HEADER]);
    let life = u32::from_le_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]) ^ 1;
    let (mut at, mut lsn) = (SEGMENT_HEADER, 1u64);
    while let Some(rest) = bytes
        .get_mut(at..)
        .filter(|rest| rest.len() >= RECORD_HEADER)
    {
        let (head, payload) = rest.split_at_mut(RECORD_HEADER);
        let wanted = u32::from_le_bytes([head[28], head[29], head[30], head[31]]);
        let length = payload.len().min(wanted as usize % (2 << 20));
        head[..4].copy_from_slice(b"SLR1");
        head[4] = 1 + (head[4].wrapping_sub(1)) % 6;
        head[8..16].copy_from_slice(&lsn.to_le_bytes());
        let short = u32::try_from(length).unwrap_or(0);
        head[28..32].copy_from_slice(&short.to_le_bytes());
        head[32..36].copy_from_slice(&life.to_le_bytes());
        head[36..40].copy_from_slice(&previous.to_le_bytes());
        head[40..44].copy_from_slice(&crc(&payload[..length]).to_le_bytes());
        previous = seal(head);
        at += RECORD_HEADER + length.next_multiple_of(8);
        lsn += 1;
    }
}

/// Puts a header's own checksum in its last four bytes.
fn seal(header: &mut [u8]) -> u32 {
    let (body, sum) = header.split_at_mut(header.len() - 4);
    let value = crc(body);
    sum.copy_from_slice(&value.to_le_bytes());
    value
}

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Segments of a small store with every kind of record in it.
pub fn segments() -> Vec<Vec<u8>> {
    let medium = Memory::default();
    let label = Path::new("seed");
    let store = Store::create_on(Box::new(medium.clone()), label, OPTIONS).expect("a store");
    let settings = Settings {
        keep: Keep::Last(6),
        budget: None,
    };
    let part = store.add_partition("main", settings).expect("a partition");
    let mut seeds = Vec::new();
    let mut parent = None;
    for n in 1..=8 {
        parent = Some(commit(&part, n, parent).expect("a checkpoint"));
        if n % 3 == 0 {
            part.set_name(parent.expect("just made"), Some(format!("n{n}")))
                .expect("a name");
        }
        seeds.extend(medium.contents().first().cloned());
    }
    seeds
}

fn commit(
    part: &slos::Partition,
    n: u8,
    parent: Option<slos::Epoch>,
) -> Result<slos::Epoch, slos::CommitError> {
    let text: Vec<u8> = (0..PAGE).map(|i| b"the same words "[i % 15]).collect();
    let mut edited = text.clone();
    edited[usize::from(n) * 97] = n;
    let base = if parent.is_some() {
        Base::Parent
    } else {
        Base::Empty
    };
    let draft = Draft {
        parent,
        branch: "main".into(),
        name: None,
        time_ns: u64::from(n),
        stop_us: 1,
        record: &[n; 100],
        spaces: vec![SpaceDelta {
            space: SpaceId(0),
            base,
            dropped: vec![PageIndex(5)..PageIndex(6)],
            pages: vec![
                (PageIndex(u64::from(n)), &text),
                (PageIndex(100), &edited),
                (PageIndex(101), &[0; PAGE]),
            ],
        }],
        meta: vec![n, 0, 0, 0],
    };
    part.commit(&draft).map(|done| done.epoch)
}
