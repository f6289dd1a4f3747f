//! Questions to a thread that also waits for other things.
//!
//! Neither side waits for one that has ended: a post whose reader is gone says so, a reader whose
//! last writer is gone sees the end.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// The side that asks; the reader sees the end when it is dropped.
#[derive(Debug)]
pub struct Post<Q, A> {
    letters: Option<Sender<Letter<Q, A>>>,
    bell: Arc<EventFd>,
}

/// The side that answers.
#[derive(Debug)]
pub struct Inbox<Q, A> {
    letters: Receiver<Letter<Q, A>>,
    bell: Arc<EventFd>,
}

/// A question, and where its answer goes.
#[derive(Debug)]
pub struct Letter<Q, A> {
    pub question: Q,
    answer: SyncSender<A>,
}

/// The other side has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over;

/// Two sides of one mailbox.
pub fn mailbox<Q, A>() -> std::io::Result<(Post<Q, A>, Inbox<Q, A>)> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let bell = Arc::new(EventFd::from_flags(flags)?);
    let (sender, letters) = channel();
    let post = Post {
        letters: Some(sender),
        bell: Arc::clone(&bell),
    };
    Ok((post, Inbox { letters, bell }))
}

impl<Q, A> Post<Q, A> {
    /// Asks and waits for the answer.
    pub fn ask(&self, question: Q) -> Result<A, Over> {
        let (answer, answered) = sync_channel(1);
        let letters = self.letters.as_ref().ok_or(Over)?;
        letters
            .send(Letter { question, answer })
            .map_err(|_| Over)?;
        self.ring();
        // A reader that ends drops the letters it has not read, and their answers with them.
        answered.recv().map_err(|_| Over)
    }

    fn ring(&self) {
        // Fails only when the counter is full: then it rings already.
        let _ = self.bell.write(1);
    }
}

impl<Q, A> Drop for Post<Q, A> {
    fn drop(&mut self) {
        drop(self.letters.take());
        self.ring();
    }
}

impl<Q, A> Inbox<Q, A> {
    /// The next letter, None when there is none now.
    pub fn next(&self) -> Result<Option<Letter<Q, A>>, Over> {
        // The bell only wakes; the letters say what there is.
        let _ = self.bell.read();
        match self.letters.try_recv() {
            Ok(letter) => Ok(Some(letter)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Over),
        }
    }

    /// There may be more letters: the bell is not to be waited for.
    pub fn ring(&self) {
        // Fails only when the counter is full: then it rings already.
        let _ = self.bell.write(1);
    }

    /// Readable when it is worth looking.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl<Q, A> Letter<Q, A> {
    /// The question, and the way back.
    pub fn open(self) -> (Q, impl FnOnce(A)) {
        let answer = self.answer;
        let reply = move |text| {
            // Who asked may have left meanwhile.
            let _ = answer.send(text);
        };
        (self.question, reply)
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn wait(inbox: &Inbox<u32, u32>) {
        let mut fds = [PollFd::new(inbox.bell(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(5000u16)), Ok(1));
    }

    #[test]
    fn a_question_is_answered() {
        let (post, inbox) = mailbox().unwrap();
        let reader = std::thread::spawn(move || {
            wait(&inbox);
            let (question, reply) = inbox.next().unwrap().unwrap().open();
            reply(question + 1);
        });
        assert_eq!(post.ask(41), Ok(42));
        reader.join().unwrap();
    }

    /// A reader that panics must not leave those waiting who asked before, nor those who ask after.
    #[test]
    fn nobody_waits_for_a_reader_that_has_ended() {
        let (post, inbox) = mailbox::<u32, u32>().unwrap();
        let reader = std::thread::spawn(move || {
            wait(&inbox);
            drop(inbox); // With the letter unread.
        });
        assert_eq!(post.ask(1), Err(Over));
        assert_eq!(post.ask(2), Err(Over));
        reader.join().unwrap();
    }

    #[test]
    fn a_reader_learns_that_nobody_can_ask_any_more() {
        let (post, inbox) = mailbox::<u32, u32>().unwrap();
        assert!(matches!(inbox.next(), Ok(None)));
        drop(post);
        wait(&inbox);
        assert!(matches!(inbox.next(), Err(Over)));
    }
}
