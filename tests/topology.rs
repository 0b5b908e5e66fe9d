//! Where members are, and which relay a child follows (specs/topology.md).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // tests

use proptest::prelude::*;
use rootcast::acceptance::Accepted;
use rootcast::codec;
use rootcast::id::ReleaseHash;
use rootcast::limits::{FLAP_WINDOW, HOME_STABLE, MAX_ALTERNATES, MAX_CANDIDATES, MAX_ROUTE, PROBE_MAX};
use rootcast::member::Labels;
use rootcast::path::MemberName;
use rootcast::topology::{
    Address, Alternate, Alternates, Child, Choice, Condition, Distance, Hold, Next, Patience, Place, Route,
    Seen, Verdict, Worth, rank,
};
use std::collections::BTreeSet;
use std::time::Duration;

fn name(text: &str) -> MemberName {
    MemberName::new(text).unwrap()
}

fn place(labels: &str) -> Place {
    if labels.is_empty() { Place::default() } else { Place::of(&labels.parse().unwrap()) }
}

fn host(text: &str, labels: &str) -> Child {
    Child { name: name(text), place: place(labels), is_relay: false }
}

fn relay(text: &str, labels: &str) -> Child {
    Child { is_relay: true, ..host(text, labels) }
}

fn alternate(text: &str, labels: &str) -> Alternate {
    Alternate { name: name(text), place: place(labels), address: address(text) }
}

fn address(text: &str) -> Address {
    Address::new(format!("{text}:7400")).unwrap()
}

fn accepted(number: u64) -> Option<Accepted> {
    Some(Accepted { epoch: 1, number, hash: ReleaseHash::from_bytes([0; 32]) })
}

fn route(names: &[&str]) -> Route {
    let Some((origin, below)) = names.split_first() else { return Route::default() };
    below.iter().fold(Route::origin(name(origin)), |route, next| route.below(name(next)))
}

#[test]
fn tp_1_a_place_is_what_the_labels_say_and_survives_its_encoding() {
    let labels = Labels::from_pairs(["role=web", "region=eu", "datacenter=fra"]).unwrap();
    let of = Place::of(&labels);
    assert_eq!((of.to_string().as_str(), of.depth()), ("region=eu&datacenter=fra", 2));
    assert_eq!(codec::decode::<Place>(&codec::encode(&of), 100).unwrap(), of);
    assert!(codec::decode::<Place>(&codec::encode(&(Some("EU"), None::<&str>, None::<&str>)), 100).is_err());
    assert!(place("region=eu").encloses(&of) && place("datacenter=fra").encloses(&of));
    assert!(!place("region=us").encloses(&of) && !of.encloses(&place("region=eu")));
}

#[test]
fn tp_3_the_nearest_relay_is_that_of_the_place_and_then_up() {
    use Distance::{Beside, Datacenter, Elsewhere, Rack, Region, Sibling, Top};
    let child = host("web-1", "datacenter=fra&rack=r1&region=eu");
    let dc = relay("relay-1", "datacenter=fra&region=eu");
    for (labels, to_host, to_relay) in [
        ("datacenter=fra&rack=r1&region=eu", Rack, Sibling),
        ("datacenter=fra&region=eu", Datacenter, Sibling),
        ("region=eu", Region, Region),
        ("datacenter=ber&region=eu", Beside, Sibling),
        ("datacenter=fra&rack=r2&region=eu", Beside, Sibling),
        ("", Top, Top),
        ("region=us", Elsewhere, Elsewhere),
        ("datacenter=fra&region=us", Elsewhere, Elsewhere),
    ] {
        assert_eq!(Distance::between(&child, &place(labels)), to_host, "host, {labels}");
        assert_eq!(Distance::between(&dc, &place(labels)), to_relay, "relay, {labels}");
    }
    assert_eq!(Distance::between(&relay("a", ""), &place("")), Top, "a platform without places");
}

#[test]
fn tp_4_equal_relays_share_the_children_and_a_third_takes_only_its_part() {
    let relays = ["a", "b", "c"].map(|text| alternate(text, "datacenter=fra&region=eu"));
    let best = |child: &Child, relays: &[Alternate]| {
        relays.iter().min_by_key(|relay| rank(child, relay, None)).unwrap().name.clone()
    };
    let (mut first, mut moved) = (0, 0);
    for number in 0..2000 {
        let child = host(&format!("web-{number}"), "datacenter=fra&region=eu");
        let of_two = best(&child, &relays[..2]);
        first += usize::from(of_two == relays[0].name);
        let of_three = best(&child, &relays);
        moved += usize::from(of_three != of_two);
        assert!(of_three == of_two || of_three == relays[2].name, "nobody moves between old ones");
    }
    assert!((900..1100).contains(&first), "{first} of 2000");
    assert!((580..750).contains(&moved), "{moved} of 2000");
}

#[test]
fn tp_4_a_round_trip_counts_where_it_differs_by_much() {
    let child = host("web-1", "region=eu");
    let [a, b] = ["a", "b"].map(|text| alternate(text, "region=us"));
    let (near, far) = (Duration::from_millis(20), Duration::from_millis(90));
    for (one, other) in [(&a, &b), (&b, &a)] {
        assert!(rank(&child, one, Some(near)) < rank(&child, other, Some(far)));
    }
    let alike = |one, other| rank(&child, &a, Some(one)).cmp(&rank(&child, &b, Some(other)));
    let by_name = alike(Duration::ZERO, Duration::ZERO);
    assert_eq!(alike(Duration::from_micros(300), Duration::from_micros(1900)), by_name);
    assert_eq!(alike(Duration::from_micros(1900), Duration::from_micros(300)), by_name);
    let home = alternate("home", "region=eu");
    assert!(rank(&child, &home, Some(far)) < rank(&child, &a, Some(near)), "place goes first");
}

#[test]
fn tp_10_alternates_are_the_best_for_the_child_once_each_and_without_itself() {
    let child = relay("fra-1", "datacenter=fra&region=eu");
    let mut known: Vec<_> =
        (0..20).map(|number| alternate(&format!("ber-{number}"), "datacenter=ber&region=eu")).collect();
    known.extend([alternate("eu-1", "region=eu"), alternate("origin", ""), alternate("fra-1", "region=eu")]);
    known.push(Alternate { address: address("eu-1-again"), ..alternate("eu-1", "region=eu") });
    let list = Alternates::ranked(&child, &known);
    let names: Vec<_> = list.iter().map(|told| told.name.as_str()).collect();
    assert_eq!((names.len(), &names[..2]), (MAX_ALTERNATES, &["eu-1", "origin"][..]));
    assert_eq!(codec::decode::<Alternates>(&codec::encode(&list), 10_000).unwrap(), list);
    let many: Vec<_> = (0..=MAX_ALTERNATES).map(|number| alternate(&format!("r{number}"), "")).collect();
    assert!(codec::decode::<Alternates>(&codec::encode(&many), 10_000).is_err());
    for bad in ["relay", "relay:0", ":1", "a b:1", "relay:70000"] {
        assert!(codec::decode::<Address>(&codec::encode(&bad), 100).is_err(), "{bad}");
    }
}

#[test]
fn tp_20_a_route_grows_by_one_and_is_no_route_when_it_is_too_long() {
    let mut way = Route::origin(name("origin"));
    for number in 1..MAX_ROUTE {
        way = way.below(name(&format!("r{number}")));
        assert_eq!(way.names().len(), number + 1);
    }
    assert_eq!(codec::decode::<Route>(&codec::encode(&way), 10_000).unwrap(), way);
    assert!(way.below(name("more")).is_cut_off() && Route::default().below(name("x")).is_cut_off());
    let long: Vec<_> = (0..=MAX_ROUTE).map(|number| name(&format!("r{number}"))).collect();
    assert!(codec::decode::<Route>(&codec::encode(&long), 10_000).is_err());
}

#[test]
fn tp_21_a_parent_is_worth_what_it_reaches_and_has() {
    let (own, web) = (relay("r1", ""), host("r1", ""));
    let condition =
        |names: &[&str], number, behind| Condition { latest: accepted(number), route: route(names), behind };
    for (condition, to_relay, to_host) in [
        (condition(&["origin"], 7, false), Worth::Good, Worth::Good),
        (condition(&["origin"], 8, false), Worth::Good, Worth::Good),
        (condition(&["origin"], 6, false), Worth::Behind, Worth::Behind),
        (condition(&["origin"], 7, true), Worth::Behind, Worth::Behind),
        (condition(&[], 7, false), Worth::CutOff, Worth::CutOff),
        (condition(&["origin", "r1", "r2"], 7, false), Worth::Loop, Worth::Good),
    ] {
        assert_eq!(condition.worth(&own, Some((1, 7))), to_relay, "{condition:?}");
        assert_eq!(condition.worth(&web, Some((1, 7))), to_host, "{condition:?}");
    }
    let empty = Condition { latest: None, ..condition(&["origin"], 7, false) };
    assert_eq!((empty.worth(&own, None), empty.worth(&own, Some((1, 1)))), (Worth::Good, Worth::Behind));
}

/// Relays and when each is down or cut off: `(from, to, relay, cut off)`.
struct World {
    relays: Vec<Alternate>,
    faults: Vec<(u64, u64, usize, bool)>,
}

#[derive(Default)]
struct Life {
    followed: Vec<(Duration, String)>,
    dials: usize,
    without: Duration,
}

const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

impl World {
    fn at(&self, address: &Address) -> usize {
        self.relays.iter().position(|relay| relay.address == *address).unwrap()
    }
    fn fault(&self, relay: usize, now: Duration) -> Option<bool> {
        let now_in = |&&(from, to, of, _): &&(u64, u64, usize, bool)| {
            of == relay && (seconds(from)..seconds(to)).contains(&now)
        };
        // To be down outweighs to be cut off.
        self.faults.iter().filter(now_in).map(|fault| fault.3).min()
    }
    fn answer(&self, address: &Address, now: Duration) -> Option<(Seen, Condition)> {
        let at = self.at(address);
        let cut_off = match self.fault(at, now) {
            Some(false) => return None,
            Some(true) => true,
            None => false,
        };
        let relay = &self.relays[at];
        let way = if cut_off { Route::default() } else { route(&["origin"]).below(relay.name.clone()) };
        let seen = Seen {
            name: relay.name.clone(),
            place: relay.place.clone(),
            round_trip: Duration::from_millis(1),
        };
        Some((seen, Condition { latest: accepted(1), route: way, behind: false }))
    }
    /// The next moment at which anything changes.
    fn change(&self, after: Duration) -> Duration {
        let moments = self.faults.iter().flat_map(|fault| [seconds(fault.0), seconds(fault.1)]);
        moments.filter(|moment| *moment > after).min().unwrap_or(Duration::MAX)
    }
    fn stays_up(&self, address: &Address, from: Duration, to: Duration) -> Option<Duration> {
        let at = self.at(address);
        let starts =
            self.faults.iter().filter(|fault| fault.2 == at && !fault.3).map(|fault| seconds(fault.0));
        starts.filter(|start| (from..to).contains(start)).min()
    }

    /// Lives as a child for a time.
    fn live(&self, choice: &mut Choice, until: Duration) -> Life {
        let (mut now, mut seen) = (Duration::ZERO, Life::default());
        let newest = Some((1, 1));
        while now < until {
            let Some(current) = choice.current().cloned() else {
                let before = now;
                match choice.next_step() {
                    Next::Wait(wait) => now += wait,
                    Next::Dial(address) => {
                        seen.dials += 1;
                        now += Duration::from_millis(5);
                        let taken = self
                            .answer(&address, now)
                            .map(|(who, condition)| choice.judge(now, &address, who, &condition, newest));
                        match taken {
                            Some(Verdict::Take) => seen.followed.push((now, address.as_str().to_owned())),
                            Some(Verdict::Later) => {}
                            None => choice.lost(now, &address, false),
                        }
                    }
                }
                seen.without += now - before;
                continue;
            };
            let errand = choice.errand(now, false);
            let due = errand.as_ref().map_or(Duration::MAX, |errand| errand.at.max(now));
            let change = self.change(now);
            now = due.min(change).min(until);
            match self.answer(&current, now) {
                None => choice.lost(now, &current, false),
                Some((_, condition)) => assert!(!choice.heard(now, &condition, newest)),
            }
            let (true, Some(errand)) = (now == due && choice.current().is_some(), errand) else { continue };
            seen.dials += 1;
            let hold = if let Hold::For(hold) = errand.hold { hold } else { Duration::ZERO };
            let mut answer = self.answer(&errand.address, now);
            if let Some(end) = self.stays_up(&errand.address, now, now + hold) {
                (now, answer) = (end, None);
            } else if answer.is_some() {
                now += hold;
                answer = self.answer(&errand.address, now);
            }
            // The parent may have been lost meanwhile.
            match self.answer(&current, now) {
                None => choice.lost(now, &current, false),
                Some((_, condition)) => assert!(!choice.heard(now, &condition, newest)),
            }
            let outcome = answer.as_ref().map(|(who, condition)| (who.clone(), condition));
            if choice.looked(now, &errand.address, outcome, newest) {
                choice.moved(now, &errand.address);
                seen.followed.push((now, errand.address.as_str().to_owned()));
            }
        }
        seen
    }
}

/// Two relays in the datacenter, one in the region, and the origin.
fn tree(faults: &[(u64, u64, usize, bool)]) -> World {
    let fra = "datacenter=fra&region=eu";
    let relays = vec![
        alternate("fra-1", fra),
        alternate("fra-2", fra),
        alternate("eu-1", "region=eu"),
        alternate("origin", ""),
    ];
    World { relays, faults: faults.to_vec() }
}

fn child(text: &str) -> Choice {
    let who = host(text, "datacenter=fra&region=eu");
    let mut choice = Choice::new(who.clone(), &[address("fra-1")], false, Patience::STANDARD);
    choice.learn(&Alternates::ranked(&who, &tree(&[]).relays));
    choice
}

/// A host whose home is `fra-1`.
fn at_home() -> Choice {
    let mine = |text: &String| {
        let who = host(text, "datacenter=fra&region=eu");
        Alternates::ranked(&who, &tree(&[]).relays).iter().next().unwrap().name.as_str() == "fra-1"
    };
    child(&(0..100).map(|number| format!("web-{number}")).find(mine).unwrap())
}

fn names(seen: &Life) -> Vec<&str> {
    seen.followed.iter().map(|(_, address)| address.strip_suffix(":7400").unwrap()).collect()
}

#[test]
fn tp_31_a_lost_home_is_left_at_once_and_gone_back_to_once_it_is_stable() {
    let seen = tree(&[(100, 200, 0, false)]).live(&mut at_home(), seconds(600));
    assert_eq!(names(&seen), ["fra-1", "fra-2", "fra-1"]);
    assert!(seen.followed[1].0 <= seconds(100) + Duration::from_millis(10), "{:?}", seen.followed);
    let back = seen.followed[2].0;
    assert!(back >= seconds(220), "stable first: {back:?}");
    assert!(back < seconds(200) + PROBE_MAX * 2 + Patience::STANDARD.stable * 2, "{back:?}");
}

#[test]
fn tp_31_with_the_datacenter_gone_the_region_serves_and_then_the_origin() {
    let down = [(100, 500, 0, false), (100, 500, 1, false), (200, 500, 2, false)];
    let seen = tree(&down).live(&mut at_home(), seconds(2000));
    assert_eq!(&names(&seen)[..3], ["fra-1", "eu-1", "origin"]);
    assert_eq!(names(&seen).last(), Some(&"fra-1"), "{:?}", seen.followed);
}

#[test]
fn tp_34_a_home_that_comes_and_goes_is_trusted_less_and_less() {
    let day = 24 * 3600;
    let down: Vec<_> = (1..day / 90).map(|round| (round * 90, round * 90 + 30, 0, false)).collect();
    let seen = tree(&down).live(&mut at_home(), seconds(day));
    assert!(seen.followed.len() <= 8, "{:?}", seen.followed);
    let last = down.last().unwrap().1;
    assert!(last < day);
    let healed = tree(&down).live(&mut at_home(), seconds(day + 7200));
    assert_eq!(names(&healed).last(), Some(&"fra-1"), "forgiven once it is stable");
}

#[test]
fn tp_34_a_full_disk_of_its_own_is_not_held_against_a_parent() {
    let (world, mut choice, home) = (tree(&[]), at_home(), address("fra-1"));
    let follow = |choice: &mut Choice, now| {
        while choice.current().is_none() {
            let Next::Dial(address) = choice.next_step() else { continue };
            let (seen, condition) = world.answer(&address, now).unwrap();
            assert_eq!(choice.judge(now, &address, seen, &condition, Some((1, 1))), Verdict::Take);
        }
        choice.current().cloned().unwrap()
    };
    for round in 0..10 {
        assert_eq!(follow(&mut choice, seconds(round)), home);
        choice.lost(seconds(round) + Duration::from_millis(5), &home, true);
    }
    assert_eq!(follow(&mut choice, seconds(20)), home);
    choice.lost(seconds(50), &home, false);
    assert_eq!(follow(&mut choice, seconds(50)), address("fra-2"));
    let errand = choice.errand(seconds(100), false).unwrap();
    assert_eq!((errand.address, errand.hold), (home, Hold::For(HOME_STABLE * 2)));
}

#[test]
fn tp_35_a_parent_that_is_cut_off_is_left_for_one_that_is_not_and_not_all_at_once() {
    let world = tree(&[(100, 500, 0, true)]);
    let mut leaves = Vec::new();
    for number in 0..200 {
        let seen = world.live(&mut child(&format!("web-{number}")), seconds(400));
        let Some(at) = names(&seen).windows(2).position(|pair| pair == ["fra-1", "fra-2"]) else { continue };
        leaves.push(seen.followed[at + 1].0);
    }
    assert!(leaves.len() > 60, "{}", leaves.len());
    let (first, last) = (leaves.iter().min().unwrap(), leaves.iter().max().unwrap());
    assert!(*first >= seconds(102) && *last <= seconds(111), "{first:?} {last:?}");
    assert!(*last - *first > seconds(5), "spread: {first:?} {last:?}");
}

#[test]
fn tp_35_where_nobody_is_better_the_child_stays_and_asks_ever_less() {
    let all: Vec<_> = (0..4).map(|relay| (100, 3700, relay, true)).collect();
    let seen = tree(&all).live(&mut at_home(), seconds(3600));
    assert_eq!(names(&seen), ["fra-1"]);
    assert!(seen.dials < 150, "{}", seen.dials);
}

#[test]
fn tp_32_when_all_are_cut_off_one_of_them_is_followed_all_the_same() {
    let all: Vec<_> = (0..4).map(|relay| (0, 3700, relay, true)).collect();
    let seen = tree(&all).live(&mut at_home(), seconds(60));
    assert_eq!(seen.followed.len(), 1, "{:?}", seen.followed);
    assert!(seen.followed[0].0 < seconds(1));
}

#[test]
fn tp_5_without_places_the_operators_order_is_the_order() {
    let relays = ["second", "first", "third"].map(|text| alternate(text, "")).to_vec();
    let configured = ["first", "second"].map(address);
    let world = World { relays, faults: vec![(100, 130, 1, false)] };
    let mut choice = Choice::new(host("web-1", "region=eu"), &configured, false, Patience::STANDARD);
    choice.learn(&Alternates::ranked(&host("web-1", "region=eu"), &world.relays));
    let seen = world.live(&mut choice, seconds(600));
    assert_eq!(names(&seen), ["first", "second", "first"]);
}

/// The addresses that are dialled until it is time to wait.
fn dialled(choice: &mut Choice) -> Vec<Address> {
    let next = || match choice.next_step() {
        Next::Dial(address) => Some(address),
        Next::Wait(_) => None,
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn tp_12_no_list_takes_away_what_a_child_knows_until_it_cannot_be_reached() {
    let mut choice = at_home();
    // A parent in trouble, or one that lies, names one relay, and another one next.
    for told in ["elsewhere", "nowhere"] {
        choice.learn(&Alternates::ranked(&host("web-1", ""), &[alternate(told, "")]));
    }
    let known = |choice: &Choice| choice.known().cloned().collect::<BTreeSet<_>>();
    let all = ["fra-1", "fra-2", "eu-1", "origin", "nowhere", "elsewhere"];
    assert_eq!(known(&choice), all.map(address).into());
    // Dialled in vain: what the newest list has, and what is configured, is tried again.
    for dialled in dialled(&mut choice) {
        choice.lost(seconds(1), &dialled, false);
    }
    assert_eq!(known(&choice), ["fra-1", "nowhere"].map(address).into());
}

#[test]
fn tp_12_the_newest_list_finds_room() {
    let mut choice = at_home();
    for number in 0..10 * MAX_CANDIDATES {
        let told = format!("relay-{number}");
        choice.learn(&Alternates::ranked(&host("web-1", ""), &[alternate(&told, "")]));
        assert!(choice.known().any(|known| *known == address(&told)), "{told}");
        assert!(choice.known().count() <= MAX_CANDIDATES);
    }
    // Those near stayed, those far away made room.
    assert!(["fra-1", "fra-2"].iter().all(|near| choice.known().any(|known| *known == address(near))));
}

#[test]
fn tp_12_a_relay_that_moved_is_known_where_it_is_now() {
    let mut choice = at_home();
    let moved = Alternate { address: address("new-fra-2"), ..alternate("fra-2", "datacenter=fra&region=eu") };
    choice.learn(&Alternates::ranked(&host("web-1", ""), &[moved]));
    let known: BTreeSet<Address> = choice.known().cloned().collect();
    assert_eq!(known, ["fra-1", "new-fra-2", "eu-1", "origin"].map(address).into());
}

#[test]
fn tp_36_a_spare_is_the_next_best_and_gives_way_to_a_look_at_home() {
    let mut choice = at_home();
    assert!(choice.errand(seconds(0), false).is_none(), "no parent yet");
    let who = relay("eu-9", "region=eu");
    let mut spare = Choice::new(who, &[address("a"), address("b")], true, Patience::STANDARD);
    let answer = |text: &str| {
        (
            Seen { name: name(text), place: place(""), round_trip: Duration::ZERO },
            Condition { latest: None, route: route(&["origin", text]), behind: false },
        )
    };
    assert_eq!(spare.next_step(), Next::Dial(address("a")));
    let (seen, condition) = answer("a");
    assert_eq!(spare.judge(seconds(1), &address("a"), seen, &condition, None), Verdict::Take);
    let errand = spare.errand(seconds(1), false).unwrap();
    assert_eq!((errand.address.clone(), errand.hold), (address("b"), Hold::Spare));
    assert!(spare.errand(seconds(1), true).is_none(), "nothing is better than home");
    spare.lost(seconds(50), &address("a"), false);
    assert_eq!(spare.next_step(), Next::Dial(address("b")));
    let (seen, condition) = answer("b");
    assert_eq!(spare.judge(seconds(50), &address("b"), seen, &condition, None), Verdict::Take);
    let errand = spare.errand(seconds(100), true).unwrap();
    assert_eq!((errand.address, matches!(errand.hold, Hold::For(_))), (address("a"), true));
    choice.learn(&Alternates::default());
    assert_eq!(choice.next_step(), Next::Dial(address("fra-1")), "what is configured is never forgotten");
}

#[test]
fn tp_22_a_relay_never_follows_one_that_follows_it() {
    let mut choice = Choice::new(relay("r1", ""), &[address("r2")], false, Patience::STANDARD);
    let seen = || Seen { name: name("r2"), place: place(""), round_trip: Duration::ZERO };
    let looped = Condition { latest: None, route: route(&["origin", "r1", "r2"]), behind: false };
    let good = Condition { route: route(&["origin", "r2"]), ..looped.clone() };
    for _ in 0..5 {
        match choice.next_step() {
            Next::Dial(to) => {
                assert_eq!(choice.judge(seconds(1), &to, seen(), &looped, None), Verdict::Later);
            }
            Next::Wait(_) => {}
        }
    }
    while choice.next_step() != Next::Dial(address("r2")) {}
    assert_eq!(choice.judge(seconds(9), &address("r2"), seen(), &good, None), Verdict::Take);
    assert!(choice.heard(seconds(10), &looped, None), "left at once when it becomes one");
}

#[test]
fn ht_32_a_child_that_reaches_quic_again_begins_with_its_home() {
    let mut choice = child("web-1");
    let Next::Dial(home) = choice.next_step() else { panic!("it dials") };
    let Next::Dial(second) = choice.next_step() else { panic!("it dials") };
    assert_ne!(home, second);
    choice.restart();
    assert_eq!(choice.next_step(), Next::Dial(home));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever fails: no storm of dials, never long without a parent while one is up, few
    /// moves, and home in the end.
    #[test]
    fn tp_30_whatever_fails_the_child_comes_home_and_does_not_flap(
        faults in prop::collection::vec((0u64..7200, 1u64..1200, 0usize..4, any::<bool>()), 0..24),
        number in 0u32..1000,
    ) {
        let faults: Vec<_> = faults.into_iter().map(|(from, long, of, cut)| (from, from + long, of, cut)).collect();
        let healed = faults.iter().map(|fault| fault.1).max().unwrap_or(0);
        let world = tree(&faults);
        let until = seconds(healed) + FLAP_WINDOW + seconds(2 * 3600 + 600);
        let mut choice = child(&format!("web-{number}"));
        let seen = world.live(&mut choice, until);
        let best = {
            let who = host(&format!("web-{number}"), "datacenter=fra&region=eu");
            Alternates::ranked(&who, &world.relays).iter().next().unwrap().address.as_str().to_owned()
        };
        prop_assert_eq!(seen.followed.last().map(|last| last.1.clone()), Some(best));
        prop_assert!(seen.followed.len() <= 4 * (faults.len() + 1), "{:?}", seen.followed);
        // Four relays, each looked at no more often than every five seconds.
        prop_assert!(seen.dials as u64 <= 4 * until.as_secs() / 5 + 40, "{} dials", seen.dials);
        // Without a parent only while all were down, and at most the longest wait after.
        let moments = (0..healed).filter(|second| (0..4).all(|of| world.fault(of, seconds(*second)) == Some(false)));
        let all_down = moments.count() as u64;
        prop_assert!(seen.without <= seconds(all_down * 3 + 20), "{:?} of {all_down} s", seen.without);
    }
}
