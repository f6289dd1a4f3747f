//! The calls of a plan: arguments, results, and what counts as success.

use std::collections::BTreeMap;
use std::io;

use sls_keeper::{Arg, Step, Want};
use sls_sys::batch::{Batch, Word};
use sls_sys::fault;

use crate::inject::{Borrowed, Made};
use crate::steps::StepFailed;

/// What calls gave.
pub struct Results {
    saved: [u64; 256],
    /// Names of what could not be put back, with the cause.
    pub reports: Vec<String>,
}

impl Default for Results {
    fn default() -> Self {
        Self {
            saved: [0; 256],
            reports: Vec::new(),
        }
    }
}

/// A step that is a call.
pub struct Call<'a> {
    /// None: the leader.
    pub tid: Option<i32>,
    what: &'a str,
    nr: u64,
    args: &'a [Arg],
    want: &'a Want,
}

impl<'a> Call<'a> {
    pub fn of(step: &'a Step) -> Option<Self> {
        let (tid, what, nr, args, want) = match step {
            Step::Call {
                what,
                nr,
                args,
                want,
            } => (None, what, nr, args, want),
            Step::CallIn {
                tid,
                what,
                nr,
                args,
                want,
            } => (Some(*tid), what, nr, args, want),
            _ => return None,
        };
        Some(Self {
            tid,
            what,
            nr: *nr,
            args,
            want,
        })
    }

    fn failed(&self, source: io::Error) -> StepFailed {
        let what = match self.tid {
            None => self.what.to_owned(),
            Some(tid) => format!("thread {tid}: {}", self.what),
        };
        StepFailed {
            what,
            source,
            stands: false,
        }
    }
}

/// Calls that are made without a stop between them.
struct Together<'a> {
    batch: Batch,
    calls: &'a [Call<'a>],
    /// The one behind them is not to be made, and fails with this.
    refused: Option<io::Error>,
    /// Where the last one writes the pair that is saved.
    pair_at: u64,
}

impl Results {
    /// Makes each by itself.
    pub fn one_by_one(
        &mut self,
        thread: &mut Borrowed<'_>,
        calls: &[Call<'_>],
    ) -> Result<(), StepFailed> {
        calls.iter().try_for_each(|call| {
            let made = fault::point(call.what).and_then(|()| self.call(thread, call));
            self.judge(call, made)
        })
    }

    /// Makes as many as there is room for at `at` at once, by the instructions at `code`.
    pub fn batches(
        &mut self,
        thread: &mut Borrowed<'_>,
        calls: &[Call<'_>],
        (at, code): (u64, u64),
    ) -> Result<(), StepFailed> {
        let mut rest = calls;
        while !rest.is_empty() {
            let together = self.together(rest, at);
            let count = together.calls.len();
            rest = &rest[count..];
            self.batch(thread, &together, code)?;
            let next = match (together.refused, count) {
                (Some(refused), _) => Some(Err(refused)),
                // There is no room for its bytes there.
                (None, 0) => rest.first().map(|call| self.call(thread, call)),
                (None, _) => None,
            };
            if let (Some(made), Some((call, others))) = (next, rest.split_first()) {
                self.judge(call, made)?;
                rest = others;
            }
        }
        Ok(())
    }

    fn together<'c>(&self, calls: &'c [Call<'c>], at: u64) -> Together<'c> {
        let mut batch = Batch::new(at);
        let mut saved = BTreeMap::new();
        let mut pair_at = 0;
        let mut refused = None;
        for call in calls {
            let bytes = call.args.iter().map(|arg| match arg {
                Arg::Bytes(bytes) => bytes.len().next_multiple_of(16),
                _ => 0,
            });
            if !batch.has_room(bytes.sum()) {
                break;
            }
            if let Err(error) = fault::point(call.what) {
                refused = Some(error);
                break;
            }
            let mut laid = None;
            let mut word = |arg: &Arg| match arg {
                Arg::Value(value) => Word::Value(*value),
                Arg::Saved(n) => match saved.get(n) {
                    Some(&place) => Word::Result(place),
                    None => Word::Value(self.saved[usize::from(*n)]),
                },
                Arg::Bytes(bytes) => Word::Value({
                    let at = batch.lay(bytes);
                    laid.get_or_insert(at);
                    at
                }),
            };
            let words: Vec<Word> = call.args.iter().map(&mut word).collect();
            if let Want::Save(n) = call.want {
                saved.insert(*n, batch.len());
            }
            batch.add(call.nr, &words, matches!(call.want, Want::Report(_)));
            if let Want::SavePair(_) = call.want {
                pair_at = laid.unwrap_or_default();
                break;
            }
        }
        Together {
            calls: &calls[..batch.len()],
            batch,
            refused,
            pair_at,
        }
    }

    fn batch(
        &mut self,
        thread: &mut Borrowed<'_>,
        together: &Together<'_>,
        code: u64,
    ) -> Result<(), StepFailed> {
        let mut made = 0;
        // It stops where one fails; and goes on behind it when that does not matter.
        while let Some(next) = together.calls.get(made) {
            let batch = thread.batch(&together.batch, code, made);
            let Made { results, error } = batch.map_err(|error| next.failed(error))?;
            for result in results {
                let call = &together.calls[made];
                let result = result.cast_signed();
                if let (Want::SavePair(n), true) = (call.want, result >= 0) {
                    let pair = thread.fetch_at(together.pair_at);
                    self.save_pair(*n, pair.map_err(|error| call.failed(error))?);
                }
                self.judge(call, Ok(result))?;
                made += 1;
            }
            if let (Some(error), Some(call)) = (error, together.calls.get(made)) {
                return Err(call.failed(error));
            }
        }
        Ok(())
    }

    /// Makes one by itself.
    fn call(&mut self, thread: &mut Borrowed<'_>, call: &Call<'_>) -> io::Result<i64> {
        let mut words = Vec::with_capacity(call.args.len());
        let mut offset = 0;
        for arg in call.args {
            words.push(match arg {
                Arg::Value(v) => *v,
                Arg::Saved(n) => self.saved[usize::from(*n)],
                Arg::Bytes(bytes) => {
                    let at = thread.lay(offset, bytes)?;
                    offset += (bytes.len() as u64).next_multiple_of(16);
                    at
                }
            });
        }
        let result = thread.call(call.nr.cast_signed(), &words)?;
        if let (Want::SavePair(n), true) = (call.want, result >= 0) {
            self.save_pair(*n, thread.fetch_at(thread.arguments())?);
        }
        Ok(result)
    }

    fn save_pair(&mut self, n: u8, pair: [u8; 8]) {
        for (i, int) in pair.chunks_exact(4).enumerate() {
            let int = i32::from_le_bytes(int.try_into().unwrap_or_default());
            self.saved[usize::from(n) + i] = u64::from(int.cast_unsigned());
        }
    }

    /// Is what was made of it what is wanted? One that the kernel did not see fails in the same way.
    fn judge(&mut self, call: &Call<'_>, made: io::Result<i64>) -> Result<(), StepFailed> {
        let judged = match made {
            Ok(result) => self.take(call, result),
            Err(error) if error.raw_os_error() == Some(fault::ERRNO) => {
                self.take(call, -i64::from(fault::ERRNO))
            }
            Err(error) => Err(error),
        };
        judged.map_err(|error| call.failed(error))
    }

    fn take(&mut self, call: &Call<'_>, result: i64) -> io::Result<()> {
        let (what, want) = (call.what, call.want);
        let errno = (-4095..0)
            .contains(&result)
            .then(|| i32::try_from(-result).unwrap_or(0));
        match (want, errno) {
            (Want::Success | Want::Or(_) | Want::SavePair(_), None) => Ok(()),
            (Want::Or(fine), Some(errno)) if fine.contains(&errno) => Ok(()),
            (Want::Exactly(value), None) if *value == result.cast_unsigned() => Ok(()),
            (Want::Exactly(value), None) => Err(io::Error::other(format!(
                "gave {result:#x} instead of {value:#x}"
            ))),
            (Want::Save(n), None) => {
                self.saved[usize::from(*n)] = result.cast_unsigned();
                Ok(())
            }
            (Want::Report(_), None) => Ok(()),
            (Want::Report(name), Some(errno)) => {
                let cause = io::Error::from_raw_os_error(errno);
                self.reports.push(format!("{name}: {what}: {cause}"));
                Ok(())
            }
            (_, Some(errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}
