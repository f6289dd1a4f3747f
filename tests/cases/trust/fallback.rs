//! The campaigns, where the kernel lacks something or the user may not use it.

use super::{audit, daemon_sweep, determinism, keeper_sweep, mutator, random_kills};

/// A campaign's name, and what it has to do without.
pub fn named(campaign: &str, without: &str) -> String {
    match without {
        "" => campaign.to_owned(),
        without => format!("{campaign}, without {}", without.replace(',', " and ")),
    }
}

fn campaigns(without: &str) {
    const STRIDE: u64 = 61;
    const KILLS: u64 = 5;
    daemon_sweep::without(without, STRIDE);
    keeper_sweep::without(without, STRIDE);
    random_kills::without(without, KILLS);
    determinism::without(without);
    mutator::without(without);
    if testkit::whole() {
        audit::without(without);
    }
}

#[test]
fn without_wp_async() {
    campaigns(testkit::FALLBACKS[0]);
}

#[test]
fn without_pagemap_scan() {
    campaigns(testkit::FALLBACKS[1]);
}

#[test]
fn without_suspending_seccomp() {
    campaigns(testkit::FALLBACKS[2]);
}

#[test]
fn as_a_plain_user() {
    campaigns(testkit::FALLBACKS[3]);
}
