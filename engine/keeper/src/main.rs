//! sls-keeper: the tracer. Started by slsd with a socket on standard input; of no use by hand.

mod asleep;
mod birth;
mod calls;
mod collect;
mod control;
mod debug;
mod execute;
mod facts;
mod faults;
mod group;
mod hold;
mod init;
mod inject;
mod kicks;
mod limits;
mod numbers;
mod offspring;
mod parking;
mod server;
mod siblings;
mod steps;
mod stopping;
mod target;
mod traps;
mod unmake;

use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::socket::{SockType, getsockopt, sockopt};

fn main() -> ExitCode {
    let stdin = std::io::stdin();
    if getsockopt(&stdin.as_fd(), sockopt::SockType) != Ok(SockType::SeqPacket) {
        eprintln!(
            "sls-keeper: this is the tracer that slsd starts for each process; run `slsctl attach -p PID` instead"
        );
        return ExitCode::from(2);
    }
    match server::Server::start(stdin.as_fd()).and_then(server::Server::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sls-keeper: {error}");
            ExitCode::FAILURE
        }
    }
}
