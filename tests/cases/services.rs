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

fn get(port: u16, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn nginx_serves_again() {
    let sls = Sls::new();
    let folder = sls.folder();
    // Its workers are another user.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let page: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(folder.join("page"), &page).unwrap();
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
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&file);
    let mut nginx = Target::start(folder, command);
    wait_until(SOON, "it serves", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let works = || {
        let answer = get(port, "/page");
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&page));
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

#[test]
fn postgresql_answers_again() {
    let sls = Sls::new();
    let (data, programs) = (Data::new(), programs());
    let folder = data.0.path().join("data");
    let (at, sockets) = (folder.to_string_lossy(), data.0.path().to_string_lossy());
    data.as_postgres(&programs.join("initdb"), &["-D", &at, "--no-sync"]);
    let port = free_port().to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(programs.join("postgres"));
    command.args(["-D", &at, "-p", &port, "-k", &sockets]);
    let mut server = Target::start(sls.folder(), command);
    let psql = programs.join("psql");
    let ask = |what: &str| {
        let at = ["-h", &sockets, "-p", &port, "-Atc", what, "postgres"];
        data.as_postgres(&psql, &at)
    };
    let socket = data.0.path().join(format!(".s.PGSQL.{port}"));
    wait_until(SOON, "it listens", || {
        socket.exists() && server.output().contains("ready to")
    });
    ask("create table t (a int); insert into t select generate_series(1, 1000)");
    let works = || {
        assert_eq!(ask("select sum(a) from t where a <= 1000"), "500500\n");
        ask("begin; insert into t values (2000); rollback");
    };
    again_and_again(&sls, &mut server, works);
}
