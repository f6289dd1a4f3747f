//! Moving the calling thread from CPU to CPU, for what only a CPU itself can tell.
#![allow(unsafe_code)]

use std::io;

/// The CPUs this thread may run on; it may again once the value is dropped.
#[derive(Debug)]
pub struct Wandering(libc::cpu_set_t);

impl Wandering {
    /// Begins where the thread is.
    ///
    /// # Errors
    /// EINVAL: the machine has more CPUs than a cpu_set_t.
    pub fn begin() -> io::Result<Self> {
        // SAFETY: a set of bits may be all zero.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is as large as said; thread 0 is the calling one.
        let ret = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        if ret < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(set))
    }

    /// Stays on the CPU it is on, and so does whoever it starts.
    ///
    /// # Errors
    /// As [`Wandering::go`].
    pub fn stay(&self) -> io::Result<()> {
        // SAFETY: no arguments.
        let cpu = unsafe { libc::sched_getcpu() };
        self.go(usize::try_from(cpu).map_err(io::Error::other)?)
    }

    /// Goes to a CPU; it runs there when the call returns.
    ///
    /// # Errors
    /// EINVAL: there is no such CPU, or the thread is not let run there.
    pub fn go(&self, cpu: usize) -> io::Result<()> {
        if cpu >= 8 * size_of::<libc::cpu_set_t>() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: a set of bits may be all zero, and `cpu` is one of its bits.
        let one = unsafe {
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut one);
            one
        };
        allow(&one)
    }
}

/// Has a process run on the CPU that this thread stays on.
///
/// # Errors
/// EPERM: not this user's. ESRCH.
pub fn fetch(pid: i32) -> io::Result<()> {
    let here = Wandering::begin()?;
    // SAFETY: the set is as large as said.
    let ret =
        unsafe { libc::sched_setaffinity(pid, size_of::<libc::cpu_set_t>(), &raw const here.0) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Drop for Wandering {
    fn drop(&mut self) {
        // It was allowed before; where that has changed since, where it is now is as good.
        let _ = allow(&self.0);
    }
}

fn allow(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the set is as large as said; thread 0 is the calling one.
    let ret = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_and_comes_back() {
        let before = Wandering::begin().unwrap();
        {
            let there = Wandering::begin().unwrap();
            there.go(0).unwrap();
            // SAFETY: it takes nothing and gives a number.
            assert_eq!(unsafe { libc::sched_getcpu() }, 0);
            assert!(there.go(1 << 20).is_err());
        }
        let after = Wandering::begin().unwrap();
        // SAFETY: both are whole sets.
        assert!(unsafe { libc::CPU_EQUAL(&before.0, &after.0) });
    }
}
