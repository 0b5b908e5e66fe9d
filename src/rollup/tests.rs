#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::limits::{MAX_REASON, MAX_RELAY_ROWS, MAX_STATUS_COUNTS, MAX_WORST};
use crate::selector::Selector;
use crate::status::{HostsAnswer, HostsQuery};
use proptest::prelude::*;

const KEPT: u64 = OFFLINE_KEPT.as_secs();

fn host(name: &str) -> Child {
    Child { relay: false, name: name.into() }
}

fn relay(name: &str) -> Child {
    Child { relay: true, name: name.into() }
}

fn condition(release: u64, state: HostState, since: u64) -> Condition {
    Condition { release, state, since, ..Condition::none(0) }
}

fn says(sequence: u64, own: Condition) -> Report {
    Report { sequence, own, before: String::new(), below: None }
}

fn active(release: u64) -> Condition {
    condition(release, HostState::Active, 1)
}

/// What a relay reports, by way of the wire.
fn report_of(rollup: &mut Rollup, sequence: u64, release: u64) -> Report {
    let below = Some(rollup.below(release, Serving::default()));
    let report = Report { sequence, own: active(release), before: String::new(), below };
    crate::codec::decode(&crate::codec::encode(&report), crate::limits::MAX_STATUS_ANSWER).unwrap()
}

fn put(rollup: &mut Rollup, child: Child, session: u64, report: Report) -> Outcome {
    rollup.report(&child, Certified::default(), session, report)
}

fn total(counts: &[Count]) -> u64 {
    counts.iter().map(|count| count.hosts).sum()
}

fn count(counts: &[Count], release: u64, state: HostState) -> u64 {
    counts.iter().filter(|count| (count.release, count.state) == (release, state)).map(|c| c.hosts).sum()
}

fn query(selector: &str, limit: u64) -> HostsQuery {
    let channel = ChannelName::new("prod").unwrap();
    let selector = Selector::parse(selector).unwrap();
    HostsQuery { channel, selector, limit, after: Default::default(), wait: 1 }
}

#[derive(Debug, Clone)]
enum Step {
    Report { name: u8, session: u64, sequence: u64, release: u64, state: HostState, since: u64 },
    Lost { name: u8, session: u64 },
    Expire,
    Moved { name: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let state = prop::sample::select(HostState::ALL.to_vec());
    let step = prop_oneof![
        6 => (0..6u8, 1..4u64, 0..4u64, 0..4u64, state, 0..9u64).prop_map(
            |(name, session, sequence, release, state, since)| Step::Report { name, session, sequence, release, state, since }
        ),
        3 => (0..6u8, 1..4u64).prop_map(|(name, session)| Step::Lost { name, session }),
        1 => Just(Step::Expire),
        1 => (0..6u8).prop_map(|name| Step::Moved { name }),
    ];
    prop::collection::vec(step, 0..60)
}

/// What is known of a host: session, sequence, condition, when it left, whether it moved.
type Known = (u64, u64, Condition, Option<u64>, bool);

proptest! {
    /// ST-3: the counts and the order that are kept up change by change are those of all hosts.
    #[test]
    fn st_3_folding_step_by_step_is_folding_all(steps in steps()) {
        let mut rollup = Rollup::new("r");
        let mut model: BTreeMap<String, Known> = BTreeMap::new();
        for (now, step) in steps.into_iter().enumerate() {
            let now = now as u64 * (KEPT / 10);
            match step {
                Step::Report { name, session, sequence, release, state, since } => {
                    let name = name.to_string();
                    let own = condition(release, state, since);
                    let newer = model.get(&name).is_none_or(|known| (session, sequence) > (known.0, known.1));
                    if newer {
                        model.insert(name.clone(), (session, sequence, own.clone(), None, false));
                    }
                    let outcome = put(&mut rollup, host(&name), session, says(sequence, own));
                    prop_assert!(newer || !outcome.changed);
                }
                Step::Lost { name, session } => {
                    let name = name.to_string();
                    if let Some(known) = model.get_mut(&name).filter(|known| known.0 == session && known.3.is_none()) {
                        known.3 = Some(now);
                        known.2.offline(now);
                        if known.4 {
                            model.remove(&name);
                        }
                    }
                    rollup.lost(&host(&name), session, now);
                }
                Step::Expire => {
                    model.retain(|_, known| known.3.is_none_or(|left| left + KEPT > now));
                    rollup.expire(now);
                }
                Step::Moved { name } => {
                    let name = name.to_string();
                    if let Some(known) = model.get_mut(&name) {
                        known.4 = true;
                        if known.3.is_some() {
                            model.remove(&name);
                        }
                    }
                    let routed = rollup.moved(Move { host: name, from: "r".into() });
                    prop_assert!(routed.is_none());
                }
            }
            let below = rollup.look(2, Serving::default());
            for release in 0..4 {
                for state in HostState::ALL {
                    let want = model.values().filter(|k| (k.2.release, k.2.state) == (release, state)).count() as u64;
                    prop_assert_eq!(count(&below.serving.counts, release, state), want);
                }
            }
            let mut worst: Vec<_> = model.iter().filter(|(_, known)| is_bad(&known.2, 2)).collect();
            worst.sort_by_key(|(name, known)| (urgency(&known.2), (*name).clone()));
            let names: Vec<_> = worst.into_iter().map(|(name, _)| name.clone()).collect();
            prop_assert_eq!(below.worst.into_iter().map(|row| row.name).collect::<Vec<_>>(), names);
            prop_assert_eq!(below.serving.children, model.values().filter(|known| known.3.is_none()).count() as u64);
            prop_assert_eq!(rollup.left.len(), model.values().filter(|known| known.3.is_some()).count());
        }
    }

    /// ST-22: pages of a tree, one after the other, are the list of all hosts.
    #[test]
    fn st_22_pages_of_three_relays_are_the_sorted_list(places in prop::collection::vec((0..12u8, 0..3usize), 0..30), limit in 1..5u64) {
        let mut relays = ["origin", "a", "b"].map(Rollup::new);
        let mut want = BTreeSet::new();
        for (name, at) in places {
            let name = format!("h{name}");
            want.insert((name.clone(), relays[at].name.clone()));
            put(&mut relays[at], host(&name), 1, says(1, active(1)));
        }
        let mut ask = query("", limit);
        let mut got = Vec::new();
        loop {
            let below = [("a", 1), ("b", 2)].map(|(name, at): (&str, usize)| (name.to_owned(), relays[at].page(&ask)));
            let answer = merge("origin", relays[0].page(&ask), below, &ask);
            prop_assert!(answer.hosts.len() as u64 <= limit);
            got.extend(answer.hosts.iter().map(|row| (row.name.clone(), row.relays.last().unwrap().clone())));
            match page_after(&answer) {
                Some(after) => ask.after = after,
                None => break,
            }
        }
        prop_assert_eq!(got, want.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn st_4_what_comes_late_changes_nothing() {
    let mut rollup = Rollup::new("r");
    assert!(put(&mut rollup, host("w"), 2, says(5, active(3))).changed);
    for (session, sequence) in [(2, 5), (2, 4), (1, 9)] {
        assert!(!put(&mut rollup, host("w"), session, says(sequence, active(1))).changed);
    }
    // A lost old session is not the end of the new one.
    assert!(!rollup.lost(&host("w"), 1, 10));
    assert_eq!(count(&rollup.counts(), 3, HostState::Active), 1);
    // Bytes alone are nothing to tell anybody.
    let more = Condition { received: 9, ..active(3) };
    assert!(!put(&mut rollup, host("w"), 2, says(6, more)).changed);
}

#[test]
fn st_5_three_levels_are_told_apart_and_keep_their_counts() {
    let (mut origin, mut middle, mut leaf) = (Rollup::new("o"), Rollup::new("m"), Rollup::new("l"));
    for (name, release) in [("w1", 2), ("w2", 2), ("w3", 1)] {
        put(&mut leaf, host(name), 1, says(1, active(release)));
    }
    put(&mut middle, host("w4"), 1, says(1, active(2)));
    let report = report_of(&mut leaf, 1, 2);
    put(&mut middle, relay("l"), 1, report);
    let report = report_of(&mut middle, 1, 2);
    put(&mut origin, relay("m"), 1, report);
    let below = origin.look(2, Serving::default());
    let shown: Vec<_> = below
        .relays
        .iter()
        .map(|row| (row.name.as_str(), row.parent.as_str(), row.serving.children, total(&row.serving.counts)))
        .collect();
    assert_eq!(shown, [("m", "o", 2, 1), ("l", "m", 3, 3)]);
    let worst: Vec<_> = below.worst.iter().map(|row| (row.name.as_str(), row.relays.join("/"))).collect();
    assert_eq!(worst, [("w3", "o/m/l".to_owned())]);
    // A relay that is lost takes all below it with it.
    assert!(origin.lost(&relay("m"), 1, 77));
    let below = origin.look(2, Serving::default());
    assert!(
        below.relays.iter().all(|row| (row.condition.state, row.condition.since) == (HostState::Offline, 77))
    );
    let counts: Vec<Count> = below.relays.iter().flat_map(|row| row.serving.counts.clone()).collect();
    assert_eq!(
        counts.iter().filter(|count| count.state == HostState::Offline).map(|c| c.hosts).sum::<u64>(),
        4
    );
    let (ask, gone) = origin.to_ask(&Selector::default());
    assert_eq!((ask, gone), (Vec::new(), vec!["m".to_owned()]));
}

#[test]
fn st_6_a_child_cannot_claim_another_place_for_itself_or_others() {
    let row = |name: &str, parent: &str| RelayRow {
        name: name.into(),
        parent: parent.into(),
        place: String::new(),
        condition: active(1),
        serving: Serving::default(),
    };
    let mut origin = Rollup::new("o");
    put(&mut origin, relay("z"), 1, says(1, active(1)));
    let relays =
        vec![row("x", "z"), row("deep", "x"), row("y", "o"), row("z", "x"), row("o", "x"), row("a", "a")];
    let host_of = |name: &str, relays: &[&str]| HostRow {
        name: name.into(),
        relays: relays.iter().map(|relay| (*relay).to_owned()).collect(),
        labels: String::new(),
        expires: 0,
        condition: condition(1, HostState::Failed, 1),
    };
    let worst = vec![host_of("w", &["z"]), host_of("v", &["r", "x"])];
    let below = Some(Below { relays, worst, ..Below::default() });
    put(&mut origin, relay("r"), 1, Report { below, ..says(1, active(1)) });
    let below = origin.look(1, Serving::default());
    let places: Vec<_> = below.relays.iter().map(|row| (row.name.as_str(), row.parent.as_str())).collect();
    let want = [("r", "o"), ("z", "o"), ("x", "r"), ("deep", "x"), ("y", "r"), ("a", "r")];
    assert_eq!(places, want, "z is where its certificate came, and nobody else is o");
    let worst: Vec<_> = below.worst.iter().map(|row| (row.name.as_str(), row.relays.join("/"))).collect();
    assert_eq!(worst, [("v", "o/r/x".to_owned()), ("w", "o/r".to_owned())]);
}

#[test]
fn st_6_what_a_report_costs_is_bounded() {
    let long = "x".repeat(9_000);
    let counts =
        (0..1_000).map(|release| Count { release, state: HostState::Active, hosts: release % 100 + 1 });
    let serving = Serving { counts: counts.collect(), ..Serving::default() };
    let all = total(&serving.counts);
    let row = |at: u64| RelayRow {
        name: format!("r{at}"),
        parent: long.clone(),
        place: long.clone(),
        condition: Condition { reason: long.clone(), ..active(1) },
        serving: if at == 0 { serving.clone() } else { Serving::default() },
    };
    let bad = |at: u64| HostRow {
        name: format!("h{at}"),
        relays: vec![long.clone(); 100],
        labels: long.clone(),
        expires: 0,
        condition: condition(0, HostState::Failed, at),
    };
    let mut origin = Rollup::new("o");
    for name in ["a", "b"] {
        let relays = (0..MAX_RELAY_ROWS as u64 + 9).map(row).collect();
        let worst = (0..500).map(bad).collect();
        let below = Some(Below {
            serving: serving.clone(),
            relays,
            worst,
            rest: serving.counts.clone(),
            moves: Vec::new(),
        });
        put(&mut origin, relay(name), 1, Report { below, ..says(1, active(1)) });
    }
    put(
        &mut origin,
        host("w"),
        1,
        says(1, Condition { reason: long.clone(), ..condition(1, HostState::Failed, 3) }),
    );
    let below = origin.look(1, Serving::default());
    assert_eq!((below.relays.len(), below.worst.len()), (MAX_RELAY_ROWS, MAX_WORST));
    assert!(below.rest.len() <= MAX_STATUS_COUNTS);
    assert!(below.relays.iter().all(|row| row.serving.counts.len() <= MAX_STATUS_COUNTS));
    assert!(below.worst.iter().all(|row| row.condition.reason.len() <= MAX_REASON));
    assert!(crate::codec::encode(&below).len() as u64 <= crate::limits::MAX_STATUS_ANSWER);
    // Nobody is lost by that: two relays, what is named below them once, and what is not named twice.
    let counted = total(&below.rest) + below.relays.iter().map(|row| total(&row.serving.counts)).sum::<u64>();
    assert_eq!(counted, 5 * all);
}

#[test]
fn st_7_offline_is_kept_for_a_time() {
    let mut rollup = Rollup::new("r");
    put(&mut rollup, host("w"), 1, says(1, active(1)));
    put(&mut rollup, relay("s"), 1, says(1, active(1)));
    assert!(rollup.lost(&host("w"), 1, 100) && rollup.lost(&relay("s"), 1, 101));
    let row = rollup.page(&query("state=offline", 9)).hosts.remove(0);
    assert_eq!(
        (row.condition.state, row.condition.since, row.condition.release),
        (HostState::Offline, 100, 1)
    );
    assert!(!rollup.expire(99 + KEPT));
    assert!(rollup.expire(100 + KEPT));
    assert!(rollup.page(&query("", 9)).hosts.is_empty());
    assert_eq!(rollup.look(1, Serving::default()).relays.len(), 1);
    // One that comes back in time stays.
    assert!(put(&mut rollup, relay("s"), 2, says(1, active(1))).changed);
    assert!(!rollup.expire(u64::MAX));
}

#[test]
fn st_8_a_host_that_moved_is_not_offline_where_it_was() {
    let (mut origin, mut a, mut b) = (Rollup::new("o"), Rollup::new("a"), Rollup::new("b"));
    for (rollup, name) in [(&mut a, "a"), (&mut b, "b")] {
        put(rollup, host("w"), 1, says(1, active(1)));
        put(rollup, host(name), 1, says(1, active(1)));
        let report = report_of(rollup, 1, 1);
        put(&mut origin, relay(name), 1, report);
    }
    a.lost(&host("w"), 1, 5);
    let came = Report { before: "a".into(), ..says(1, active(1)) };
    assert!(put(&mut b, host("w"), 2, came).changed, "b does not know a, and tells its parent");
    let report = report_of(&mut b, 2, 1);
    assert_eq!(report.below.as_ref().unwrap().moves.len(), 1);
    let mut gone = origin.clone();
    let outcome = put(&mut origin, relay("b"), 1, report.clone());
    let moved = Move { host: "w".into(), from: "a".into() };
    assert_eq!(outcome.tell, [("a".to_owned(), moved.clone())]);
    assert!(a.moved(moved.clone()).is_none());
    assert!(a.page(&query("w", 9)).hosts.is_empty(), "a has forgotten it");
    assert!(report_of(&mut b, 3, 1).below.unwrap().moves.is_empty(), "it is said once");
    // Where the relay is gone with all its hosts, who counts them for it takes it off, once.
    gone.lost(&relay("a"), 1, 6);
    put(&mut gone, relay("b"), 1, report);
    gone.moved(moved);
    let rows = gone.look(1, Serving::default()).relays;
    assert_eq!(count(&rows[0].serving.counts, 1, HostState::Offline), 1);
    // One whose end is not noticed yet is forgotten when it is.
    put(&mut a, host("v"), 1, says(1, active(1)));
    a.moved(Move { host: "v".into(), from: "a".into() });
    assert_eq!(a.page(&query("v", 9)).hosts.len(), 1);
    a.lost(&host("v"), 1, 9);
    assert!(a.page(&query("v", 9)).hosts.is_empty());
}

#[test]
fn st_9_children_of_before_are_offline_since_they_were_last_seen() {
    let channel = ChannelName::new("prod").unwrap();
    let mut before = Rollup::new("r");
    let certified = Certified { labels: "region=eu".into(), expires: 9 };
    before.report(&host("w"), certified, 7, says(1, condition(3, HostState::Failed, 2)));
    put(&mut before, host("gone"), 7, says(1, active(3)));
    put(&mut before, relay("s"), 7, says(1, active(3)));
    before.lost(&host("gone"), 7, 50);
    let kept = before.remembered(&channel, 100);
    let mut after = Rollup::new("r");
    for row in &kept {
        after.restore(row.clone(), 200);
    }
    let rows = after.page(&query("", 9)).hosts;
    let shown: Vec<_> =
        rows.iter().map(|row| (row.name.as_str(), row.condition.since, row.expires)).collect();
    assert_eq!(shown, [("gone", 50, 0), ("w", 100, 9)]);
    assert_eq!(rows[1].labels, "region=eu");
    assert_eq!(after.look(3, Serving::default()).relays[0].condition.state, HostState::Offline);
    // What is known already stays, what is over is not taken, and a clock that went back keeps nobody longer.
    let mut again = Rollup::new("r");
    put(&mut again, host("w"), 1, says(1, active(4)));
    kept.iter().for_each(|row| again.restore(row.clone(), 60 + KEPT));
    assert_eq!(count(&again.counts(), 4, HostState::Active), 1);
    assert!(again.page(&query("gone", 9)).hosts.is_empty());
    let mut early = Rollup::new("r");
    kept.iter().for_each(|row| early.restore(row.clone(), 1));
    assert!(early.expire(1 + KEPT) && early.page(&query("", 9)).hosts.is_empty());
}

#[test]
fn st_22_what_a_child_answers_is_put_below_it() {
    let row = |name: &str, relays: &[&str]| HostRow {
        name: name.into(),
        relays: relays.iter().map(|relay| (*relay).to_owned()).collect(),
        labels: String::new(),
        expires: 0,
        condition: active(1),
    };
    let hosts = vec![row("w", &["eu", "ams"]), row("x", &["us"]), row("y", &[])];
    let below = HostsAnswer { hosts, more: false, unanswered: vec!["fra".into(), "fra".into()] };
    let answer = merge("o", HostsAnswer::default(), [("eu".to_owned(), below)], &query("", 9));
    let paths: Vec<_> = answer.hosts.iter().map(|row| row.relays.join("/")).collect();
    assert_eq!(paths, ["o/eu/ams", "o/eu", "o/eu"]);
    assert_eq!(answer.unanswered, ["fra"]);
}

#[test]
fn st_4_a_host_that_subscribes_anew_is_not_offline_before_its_next_report() {
    let mut rollup = Rollup::new("r");
    put(&mut rollup, host("w"), 1, says(1, active(1)));
    rollup.begins(&host("w"), 2);
    assert!(!rollup.lost(&host("w"), 1, 9), "the end of an older session is none of its");
    assert_eq!(count(&rollup.counts(), 1, HostState::Active), 1);
    // The newer one ends before it said anything.
    assert!(rollup.lost(&host("w"), 2, 9));
    assert_eq!(count(&rollup.counts(), 1, HostState::Offline), 1);
    rollup.begins(&host("nobody"), 3);
    assert_eq!(total(&rollup.counts()), 1);
}
