//! What a program has of the kernel besides its memory: each looked at by the program itself, after a
//! rewind and after its end and a restore.

mod advice;
mod filters;
mod inotify;
mod kinds;
mod memory_files;
mod mqueues;
mod pipes;
mod sysv;
mod timers;
mod traps;
mod unlinked;

/// Both ways back to a checkpoint; `look` is what the program then looks at, and `lost` what could not
/// be put back.
fn both_ways(it: &mut testkit::Obedient, epoch: u64, mut look: impl FnMut(&mut testkit::Obedient)) {
    let lost = it.rewind(epoch);
    assert_eq!(lost, "[]");
    look(it);
    for _ in 0..2 {
        assert_eq!(it.restore(epoch), [""; 0]);
        look(it);
    }
}
