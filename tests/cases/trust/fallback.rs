//! The campaigns, where the kernel lacks something or the user may not use it.

use super::{audit, daemon_sweep, determinism, keeper_sweep, mutator, random_kills};

/// A campaign's name, and what it has to do without.
pub fn named(campaign: &str, without: &str) -> String {
    match without {
        "" => campaign.to_owned(),
        without => format!("{campaign}, without {}", without.replace(',', " and ")),
    }
}

const STRIDE: u64 = 61;
const KILLS: u64 = 5;

fn slsd_killed(without: &str) {
    daemon_sweep::without(without, STRIDE);
    random_kills::without(without, KILLS);
}

fn keeper_killed(without: &str) {
    keeper_sweep::without(without, STRIDE);
}

fn exactness(without: &str) {
    determinism::without(without);
    mutator::without(without);
    if testkit::whole() {
        audit::without(without);
    }
}

/// Each takes most of an hour whole, so each is a test of its own.
macro_rules! without {
    ($($lack:ident: $what:expr;)*) => { $(mod $lack {
        #[test] fn slsd_killed() { super::slsd_killed($what); }
        #[test] fn keeper_killed() { super::keeper_killed($what); }
        #[test] fn exactness() { super::exactness($what); }
    })* };
}

without! {
    without_wp_async: testkit::FALLBACKS[0];
    without_pagemap_scan: testkit::FALLBACKS[1];
    without_suspending_seccomp: testkit::FALLBACKS[2];
    as_a_plain_user: testkit::FALLBACKS[3];
}
