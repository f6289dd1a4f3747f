//! Services of several processes: killed, made anew, and asked again.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::{Again, Sls, Target, end_all, free_port, rounds_of, wait_gone, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// Kills all and restores them so many times; in between `works` is asked.
fn again_and_again(sls: &Sls, target: &mut Target, works: impl Fn()) {
    sls.run(&["attach", "-p", &target.p(), "-m", "-r"]);
    sls.run(&["checkpoint", "-m", "-n", "whole"]);
    works();
    end_all(target, &sls.pids());
    for _ in 0..rounds_of(2, 20) {
        let (again, told) = Again::made(sls, &["@whole"]);
        works();
        works();
        assert_eq!(sls.pids()[..again.0.len()], again.0, "{told}");
        let all = sls.pids();
        drop(again);
        for &pid in &all {
            // Born since.
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        wait_gone(&all);
    }
}

/// A server and its clients, all of them killed and restored so many times where they were: the clients
/// do not notice. `done` tells how much they have done. What is on the disk is of the same moment,
/// since they stand still from the checkpoint to the end.
fn on_and_on(sls: &Sls, mut target: Target, done: impl Fn() -> u64) -> Again {
    let moves_on = || {
        let before = done();
        wait_until(SOON, "the clients go on", || done() > before + 100);
    };
    moves_on();
    sls.run(&["attach", "-p", &target.p(), "-m", "-r", "-t", "50"]);
    let mut again = None;
    for round in 0..rounds_of(2, 20) {
        moves_on();
        sls.run(&["suspend", "-m"]);
        let name = format!("round-{round}");
        sls.run(&["checkpoint", "-m", "-n", &name]);
        let pids = sls.pids();
        match again.take() {
            None => end_all(&mut target, &pids),
            Some(again) => Again::end(again),
        }
        // Not the newest: they are killed one after the other.
        let (made, told) = Again::made(sls, &[&format!("@{name}")]);
        assert_eq!(made.0, pids, "round {round}: {told}");
        let lost = told["not_restored"].to_string();
        // A connection of who asks here may be one that the server has not closed yet.
        assert!(!lost.contains("its other end, or"), "round {round}: {lost}");
        again = Some(made);
        sls.run(&["resume", "-m"]);
        moves_on();
    }
    again.expect("a round")
}

fn get(port: u16, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// The file that tells nginx what to serve, and where: 300,000 numbers as /page.
fn nginx(sls: &Sls) -> (PathBuf, u16) {
    let folder = sls.folder();
    // Its workers are another user.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join("page"), page()).unwrap();
    let port = free_port();
    let at = folder.display();
    let configuration = format!(
        "daemon off; worker_processes 2; pid {at}/pid; error_log {at}/error.log;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log {at}/access.log; client_body_temp_path {at}/1; proxy_temp_path {at}/2;\n\
         fastcgi_temp_path {at}/3; uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;\n\
         server {{ listen 127.0.0.1:{port}; root {at}; }} }}"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    (file, port)
}

fn page() -> Vec<u8> {
    (0..300_000u32).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn nginx_serves_again() {
    let sls = Sls::new();
    let (file, port) = nginx(&sls);
    let folder = sls.folder();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&file);
    let mut nginx = Target::start(folder, command);
    wait_until(SOON, "it serves", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let works = || {
        let answer = get(port, "/page");
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&page()));
        assert!(get(port, "/nothing").starts_with(b"HTTP/1.1 404"));
    };
    again_and_again(&sls, &mut nginx, works);
}

/// A folder of the user postgres; removed with all that is in it.
struct Data(tempfile::TempDir);

impl Data {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let it = Self(folder);
        it.run("chown", &["postgres", &it.0.path().to_string_lossy()]);
        it
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let out = Command::new(program).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{program} {arguments:?}: {out:?}");
        said
    }

    fn as_postgres(&self, program: &Path, arguments: &[&str]) -> String {
        let program = program.to_string_lossy();
        let user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
        self.run("setpriv", &[&user[..], &[&program], arguments].concat())
    }
}

/// Where Debian has the programs of the server.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("`./x setup` installs it");
    let mut folders: Vec<PathBuf> = versions.flatten().map(|e| e.path().join("bin")).collect();
    folders.retain(|folder| folder.join("postgres").exists());
    folders.pop().expect("`./x setup` installs it")
}

/// A PostgreSQL that runs.
struct Postgres {
    data: Data,
    port: String,
}

impl Postgres {
    /// With a program that the same shell runs, told where to reach it.
    fn start(sls: &Sls, beside: impl Fn(&str) -> String) -> (Self, Target) {
        let data = Data::new();
        let folder = data.0.path().join("data");
        let (at, sockets) = (folder.display(), data.0.path().display());
        let initdb = programs().join("initdb");
        data.as_postgres(&initdb, &["-D", &at.to_string(), "--no-sync"]);
        let port = free_port().to_string();
        let postgres = programs().join("postgres");
        let serve = format!("{} -D {at} -p {port} -k {sockets}", postgres.display());
        let script = match &*beside(&format!("-h {sockets} -p {port}")) {
            "" => format!("exec {serve}"),
            beside => format!("{serve} & {beside}"),
        };
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.args(["bash", "-c", &script]);
        let server = Target::start(sls.folder(), command);
        let socket = data.0.path().join(format!(".s.PGSQL.{port}"));
        wait_until(SOON, "it listens", || {
            socket.exists() && server.output().contains("ready to")
        });
        (Self { data, port }, server)
    }

    fn ask(&self, what: &str) -> String {
        let sockets = self.data.0.path().to_string_lossy();
        let at = ["-h", &sockets, "-p", &self.port, "-Atc", what, "postgres"];
        self.data.as_postgres(&programs().join("psql"), &at)
    }
}

#[test]
fn postgresql_answers_again() {
    let sls = Sls::new();
    let (it, mut server) = Postgres::start(&sls, |_| String::new());
    it.ask("create table t (a int); insert into t select generate_series(1, 1000)");
    let works = || {
        assert_eq!(it.ask("select sum(a) from t where a <= 1000"), "500500\n");
        it.ask("begin; insert into t values (2000); rollback");
    };
    again_and_again(&sls, &mut server, works);
}

/// Each transaction moves as much from one balance as it leaves in the history.
#[test]
fn postgresql_and_its_benchmark_go_on() {
    let sls = Sls::new();
    let pgbench = programs().join("pgbench").display().to_string();
    let (it, server) = Postgres::start(&sls, |at| {
        format!(
            "until {pgbench} {at} -i -q postgres; do sleep 0.1; done; echo filled; \
             {pgbench} {at} -c 4 -j 2 -T 100000 postgres"
        )
    });
    wait_until(SOON, "it is filled", || server.output().contains("filled"));
    let count = || {
        it.ask("select count(*) from pgbench_history")
            .trim()
            .parse()
            .unwrap()
    };
    let _again = on_and_on(&sls, server, count);
    let sums = "select (select sum(abalance) from pgbench_accounts) = \
        (select sum(delta) from pgbench_history)";
    assert_eq!(it.ask(sums), "t\n");
}

/// What redis has been asked.
fn commands(port: u16) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"INFO stats\r\n").unwrap();
    let (mut said, mut bytes) = (String::new(), [0; 4096]);
    while !said.contains("total_commands_processed:") || !said.ends_with("\r\n") {
        let got = stream.read(&mut bytes).unwrap();
        said += &String::from_utf8_lossy(&bytes[..got]);
    }
    let line = said
        .lines()
        .find_map(|l| l.strip_prefix("total_commands_processed:"));
    line.unwrap().parse().unwrap()
}

#[test]
fn redis_and_its_benchmark_go_on() {
    let sls = Sls::new();
    let port = free_port().to_string();
    let script = format!(
        "redis-server --port {port} --save '' & sleep 0.5; \
        redis-benchmark -p {port} -c 20 -P 4 -l -q -t set,get,lrange"
    );
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).current_dir(sls.folder());
    let shell = Target::start(sls.folder(), shell);
    let port = port.parse().unwrap();
    wait_until(SOON, "it listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    // To ask is a command as well.
    let _again = on_and_on(&sls, shell, || commands(port) / 100);
    let said = fs::read_to_string(sls.folder().join("bash.out")).unwrap();
    assert!(!said.contains("rror"), "{said}");
}

#[test]
fn nginx_and_its_clients_go_on() {
    let sls = Sls::new();
    let (configuration, port) = nginx(&sls);
    let mut shell = Command::new("bash");
    let script = format!(
        "nginx -c {} & sleep 0.5; wrk -t 2 -c 8 -d 100000 http://127.0.0.1:{port}/page",
        configuration.display()
    );
    shell.args(["-c", &script]);
    let shell = Target::start(sls.folder(), shell);
    wait_until(SOON, "it serves", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let log = sls.folder().join("access.log");
    let _again = on_and_on(&sls, shell, || {
        fs::metadata(&log).map_or(0, |m| m.len() / 100)
    });
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.lines().all(|line| line.contains(" 200 ")));
}

/// A shell that runs a server and its client, with how far the client is in a file.
fn pair(sls: &Sls, server: &[&str], client: &str) -> Target {
    let mut shell = Command::new("bash");
    let script = "client=$1; shift; \"$@\" & python3 -c \"$client\" & wait";
    shell.args(["-c", script, "bash", client]).args(server);
    shell.current_dir(sls.folder());
    Target::start(sls.folder(), shell)
}

fn done(sls: &Sls) -> u64 {
    let said = fs::read_to_string(sls.folder().join("done")).unwrap_or_default();
    let last = said.lines().last().map_or(Ok(0), str::parse);
    last.unwrap_or(0)
}

const ASYNCIO: &str = "
import asyncio, sys
async def serve(reader, writer):
    while line := await reader.readline():
        await asyncio.sleep(0.001)
        writer.write(b'answer ' + line); await writer.drain()
async def main():
    server = await asyncio.start_server(serve, '127.0.0.1', int(sys.argv[1]))
    async with server: await server.serve_forever()
asyncio.run(main())
";

/// Twenty connections, over each of which lines go to and fro in order.
const ASKING: &str = "
import asyncio
done = open('done', 'a', buffering=1)
count = 0
async def ask(n):
    global count
    for _ in range(500):
        try: reader, writer = await asyncio.open_connection('127.0.0.1', PORT); break
        except OSError: await asyncio.sleep(0.02)
    for i in range(10**9):
        writer.write(b'%d of %d\\n' % (i, n)); await writer.drain()
        line = await asyncio.wait_for(reader.readline(), 60)
        assert line == b'answer %d of %d\\n' % (i, n), line
        count += 1
        if count % 20 == 0: done.write('%d\\n' % count)
async def main(): await asyncio.gather(*(ask(n) for n in range(20)))
try: asyncio.run(main())
except BaseException as error: print('WRONG', repr(error), flush=True)
";

#[test]
fn an_asyncio_server_and_its_clients_go_on() {
    let sls = Sls::new();
    let port = free_port().to_string();
    let client = ASKING.replace("PORT", &port);
    let shell = pair(&sls, &["python3", "-c", ASYNCIO, &port], &client);
    let _again = on_and_on(&sls, shell, || done(&sls));
    let said = fs::read_to_string(sls.folder().join("bash.out")).unwrap();
    assert!(!said.contains("WRONG"), "{said}");
}

const NODE: &str = "
const http = require('http'), fs = require('fs');
let n = 0;
http.createServer((request, response) => {
    fs.readFile('/etc/hostname', () => response.end('answer ' + n++ + request.url));
}).listen(+process.argv[1], '127.0.0.1');
setInterval(() => JSON.parse(JSON.stringify(Array(1000).fill('garbage'))), 10);
";

/// One connection that is kept: the answers are counted.
const KEPT: &str = "
import http.client, time
done = open('done', 'a', buffering=1)
for _ in range(500):
    try: c = http.client.HTTPConnection('127.0.0.1', PORT, timeout=60); c.connect(); break
    except OSError: time.sleep(0.02)
n = 0
try:
    while True:
        c.request('GET', '/%d' % n)
        said = c.getresponse().read()
        assert said == b'answer %d/%d' % (n, n), (said, n)
        n += 1
        done.write('%d\\n' % n)
        time.sleep(0.001)
except BaseException as error: print('WRONG', repr(error), flush=True)
";

#[test]
fn node_and_its_client_go_on() {
    let sls = Sls::new();
    let port = free_port().to_string();
    let client = KEPT.replace("PORT", &port);
    let shell = pair(&sls, &["node", "-e", NODE, &port], &client);
    let _again = on_and_on(&sls, shell, || done(&sls));
    let said = fs::read_to_string(sls.folder().join("bash.out")).unwrap();
    assert!(!said.contains("WRONG"), "{said}");
}
