//! Several plans that are carried through together: a step further is only gone when all have come
//! as far, and nobody runs before all are where they are to be.
//!
//! - Each waits twice on its way forward: when its threads stand still, before anything is changed,
//!   and when all is changed, before any thread goes on. Until the second wait is over it can still
//!   go back.
//! - Each waits once on its way back: before any thread goes on.
//! - Before anybody goes on from the last wait of a way, that way is agreed on, in a file. From then
//!   on some may run, so nothing is done twice: who was left at that wait has its threads go on.
//! - One whose slsd is gone at such a wait, with nothing agreed, stands still until the next attach
//!   puts all of them right, by this as well.

use sls_keeper::{Agreement, Outcome};

use crate::error::KeeperError;
use crate::keeper::{Keeper, Progress};

/// Whose plan it is.
pub trait Party {
    /// Its keeper.
    fn keeper(&mut self) -> &mut Keeper;

    /// The keeper was killed: another one is asked to put right what it left. False: there is
    /// nothing left of it.
    ///
    /// # Errors
    /// There is no other.
    fn again(&mut self) -> Result<bool, KeeperError>;
}

/// What else hangs on which way it is.
pub trait Others {
    /// All stand where they are to be, and wait: it comes as far, by way of them, who are in the charge
    /// of these.
    ///
    /// # Errors
    /// It does not: all go back.
    fn come(&mut self, keepers: &mut [&mut Keeper]) -> Result<(), String>;

    /// All go forward for sure; nobody does yet.
    fn agreed(&mut self);

    /// All go back; nobody does yet.
    fn turned(&mut self);
}

/// Nothing does.
impl Others for () {
    fn come(&mut self, _: &mut [&mut Keeper]) -> Result<(), String> {
        Ok(())
    }

    fn agreed(&mut self) {}

    fn turned(&mut self) {}
}

/// Where all are led.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// They have waited so many times.
    Undecided(usize),
    Forward,
    Back(String),
}

/// Waits of a plan forward.
const WAITS: usize = 2;

/// Leads plans that were just begun. Others that hang on it take an agreement.
///
/// # Errors
/// A keeper that was killed could not be replaced: its process stands still, or was not touched.
pub fn begun(
    parties: &mut [impl Party],
    agreement: Option<&Agreement>,
    others: &mut impl Others,
) -> Result<Vec<Outcome>, KeeperError> {
    lead(parties, Way::Undecided(0), agreement, others)
}

/// Leads those to where they belong that were left half way, and were asked to be put right.
///
/// # Errors
/// As above.
pub fn left(
    parties: &mut [impl Party],
    agreement: &Agreement,
) -> Result<Vec<Outcome>, KeeperError> {
    // What was agreed they know themselves, and do not wait.
    let way = Way::Back("they were left half way".to_owned());
    lead(parties, way, Some(agreement), &mut ())
}

/// What one is at.
enum At {
    /// On its way.
    Work,
    /// It waits; on the way back if it was turned.
    Wait,
    /// Its keeper was killed.
    Late,
    End(Outcome),
}

struct One<'a, P> {
    party: &'a mut P,
    at: At,
    turned: bool,
}

fn lead(
    parties: &mut [impl Party],
    mut way: Way,
    agreement: Option<&Agreement>,
    others: &mut impl Others,
) -> Result<Vec<Outcome>, KeeperError> {
    let turned = matches!(way, Way::Back(_));
    let begin = |party| One {
        party,
        at: At::Work,
        turned,
    };
    let mut all: Vec<One<'_, _>> = parties.iter_mut().map(begin).collect();
    loop {
        for one in &mut all {
            one.look()?;
        }
        if all.iter().all(|one| matches!(one.at, At::End(_))) {
            return Ok(all.into_iter().filter_map(One::outcome).collect());
        }
        if let Way::Undecided(waits) = way {
            way = decide(&mut all, waits, agreement, others);
            match way {
                Way::Forward => others.agreed(),
                Way::Back(_) => others.turned(),
                Way::Undecided(_) => {}
            }
        }
        let mut turns = false;
        for one in &mut all {
            turns |= match (&one.at, &way) {
                (At::Late, _) => one.again(matches!(way, Way::Back(_)))?,
                (At::Wait, Way::Back(why)) if !one.turned => one.turn(why)?,
                _ => false,
            };
        }
        // Nobody runs in the present before all have come back to it.
        if turns && matches!(way, Way::Back(_)) {
            continue;
        }
        if let (Way::Back(_), Some(agreement)) = (&way, agreement) {
            agreement.reach(sls_keeper::Way::Back)?;
        }
        for one in all.iter_mut().filter(|one| matches!(one.at, At::Wait)) {
            one.tell(&Ok(()))?;
        }
    }
}

/// All have come as far as this wait; or not.
fn decide<P: Party>(
    all: &mut [One<'_, P>],
    waits: usize,
    agreement: Option<&Agreement>,
    others: &mut impl Others,
) -> Way {
    for one in &*all {
        match &one.at {
            At::Late => return Way::Back("a keeper was killed".to_owned()),
            At::End(outcome) => return Way::Back(why(outcome)),
            At::Work | At::Wait => {}
        }
    }
    match agreement.filter(|_| waits + 1 == WAITS) {
        None => Way::Undecided(waits + 1),
        Some(agreement) => {
            let reach = || {
                let reached = agreement.reach(sls_keeper::Way::Forward);
                reached.map_err(|error| format!("write the agreement: {error}"))
            };
            let mut keepers: Vec<&mut Keeper> = all.iter_mut().map(|o| o.party.keeper()).collect();
            match others.come(&mut keepers).and_then(|()| reach()) {
                Ok(()) => Way::Forward,
                Err(why) => Way::Back(why),
            }
        }
    }
}

impl<P: Party> One<'_, P> {
    /// Waits for what it comes to.
    fn look(&mut self) -> Result<(), KeeperError> {
        if let At::Work = self.at {
            self.at = match self.party.keeper().progress() {
                Ok(Progress::Awaits) => At::Wait,
                Ok(Progress::Ended(outcome)) => At::End(outcome),
                Err(KeeperError::Gone(_)) => At::Late,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    fn outcome(self) -> Option<Outcome> {
        match self.at {
            At::End(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Another keeper, which leads it there.
    fn again(&mut self, turned: bool) -> Result<bool, KeeperError> {
        self.turned = turned;
        self.at = if self.party.again()? {
            At::Work
        } else {
            At::End(Outcome::PutBack {
                why: "the keeper was killed before it began".to_owned(),
            })
        };
        Ok(true)
    }

    fn turn(&mut self, why: &str) -> Result<bool, KeeperError> {
        self.turned = true;
        self.tell(&Err(why.to_owned()))?;
        Ok(true)
    }

    fn tell(&mut self, go_on: &Result<(), String>) -> Result<(), KeeperError> {
        self.at = match self.party.keeper().tell(go_on) {
            Err(KeeperError::Gone(_)) => At::Late,
            told => {
                told?;
                At::Work
            }
        };
        Ok(())
    }
}

fn why(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { .. } => "another process went ahead".to_owned(),
        Outcome::PutBack { why } | Outcome::Halted { why } => why.clone(),
    }
}
