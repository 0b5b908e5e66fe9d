use super::*;
use crate::limits::MAX_DIFFERENCES;
use proptest::prelude::*;

/// With which a time is not spread.
const JITTER: u32 = u32::MAX / 2;

fn rounded(time: Duration) -> u64 {
    time.as_secs_f64().round() as u64
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn repairing() -> Drift {
    Drift::new(Mode::Repair, Duration::ZERO, JITTER)
}

fn look(drift: &mut Drift, now: Duration) -> Vec<Spot> {
    match drift.work(now, JITTER) {
        Some(Work::Look { spots, .. }) => spots,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_53_what_is_touched_is_looked_at_once_and_at_once() {
    let mut drift = repairing();
    for path in ["a/b", "a/b", "a", "a-b", "c"] {
        drift.touched(Spot::path(path), seconds(1));
    }
    drift.touched(Spot::Current, seconds(1));
    assert_eq!(drift.wakes(seconds(1)), Some(seconds(1)));
    let spots = look(&mut drift, seconds(1));
    let path = Spot::path;
    assert_eq!(spots, [Spot::Current, path("a"), path("a-b"), path("c")], "a/b lies beneath a");
    assert_eq!(drift.work(seconds(1), JITTER), None);
    drift.touched(path("x"), seconds(1));
    drift.touched(path(""), seconds(1));
    assert_eq!(look(&mut drift, seconds(1)), [path("")], "all lies beneath the slot");
}

#[test]
fn a_54_a_path_that_is_rewritten_again_and_again_is_left_longer_and_longer() {
    let mut drift = repairing();
    let (spot, mut now) = (Spot::path("fought/over"), Duration::ZERO);
    let mut repairs = Vec::new();
    // Somebody rewrites it each second for ten hours.
    for second in 0..36_000 {
        now = seconds(second);
        drift.touched(spot.clone(), now);
        while let Some(work) = drift.work(now, JITTER) {
            if let Work::Look { spots, .. } = work {
                assert_eq!(spots, std::slice::from_ref(&spot));
                drift.repaired(&spot, now);
                repairs.push(second);
            }
        }
    }
    let first_minute = repairs.iter().filter(|at| **at < 60).count();
    assert_eq!(first_minute, MAX_REPAIRS_OF_PATH);
    let tenth_hour = repairs.iter().filter(|at| **at >= 9 * 3600).count();
    assert!((1..=4).contains(&tenth_hour), "tried again slowly: {tenth_hour}");
    assert!(matches!(drift.alarm(), Some(Alarm::Left(named)) if named.first == ["fought/over"]));
    // They make it up: it is looked at once more, and all is forgotten after a calm time.
    now += LEFT_MAX;
    assert_eq!(look(&mut drift, now), std::slice::from_ref(&spot));
    assert_eq!(drift.alarm(), None);
    now += LEFT_MAX;
    drift.work(now, JITTER);
    assert!(drift.histories.is_empty());
    for _ in 1..MAX_REPAIRS_OF_PATH {
        drift.repaired(&spot, now);
    }
    assert_eq!(drift.alarm(), None, "as good as new");
}

#[test]
fn a_54_more_repairs_than_a_minute_has_room_for_wait() {
    let mut drift = repairing();
    let now = seconds(5);
    for number in 0..MAX_REPAIRS {
        drift.repaired(&Spot::path(&format!("f{number}")), now);
    }
    assert_eq!(drift.alarm(), None, "nothing waits");
    drift.touched(Spot::path("one/more"), now);
    assert_eq!((drift.work(now, JITTER), drift.alarm()), (None, Some(Alarm::Flood)));
    let then = now + REPAIR_WINDOW;
    assert_eq!(rounded(drift.wakes(now).unwrap()), 60, "the first check comes before");
    assert_eq!(look(&mut drift, then), [Spot::path("one/more")]);
    assert_eq!(drift.alarm(), None);
}

#[test]
fn a_51_where_more_is_touched_than_is_kept_everything_is_compared() {
    let mut drift = repairing();
    for number in 0..=MAX_DRIFT_SPOTS {
        drift.touched(Spot::path(&format!("f{number}")), seconds(1));
    }
    assert_eq!(drift.work(seconds(1), JITTER), Some(Work::Check { hurry: true }));
    assert!(drift.waiting.len() <= MAX_DRIFT_SPOTS && MAX_DIFFERENCES < MAX_DRIFT_SPOTS);
}

#[test]
fn a_55_all_is_compared_after_a_flip_then_rarely_and_more_often_where_not_all_is_watched() {
    let mut drift = repairing();
    assert_eq!(rounded(drift.wakes(Duration::ZERO).unwrap()), RECHECK_AFTER_FLIP.as_secs());
    let now = seconds(61);
    assert_eq!(drift.work(now, JITTER), Some(Work::Check { hurry: false }));
    let next = drift.wakes(now).unwrap();
    assert_eq!(rounded(next - now), RECHECK.as_secs());
    drift.watches(false, now, JITTER);
    assert_eq!(rounded(drift.wakes(now).unwrap() - now), RECHECK_UNWATCHED.as_secs());
    let later = now + seconds(61);
    assert_eq!(drift.work(later, JITTER), Some(Work::Check { hurry: false }));
    assert_eq!(rounded(drift.wakes(later).unwrap() - later), RECHECK_UNWATCHED.as_secs());
    // Not all hosts at one time.
    let other = Drift::new(Mode::Repair, now, 0).next_check;
    assert!(other < Drift::new(Mode::Repair, now, u32::MAX).next_check);
}

#[test]
fn a_56_off_does_nothing_and_report_names_what_differs_until_it_does_not() {
    let mut off = Drift::new(Mode::Off, Duration::ZERO, JITTER);
    off.touched(Spot::path("a"), seconds(1));
    assert_eq!((off.work(seconds(1), JITTER), off.wakes(seconds(1))), (None, None));
    let mut drift = Drift::new(Mode::Report, Duration::ZERO, JITTER);
    let spot = Spot::path("d/a");
    drift.touched(spot.clone(), seconds(1));
    let work = drift.work(seconds(1), JITTER);
    assert_eq!(work, Some(Work::Look { spots: vec![spot.clone()], repair: false }));
    drift.differ(std::slice::from_ref(&spot), [spot.clone()]);
    assert!(!drift.is_news(&spot));
    assert_eq!(
        drift.alarm().unwrap().to_string(),
        "drift: d/a differ from the release and are only reported"
    );
    drift.differ(&[Spot::path("d")], []);
    assert_eq!(drift.alarm(), None, "its directory was compared whole");
}

/// Has this place left after as many repairs as it may have.
fn left(drift: &mut Drift, spot: &Spot, now: Duration) {
    for _ in 0..MAX_REPAIRS_OF_PATH {
        drift.repaired(spot, now);
    }
    assert!(matches!(drift.alarm(), Some(Alarm::Left(_))), "{:?}", drift.alarm());
}

#[test]
fn a_54_a_flip_ends_alarms_about_the_tree_and_an_activation_those_about_what_is_installed() {
    let now = seconds(5);
    let (path, place) = (Spot::path("a"), Spot::installed("/etc/a"));
    for (of, other) in [(&path, &place), (&place, &path)] {
        let end = |drift: &mut Drift, spot: &Spot| match spot.is_installed() {
            true => drift.reinstalled(),
            false => drift.flipped(now, JITTER),
        };
        let mut drift = repairing();
        left(&mut drift, of, now);
        drift.touched(of.clone(), now);
        end(&mut drift, other);
        assert_eq!((drift.known_to_differ(), drift.waiting.len()), (1, 1), "{other} is another thing");
        end(&mut drift, of);
        assert_eq!((drift.alarm(), drift.known_to_differ()), (None, 0));
        assert!(drift.waiting.is_empty());
        drift.suspected(of.clone(), now);
        assert_eq!(drift.alarm(), None, "nobody is known to have touched it");
        // Whoever rewrites it is still there: it is left as long as it was.
        drift.touched(of.clone(), now);
        assert!(matches!(drift.alarm(), Some(Alarm::Left(_))));
        assert_eq!((drift.work(now, JITTER), drift.known_to_differ()), (None, 1));
        drift.refuse(&[], [(of.clone(), "in the way".to_owned())], now, JITTER);
        drift.differ(&[], [of.clone()]);
        end(&mut drift, of);
        assert_eq!((drift.alarm(), drift.known_to_differ()), (None, 0));
    }
    let mut drift = repairing();
    (0..MAX_REPAIRS).for_each(|number| drift.repaired(&Spot::path(&format!("f{number}")), now));
    drift.touched(path, now);
    assert_eq!(drift.alarm(), Some(Alarm::Flood));
    drift.flipped(now, JITTER);
    assert_eq!(drift.alarm(), None, "nothing waits any more");
}

#[test]
fn a_58_what_cannot_be_put_right_is_an_alarm_and_tried_again() {
    let mut drift = repairing();
    let (spot, now) = (Spot::installed("/etc/a"), seconds(100));
    drift.touched(spot.clone(), now);
    assert_eq!(look(&mut drift, now), std::slice::from_ref(&spot));
    assert_eq!(drift.work(now, JITTER), Some(Work::Check { hurry: false }));
    let (one, other) = ((spot.clone(), "x".to_owned()), (Spot::installed("/etc/b"), "y".to_owned()));
    drift.refuse(std::slice::from_ref(&spot), [one, other], now, JITTER);
    assert_eq!(drift.alarm().unwrap().to_string(), "drift: x; and 1 more are not put right");
    drift.refuse(&[Spot::installed("/etc/b")], [], now, JITTER);
    assert_eq!(drift.alarm().unwrap().to_string(), "drift: x");
    let again = drift.wakes(now).unwrap();
    assert_eq!(rounded(again - now), RECHECK_UNWATCHED.as_secs());
    assert_eq!(look(&mut drift, again), std::slice::from_ref(&spot));
    drift.refuse(std::slice::from_ref(&spot), [], again, JITTER);
    assert_eq!((drift.alarm(), drift.known_to_differ()), (None, 0));
}

#[derive(Debug, Clone)]
enum Event {
    Touch(u8),
    Wait(u64),
    Flip,
    Install,
    Refuse(u8),
    Overflow,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u8..40).prop_map(Event::Touch),
        3 => (0u64..20_000).prop_map(Event::Wait),
        1 => Just(Event::Flip),
        1 => Just(Event::Install),
        1 => (0u8..40).prop_map(Event::Refuse),
        1 => Just(Event::Overflow),
    ]
}

/// Of these, every fourth is outside the tree.
fn place(number: u8) -> Spot {
    match number % 4 {
        0 => Spot::installed(&format!("/etc/f{number}")),
        _ => Spot::path(&format!("d{}/f{number}", number % 3)),
    }
}

proptest! {
    /// Whatever happens: no more repairs in a minute than there may be, nothing kept without bound,
    /// no work while there is none due, and what was touched is looked at or compared in the end.
    #[test]
    fn a_54_caps_hold_whatever_happens(events in proptest::collection::vec(event(), 1..300)) {
        let mut drift = repairing();
        let mut now = Duration::ZERO;
        let mut repairs: Vec<(Duration, Spot)> = Vec::new();
        for event in events {
            match event {
                Event::Touch(path) => drift.touched(place(path), now),
                Event::Wait(millis) => now += Duration::from_millis(millis),
                Event::Flip => drift.flipped(now, JITTER),
                Event::Install => drift.reinstalled(),
                Event::Refuse(path) => drift.refuse(&[], [(place(path), String::new())], now, JITTER),
                Event::Overflow => drift.lost_sight(now),
            }
            let mut works = 0;
            while let Some(work) = drift.work(now, JITTER) {
                works += 1;
                prop_assert!(works <= MAX_LOOKS);
                let Work::Look { spots, .. } = work else { continue };
                prop_assert!(!spots.is_empty());
                drift.refuse(&spots, [], now, JITTER);
                for spot in spots {
                    drift.repaired(&spot, now);
                    repairs.push((now, spot));
                }
            }
            prop_assert!(drift.waiting.len() <= MAX_DRIFT_SPOTS);
            prop_assert!(drift.histories.len() <= MAX_DRIFT_HISTORIES);
            prop_assert!(drift.refused.len() <= MAX_DRIFT_SPOTS);
            prop_assert!(drift.wakes(now).is_some_and(|wakes| wakes >= now));
        }
        for (at, spot) in &repairs {
            let window = || repairs.iter().filter(|(then, _)| *then >= *at && *then < *at + REPAIR_WINDOW);
            prop_assert!(window().count() <= MAX_REPAIRS);
            prop_assert!(window().filter(|(_, other)| other == spot).count() <= MAX_REPAIRS_OF_PATH);
        }
        // An hour later nothing waits any more.
        let end = now + LEFT_MAX + REPAIR_WINDOW;
        while drift.work(end, JITTER).is_some() {}
        prop_assert!(drift.waiting.is_empty());
    }
}
