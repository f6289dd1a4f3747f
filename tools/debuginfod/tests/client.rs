//! The client beside a server that serves, has nothing, cuts, stalls, or is not there.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use introspect::{Finder, Source};
use sls_debuginfod::Client;

/// What it answers: status, length that it says, what it sends, how long it waits before it closes.
#[derive(Clone)]
struct Answer(u16, usize, Vec<u8>, Duration);

struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
    paths: Arc<Mutex<Vec<String>>>,
}

fn serve(answer: Answer) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let paths = Arc::new(Mutex::new(Vec::new()));
    let (count, seen) = (Arc::clone(&asked), Arc::clone(&paths));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            seen.lock().unwrap().push(first);
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let Answer(status, length, body, wait) = answer.clone();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            // The other side may have given up.
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
            std::thread::sleep(wait);
        }
    });
    Server { url, asked, paths }
}

fn client(urls: &str, folder: &Path) -> Client {
    Client::new(urls, folder.to_owned(), Duration::from_secs(1)).unwrap()
}

fn whole(body: &[u8]) -> Answer {
    Answer(200, body.len(), body.to_vec(), Duration::ZERO)
}

const ID: [u8; 4] = [0xab, 0xcd, 0x01, 0x23];

#[test]
fn a_file_is_asked_for_once() {
    let folder = tempfile::tempdir().unwrap();
    let body = vec![7; 300_000];
    let server = serve(whole(&body));
    let shown = Arc::new(AtomicUsize::new(0));
    let last = Arc::clone(&shown);
    let first = client(&server.url, folder.path());
    let first = first.showing(move |_, progress| {
        assert_eq!(progress.whole, Some(300_000));
        last.store(usize::try_from(progress.bytes).unwrap(), Ordering::SeqCst);
    });
    let path = first.debug_file(&ID).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), body);
    assert_eq!(shown.load(Ordering::SeqCst), 300_000);
    // Where gdb's client would look for it.
    assert_eq!(path, folder.path().join("abcd0123/debuginfo"));
    let paths = server.paths.lock().unwrap().clone();
    assert!(
        paths[0].starts_with("GET /buildid/abcd0123/debuginfo "),
        "{paths:?}"
    );
    let other = client(&server.url, folder.path());
    assert_eq!(other.debug_file(&ID), Some(path));
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    assert_eq!(other.troubles(), [""; 0]);
}

#[test]
fn what_no_server_has_is_not_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = serve(Answer(404, 0, Vec::new(), Duration::ZERO));
    let urls = format!("{} {}/", nothing.url, nothing.url);
    assert_eq!(client(&urls, folder.path()).debug_file(&ID), None);
    assert_eq!(nothing.asked.load(Ordering::SeqCst), 2);
    let again = client(&urls, folder.path());
    assert_eq!(again.debug_file(&ID), None);
    assert_eq!(nothing.asked.load(Ordering::SeqCst), 2);
    assert_eq!(again.troubles(), [""; 0]);
    // Another one may have it.
    let has = serve(whole(b"file"));
    let both = format!("{} {}", nothing.url, has.url);
    assert!(client(&both, folder.path()).debug_file(&[1, 2]).is_some());
}

#[test]
fn a_server_that_is_away_costs_its_time_once() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let has = serve(whole(b"file"));
    let urls = format!("{url} {}", has.url);
    let first = client(&urls, folder.path());
    assert!(first.debug_file(&ID).is_some());
    let troubles = first.troubles();
    assert!(troubles[0].starts_with(&url), "{troubles:?}");
    assert!(first.debug_file(&[9]).is_some());
    assert_eq!(first.troubles().len(), 1);
    assert_eq!(client(&url, folder.path()).debug_file(&[8]), None);
}

#[test]
fn a_server_that_stalls_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let stalls = serve(Answer(200, 1000, vec![1; 10], Duration::from_secs(30)));
    let began = Instant::now();
    let client = client(&stalls.url, folder.path());
    assert_eq!(client.debug_file(&ID), None);
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(client.debug_file(&[8]), None);
    assert_eq!(stalls.asked.load(Ordering::SeqCst), 1);
    let left = std::fs::read_dir(folder.path().join("abcd0123")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn what_is_cut_or_refused_is_not_kept() {
    for answer in [
        Answer(200, 1000, vec![1; 10], Duration::ZERO),
        Answer(500, 3, b"no!".to_vec(), Duration::ZERO),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(answer);
        let client = client(&server.url, folder.path());
        assert_eq!(client.debug_file(&ID), None);
        assert_eq!(client.troubles().len(), 1);
        assert_eq!(client.debug_file(&ID), None);
        assert_eq!(
            server.asked.load(Ordering::SeqCst),
            2,
            "it may work the next time"
        );
    }
}

/// A program without debug information gets it from a server; that of another build is not taken.
#[test]
fn programs_are_known_by_what_a_server_sends() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(
        at("a.c"),
        "int known = 5; int main(void) { return known; }\n",
    )
    .unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let done = command.current_dir(folder.path()).args(arguments).status();
        assert!(done.unwrap().success());
    };
    run("gcc", &["-g", "-Wl,--build-id", "-o", "a", "a.c"]);
    run("objcopy", &["--only-keep-debug", "a", "a.debug"]);
    run("strip", &["a"]);
    let bytes: Arc<[u8]> = std::fs::read(at("a")).unwrap().into();
    let has_debug = |body: &[u8], cache: &str| {
        let client = client(&serve(whole(body)).url, &at(cache));
        let finder = Finder::new([]).with_source(Arc::new(client));
        let object = finder.object("/nowhere/a", Arc::clone(&bytes)).unwrap();
        object.debug().is_some()
    };
    assert!(has_debug(&std::fs::read(at("a.debug")).unwrap(), "right"));
    run("gcc", &["-g", "-O2", "-Wl,--build-id", "-o", "b", "a.c"]);
    assert!(!has_debug(&std::fs::read(at("b")).unwrap(), "wrong"));
}
