//! The campaigns that kill, where the kernel lacks something or the user may not use it.

use super::{daemon_sweep, keeper_sweep, random_kills};

/// A campaign's name, and what it has to do without.
pub fn named(campaign: &str, without: &str) -> String {
    match without {
        "" => campaign.to_owned(),
        without => format!("{campaign}, without {}", without.replace(',', " and ")),
    }
}

fn everything(without: &str) {
    const STRIDE: u64 = 61;
    const KILLS: u64 = 5;
    daemon_sweep::all(without, STRIDE);
    keeper_sweep::all(without, STRIDE);
    random_kills::all(without, KILLS);
}

#[test]
fn without_wp_async() {
    everything(testkit::FALLBACKS[0]);
}

#[test]
fn without_pagemap_scan() {
    everything(testkit::FALLBACKS[1]);
}

#[test]
fn without_suspending_seccomp() {
    everything(testkit::FALLBACKS[2]);
}

#[test]
fn as_a_plain_user() {
    everything(testkit::FALLBACKS[3]);
}
