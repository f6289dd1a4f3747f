//! Processes made anew, and attached to once all of their pages are there.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use sls_engine::pager::Pager;
use sls_engine::{Options, Restored as Made};

use super::{Child, Epoch, Failure, Group, Refusal, Reply, Restored, Wish, Work, trouble};

/// Processes that run, while some of their pages are still on their way. What they hold can be told once
/// all are there.
pub struct Coming {
    pager: Pager,
    joining: Joining,
}

impl Coming {
    /// Readable once the pages are there.
    pub fn voice(&self) -> BorrowedFd<'_> {
        self.pager.voice()
    }
}

/// What is left to be done for processes that were made anew.
struct Joining {
    made: Made,
    from: Epoch,
    options: Options,
    period: Option<Duration>,
}

impl Work {
    /// Makes the process of a checkpoint anew, and attaches to it.
    pub(super) fn restore(&mut self, from: Epoch, wish: &Wish) -> Result<Reply, Refusal> {
        self.heed_end();
        if let Some(alive) = self.members().iter().find(|m| !m.is_dead()) {
            let (pid, part) = (alive.pid(), self.history.name());
            return Err(Refusal::new(
                Failure::Exists,
                format!(
                    "process {pid} of partition {part} is alive: `slsctl rewind -o {part} @{}` puts it back in place, or end it first",
                    from.0
                ),
            ));
        }
        let period = self.figures().period;
        self.let_go();
        let options = self.options(false);
        let _steps = sls_engine::fault::arm(0);
        let mut made = sls_engine::restore(&self.history, from, &options, wish)
            .map_err(|e| trouble::restore_refusal(&e))?;
        let children = std::mem::take(&mut made.roots).into_iter();
        self.children = children.map(|(pid, life)| Child::new(pid, life)).collect();
        self.figures().branched(&made.branch, from);
        let mut restored = Restored {
            partition: self.history.name().to_owned(),
            epoch: from.0,
            pids: made.pids.clone(),
            branch: made.branch.clone(),
            pages: made.pages,
            us: u64::try_from(made.took.as_micros()).unwrap_or(u64::MAX),
            not_restored: std::mem::take(&mut made.not_restored),
        };
        let pager = made.pager.take();
        let joining = Joining {
            made,
            from,
            options,
            period,
        };
        match pager {
            None => restored.not_restored.extend(self.take_up(joining)),
            Some(pager) => self.expect(Coming { pager, joining }),
        }
        Ok(Reply::Restored(restored))
    }

    /// They run; attaching to them waits for their pages.
    fn expect(&mut self, coming: Coming) {
        let Made { pids, stopped, .. } = &coming.joining.made;
        let pids = pids.iter().map(|&(_, pid)| pid).collect();
        let mut figures = self.figures();
        let tracking = "pages are on their way".to_owned();
        figures.attached(pids, coming.joining.period, tracking);
        figures.suspended = *stopped;
        drop(figures);
        self.coming = Some(coming);
    }

    /// Are the pages there by now?
    pub(super) fn heed_pages(&mut self) {
        if let Some(coming) = &mut self.coming {
            match coming.pager.is_done() {
                Ok(false) => {}
                Ok(true) => self.arrived(Ok(())),
                Err(why) => self.arrived(Err(why)),
            }
        }
    }

    /// Waits for the pages, which come as quickly as they can.
    pub(super) fn await_pages(&mut self) {
        if let Some(coming) = &mut self.coming {
            let came = coming.pager.await_end();
            self.arrived(came);
        }
    }

    fn arrived(&mut self, came: Result<(), String>) {
        let Some(Coming { joining, .. }) = self.coming.take() else {
            return;
        };
        if let Err(why) = came {
            tracing::error!(why, "pages of a restored process; it was ended");
            self.let_go();
            let message = format!("its pages could not be brought, so it was ended: {why}");
            self.figures().last_error = Some(message);
            return;
        }
        for what in self.take_up(joining) {
            tracing::warn!(what, "not done after a lazy restore");
        }
    }

    /// Attaches to them; what was not possible.
    fn take_up(&mut self, joining: Joining) -> Vec<String> {
        let Joining {
            made,
            from,
            options,
            period,
        } = joining;
        let mut not_done = Vec::new();
        self.group = Some(Group::new(options, Some(from)));
        let mut how = None;
        for (&(_, pid), former) in made.pids.iter().zip(made.former) {
            match self.join(pid, false, false) {
                Ok(tracking) => {
                    if let Some(group) = &mut self.group {
                        group.remember(pid, former);
                    }
                    how = how.or(Some(tracking));
                }
                Err(_) if sls_engine::procfs::is_dead(pid) => {} // It has ended at once.
                Err(refusal) => {
                    let what = format!("attachment of process {pid}");
                    not_done.push(format!("{what}: {}", refusal.message));
                }
            }
        }
        match (how, &mut self.group) {
            (Some(tracking), Some(group)) => {
                // Those that descend from several were followed before.
                group.note_restored(made.ended, made.renamed);
                if made.pids.len() > 1
                    && let Err(error) = group.follow()
                {
                    not_done.push(format!("those that descend from them: {error}"));
                }
                self.attached(period, &tracking);
                self.figures().suspended = made.stopped;
            }
            _ => self.let_go(),
        }
        not_done
    }
}
