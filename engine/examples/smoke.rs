use sls_engine::*;
use std::time::Duration;
fn main() {
    let pid: i32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let n: usize = std::env::args().nth(2).map_or(10, |s| s.parse().unwrap());
    let ms: u64 = std::env::args().nth(3).map_or(10, |s| s.parse().unwrap());
    let dir = std::path::PathBuf::from(format!("/dev/shm/smoke-{}", std::process::id()));
    let store = slos::Store::create(&dir, slos::Options::default()).unwrap();
    let part = store
        .add_partition("mem", slos::Settings::default())
        .unwrap();
    let probe = sls_sys::probe::Probe::run()
        .mask(&std::env::var("MASK").unwrap_or_default())
        .unwrap();
    eprintln!("{probe:?}");
    let mut t = Target::attach(
        pid,
        Options {
            probe,
            keeper: std::env::var("KEEPER").unwrap().into(),
            hold: false,
            state: dir.clone(),
            staging_pages: 1 << 20,
        },
    )
    .unwrap();
    eprintln!("{:?}", t.tracking());
    let mut stops = vec![];
    for i in 0..n {
        let c = t.checkpoint(Request {
            partition: &part,
            branch: "main",
            name: None,
            explicit: false,
            event: None,
            stay_stopped: false,
        });
        match c {
            Ok(c) => {
                if i < 5 || i + 3 > n {
                    eprintln!("{c:?}");
                }
                stops.push(c.cost.stop_ns / 1000);
            }
            Err(e) => {
                eprintln!("{e}");
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(ms));
    }
    stops.sort();
    eprintln!(
        "stop us p50 {} p99 {} max {}",
        stops[stops.len() / 2],
        stops[stops.len() * 99 / 100],
        stops[stops.len() - 1]
    );
    t.detach();
    std::fs::remove_dir_all(dir).unwrap();
}
