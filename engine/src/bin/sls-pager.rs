//! sls-pager: brings the pages of a lazy restore. Started by slsd with a socket on standard input; of no use
//! by hand.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::socket::{SockType, getsockopt, sockopt};

fn main() -> ExitCode {
    let stdin = io::stdin();
    if getsockopt(&stdin.as_fd(), sockopt::SockType) != Ok(SockType::SeqPacket) {
        eprintln!(
            "sls-pager: slsd starts this for each lazy restore; run `slsctl restore @N --lazy` instead"
        );
        return ExitCode::from(2);
    }
    let serve = || sls_engine::pager::serve(stdin.as_fd().try_clone_to_owned()?);
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sls-pager: {error}");
            ExitCode::FAILURE
        }
    }
}
