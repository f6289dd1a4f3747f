//! What a restore makes its processes from.

use slos::{Epoch, Partition};
use sls_record::{Process, Record};

use crate::error::RestoreError;

/// The record of a checkpoint, whose processes can be made.
pub fn record(partition: &Partition, epoch: Epoch) -> Result<Record, RestoreError> {
    let bytes = partition
        .record(epoch)
        .map_err(|source| RestoreError::Read {
            epoch: epoch.0,
            source,
        })?;
    let record: Record = sls_record::decode(&bytes).map_err(|source| RestoreError::Record {
        epoch: epoch.0,
        source,
    })?;
    check(&record.processes).map_err(|why| RestoreError::Impossible {
        epoch: epoch.0,
        why,
    })?;
    Ok(record)
}

/// Can they be made at all?
pub fn check(all: &[Process]) -> Result<(), String> {
    if all.is_empty() {
        return Err("it holds no process".to_owned());
    }
    for (at, process) in all.iter().enumerate() {
        let pid = process.pid;
        if process.threads.first().is_none_or(|t| t.tid != pid) {
            return Err(format!(
                "the main thread of process {pid} had ended already"
            ));
        }
        if all[..at].iter().any(|other| other.pid == pid) {
            return Err(format!("it holds process {pid} twice"));
        }
    }
    Ok(())
}
