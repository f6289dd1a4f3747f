//! redis-server under load and across rewinds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use testkit::{Redis, Sls};

/// One command on a connection of its own, in redis's inline form.
fn ask(port: u16, command: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream
        .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
        .trim_end()
        .trim_end_matches("+OK")
        .trim_end()
        .to_owned()
}

#[test]
fn under_benchmark_no_client_error() {
    let sls = Sls::new();
    let mut redis = Redis::start(sls.folder());
    sls.run(&[
        "partadd", "memory", "-o", "mem", "--budget", "512M", "--keep", "log",
    ]);
    sls.run(&["attach", "-p", &redis.p(), "-m", "-t", "10"]);
    let port = redis.port().to_string();
    let mut benchmark = Command::new("timeout");
    benchmark.args([
        "10",
        "redis-benchmark",
        "-p",
        &port,
        "-t",
        "set,get",
        "-r",
        "100000",
        "-l",
        "-q",
    ]);
    let out = benchmark.output().unwrap();
    assert_eq!(
        out.status.code(),
        Some(124),
        "the benchmark ended early: {out:?}"
    );
    let said =
        String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(!said.to_lowercase().contains("error"), "{said}");
    let stat = sls.json(&["stat"]);
    let part = &stat["partitions"][0];
    // How many there is time for beside a benchmark that takes both CPUs, ./x bench redis tells.
    assert!(part["taken"].as_u64().unwrap() > 50, "{part}");
    assert_eq!(part["failed"], 0, "{part}");
    println!(
        "stop p50 {} us p99 {} us",
        part["stop_us_p50"], part["stop_us_p99"]
    );
    sls.run(&["detach", "-p", &redis.p()]);
    redis.assert_unharmed();
}

#[test]
fn fifty_rewinds_of_an_incremented_key() {
    let sls = Sls::new();
    let mut redis = Redis::start(sls.folder());
    let port = redis.port();
    sls.run(&["attach", "-p", &redis.p(), "-m"]);
    for round in 1..=50 {
        let old = ask(port, "INCR key");
        let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
        let new = ask(port, "INCR key");
        assert_ne!(old, new);
        let done = sls.json(&["rewind", "-m", &format!("@{epoch}")]);
        for line in done["not_restored"].as_array().unwrap() {
            assert!(line.as_str().unwrap().starts_with("socket "), "{line}");
        }
        let value = ask(port, "GET key");
        let number = old.trim_start_matches(':');
        assert!(
            value.ends_with(number),
            "round {round}: {value:?} after a rewind to {old}"
        );
    }
    sls.run(&["detach", "-p", &redis.p()]);
    redis.assert_unharmed();
}
