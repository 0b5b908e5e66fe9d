//! Runs of small trees: the same seed twice, and each checker against a bug planted for it.

#![allow(clippy::unwrap_used, clippy::panic)] // a panic is a failed test

use rootcast::limits::SILENCE_WAIT;
use rootcast_sim::checks::Rule;
use rootcast_sim::disk::Planted;
use rootcast_sim::failover::{End, fail_over};
use rootcast_sim::far::Far;
use rootcast_sim::network::Link;
use rootcast_sim::run::{Outcome, Sabotage, Setup, run};
use rootcast_sim::world::Size;
use std::collections::BTreeSet;
use std::time::Duration;

const SMALL: Setup = Setup {
    seed: 1,
    size: Size { hosts: 5, relays: 3, share: 2 },
    time: Duration::from_secs(90),
    every: Some(Duration::from_secs(8)),
    publishes: Duration::from_secs(10),
    prints: false,
    sabotage: None,
};

/// The rules that a run broke.
fn broken(outcome: &Outcome) -> BTreeSet<Rule> {
    outcome.violations.iter().map(|violation| violation.rule).collect()
}

fn sabotaged(sabotage: Sabotage) -> BTreeSet<Rule> {
    broken(&run(&Setup { sabotage: Some(sabotage), ..SMALL }).unwrap())
}

/// Without the flag (.cargo/config.toml) tokio draws the order in which those wake that wait for one thing.
#[cfg(tokio_unstable)]
#[test]
fn the_same_seed_gives_the_same_trace_to_the_datagram() {
    let (one, two) = (run(&SMALL).unwrap(), run(&SMALL).unwrap());
    for (one, two) in one.lines.iter().zip(&two.lines) {
        assert_eq!(one, two);
    }
    assert_eq!(one.lines.len(), two.lines.len());
    assert_eq!(one.datagrams, two.datagrams);
    assert!(one.datagrams.0 > 1000 && one.lines.len() > 100, "{:?}", one.datagrams);
    let other = run(&Setup { seed: 2, ..SMALL }).unwrap();
    assert_ne!(one.datagrams, other.datagrams);
}

#[test]
fn faults_of_all_kinds_are_survived() {
    for seed in 10..14 {
        let outcome = run(&Setup { seed, ..SMALL }).unwrap();
        assert_eq!(outcome.violations, [], "seed {seed}");
        assert!(outcome.files_compared > 0 && outcome.faults > 0 && outcome.releases > 3);
    }
}

#[test]
fn a_store_that_forgets_its_floors_is_found() {
    assert!(sabotaged(Sabotage::Store(Planted::ForgetsFloors)).contains(&Rule::Floors));
}

#[test]
fn a_host_that_shows_what_was_not_verified_is_found() {
    assert!(sabotaged(Sabotage::ShowsUnverified).contains(&Rule::Active));
    // A store that does not compare what it reads is no way to get there: the agent does.
    let calm = Setup { every: None, time: Duration::from_secs(20), ..SMALL };
    let sabotage = Some(Sabotage::Store(Planted::ReadsUnverified));
    let found = broken(&run(&Setup { sabotage, ..calm }).unwrap());
    assert_eq!(found, BTreeSet::from([Rule::Converges]));
}

#[test]
fn a_store_that_takes_what_nobody_published_is_found() {
    assert!(sabotaged(Sabotage::Store(Planted::TakesForks)).contains(&Rule::Held));
}

#[test]
fn a_host_that_goes_back_is_found() {
    let calm = Setup { every: None, sabotage: Some(Sabotage::GoesBack), ..SMALL };
    assert!(broken(&run(&calm).unwrap()).contains(&Rule::Order));
}

#[test]
fn a_store_that_is_damaged_in_the_end_is_found() {
    let calm = Setup { every: None, sabotage: Some(Sabotage::Rots), ..SMALL };
    assert_eq!(broken(&run(&calm).unwrap()), BTreeSet::from([Rule::Whole]));
}

#[test]
fn a_parent_that_waits_for_its_slowest_child_is_found() {
    let calm = Setup { every: None, sabotage: Some(Sabotage::WaitsForSlowest), ..SMALL };
    let found = (1..4).map(|seed| broken(&run(&Setup { seed, ..calm }).unwrap()));
    assert!(found.into_iter().any(|rules| rules.contains(&Rule::Prompt)));
}

#[test]
fn a_host_that_stays_cut_off_is_found() {
    assert_eq!(sabotaged(Sabotage::NeverHealed), BTreeSet::from([Rule::Converges]));
}

#[test]
fn hosts_that_do_not_come_home_are_found() {
    let calm = Setup { every: None, sabotage: Some(Sabotage::StaysDown), ..SMALL };
    assert_eq!(broken(&run(&calm).unwrap()), BTreeSet::from([Rule::Home, Rule::Status, Rule::Prompt]));
}

#[test]
fn hosts_that_pass_their_relays_by_are_found() {
    let calm = Setup { every: None, sabotage: Some(Sabotage::BypassesRelays), ..SMALL };
    assert!(broken(&run(&calm).unwrap()).contains(&Rule::Origin));
}

#[test]
fn the_origin_sends_no_more_to_many_hosts_than_to_few() {
    let bytes = |hosts| {
        let size = Size { hosts, relays: 3, share: 2 };
        let outcome = run(&Setup { size, every: None, ..SMALL }).unwrap();
        assert_eq!(outcome.violations, []);
        outcome.origin_bytes as f64
    };
    let (few, many) = (bytes(4), bytes(24));
    assert!(many < few * 1.15, "{few} B to the relays of 4 hosts, {many} B to those of 24");
}

/// 300 ms there and back, and one datagram in twenty lost.
const FAR: Link = Link { extra: Duration::from_millis(150), loss: 0.05, reordered: 0.02, rate: 1.25e6 };

#[test]
fn s0_2_a_cut_midway_costs_what_was_in_flight() {
    let whole = Far { seed: 1, size: 1_000_000, link: FAR, cut: None, idle: Duration::ZERO };
    let uncut = whole.run().unwrap();
    // Most of it had arrived. A cut of a minute is longer than a connection lives.
    let midway = uncut.bytes * 3 / 5;
    let cut = Far { cut: Some((midway, Duration::from_secs(60))), ..whole }.run().unwrap();
    assert!(uncut.took.is_some() && cut.took.is_some(), "{uncut:?} {cut:?}");
    // What was in flight, a second handshake, and what was sent into the void until it was noticed.
    assert!(cut.bytes < uncut.bytes + 120_000, "{uncut:?} {cut:?}");
}

#[test]
fn s1_3_an_idle_hour_fetches_nothing_and_a_release_comes_at_once() {
    let idle = Duration::from_secs(3600);
    let host = Far { seed: 1, size: 0, link: Link::GOOD, cut: None, idle }.run().unwrap();
    // What keeps a connection open: an acknowledgement each 25 s or so.
    assert!(host.idle_bytes < 20_000, "{host:?}");
    assert!(host.next.is_some_and(|next| next < Duration::from_secs(1)), "{host:?}");
}

/// What the hosts of a relay that ended waited for: until they noticed, and from then on.
fn longest(end: End) -> (Duration, Duration) {
    let size = Size { hosts: 12, relays: 6, share: 2 };
    let waited: Vec<_> = (1..=5).flat_map(|seed| fail_over(seed, size, end).unwrap()).collect();
    println!("{waited:?}");
    assert!(waited.len() >= 5, "each seed has a host that followed the relay: {waited:?}");
    let detected = waited.iter().map(|waited| waited.detected).max();
    (detected.unwrap(), waited.iter().map(|waited| waited.shown).max().unwrap())
}

/// To the sibling, 1 ms off, and from there to the origin, 110 ms off, for the bundles that only this host
/// has; with what disks take.
const NEXT_RELAY: Duration = Duration::from_millis(260);

#[test]
fn s1_8_a_relay_that_says_good_bye_is_replaced_at_once() {
    let (detected, shown) = longest(End::Asked);
    assert!(detected < Duration::from_millis(10), "{detected:?}");
    assert!(shown < NEXT_RELAY, "{shown:?}");
}

#[test]
fn s1_8_a_relay_that_falls_silent_is_replaced_once_it_is_noticed() {
    let (detected, shown) = longest(End::Silent);
    assert!(detected < SILENCE_WAIT + Duration::from_secs(1), "{detected:?}");
    assert!(shown < NEXT_RELAY, "{shown:?}");
}
