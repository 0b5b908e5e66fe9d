use super::*;
use crate::codec;

fn generation(number: u64) -> Generation {
    let release = Accepted { epoch: 1, number, hash: ReleaseHash::of(&[number as u8]) };
    let layers = vec![(BundleName::new("base").unwrap(), NodeId::of(&[number as u8]))];
    Generation { number: 0, release, plan: None, rules: Vec::new(), layers, since: number, replaced: 0 }
}

/// A host, as far as activation changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    current: u64,
    installed: u64,
    /// What the program has read.
    running: u64,
    drained: bool,
    /// What the history has as live: what is brought back wherever nothing newer is.
    remembered: u64,
    journal: Journal,
}

const OLD: u64 = 1;
const NEW: u64 = 2;

fn host() -> Host {
    let journal = Journal::default();
    Host { current: OLD, installed: OLD, running: OLD, drained: false, remembered: OLD, journal }
}

fn begun() -> Journal {
    let touched = BTreeSet::from([ServiceName::new("a").unwrap()]);
    Journal::default().begin(Some(generation(OLD)), generation(NEW), touched)
}

/// What is left before the process is killed: each write of the journal and each effect takes one.
struct Life(usize);

impl Life {
    fn spend(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

fn write(host: &mut Host, journal: Journal, life: &mut Life) -> Option<()> {
    life.spend()?;
    host.journal = journal;
    Some(())
}

/// Does a step, effect by effect; `None` where it is killed in it.
fn perform(host: &mut Host, step: Step, fails: bool, life: &mut Life) -> Option<()> {
    match step {
        Step::Validate => life.spend(),
        Step::Drain => {
            life.spend()?;
            host.drained = true;
            life.spend()
        }
        Step::Switch => {
            life.spend()?;
            host.current = NEW;
            life.spend()?;
            host.installed = if fails { OLD } else { NEW };
            life.spend()
        }
        Step::Check => {
            life.spend()?;
            host.running = host.current;
            life.spend()?;
            host.drained = fails;
            life.spend()
        }
        Step::Return => {
            life.spend()?;
            host.current = OLD;
            life.spend()?;
            host.installed = OLD;
            life.spend()?;
            host.running = OLD;
            life.spend()?;
            host.drained = fails;
            life.spend()
        }
    }
}

/// Runs until nothing is under way, or it is killed.
fn live(host: &mut Host, failing: &[Step], life: &mut Life) -> Option<()> {
    while !host.journal.state.is_settled() {
        let event = match host.journal.step() {
            None => Event::Done,
            Some(step) => {
                let fails = failing.contains(&step);
                perform(host, step, fails, life)?;
                let cause = Cause { reason: format!("{step:?}"), output: "out".into() };
                if fails { Event::Failed(cause) } else { Event::Done }
            }
        };
        let next = host.journal.clone().next(event);
        // The history is written before the journal says that it is over.
        let remembered = match next.state {
            State::Active => NEW,
            State::RolledBack | State::Inconsistent => OLD,
            _ => host.remembered,
        };
        if host.remembered != remembered {
            life.spend()?;
            host.remembered = remembered;
        }
        write(host, next, life)?;
    }
    Some(())
}

/// Every step fails or does not, before the first kill and after it; the agent is killed before and after every
/// write and effect, and once more before and after every one of what follows: the end is wholly old or wholly new.
#[test]
fn a_33_every_crash_ends_in_old_or_new() {
    let forward = [None, Some(Step::Validate), Some(Step::Drain), Some(Step::Switch), Some(Step::Check)];
    let both = forward.iter().flat_map(|first| forward.iter().map(move |later| (*first, *later)));
    let (mut ends, mut count) = (BTreeSet::new(), 0);
    for ((failing, later), first, second) in
        both.flat_map(|both| (0..40).flat_map(move |first| (0..40).map(move |second| (both, first, second))))
    {
        let case = format!("{failing:?}, then {later:?}, {first} {second}");
        let (failing, later): (Vec<Step>, Vec<Step>) =
            (failing.into_iter().collect(), later.into_iter().collect());
        let mut host = host();
        for life in [first, second, usize::MAX] {
            let is_first = host.journal.run == 0;
            let begins = if is_first { begun() } else { host.journal.clone().next(Event::Restarted) };
            let failing = if is_first { &failing } else { &later };
            let mut life = Life(life);
            let lived = write(&mut host, begins, &mut life);
            if lived.and_then(|()| live(&mut host, failing, &mut life)).is_some() {
                break;
            }
        }
        let Host { current, installed, running, drained, remembered, journal } = host;
        let told = match journal.state {
            State::Active => NEW,
            State::Idle | State::RolledBack => OLD,
            other => panic!("{other:?} after {case}"),
        };
        assert_eq!([current, installed, running, remembered], [told; 4], "{case}");
        assert!(!drained && journal.touched.is_empty(), "{case}");
        if failing == later {
            let is_active = failing.is_empty() && journal.state != State::Idle;
            assert_eq!(journal.state == State::Active, is_active, "{case}");
        }
        ends.insert(journal.state);
        count += 1;
    }
    assert_eq!(ends, BTreeSet::from([State::Idle, State::Active, State::RolledBack]));
    assert_eq!(count, 5 * 5 * 40 * 40);
}

#[test]
fn a_34_a_rollback_that_fails_is_inconsistent_and_its_services_run_again() {
    let mut host = host();
    host.journal = begun();
    live(&mut host, &[Step::Check, Step::Return], &mut Life(99)).unwrap();
    let journal = host.journal;
    assert_eq!((journal.state, journal.reason.as_str()), (State::Inconsistent, "Check; and then: Return"));
    assert_eq!(journal.output, "out");
    let next = journal.begin(Some(generation(OLD)), generation(3), BTreeSet::new());
    assert_eq!((next.touched.len(), next.run, next.reason.as_str()), (1, 2, ""));
}

/// What an activation left inconsistent runs again with the next that changes anything, whatever came between.
#[test]
fn a_34_what_is_inconsistent_stays_so_until_its_hooks_ran() {
    let mut host = host();
    host.journal = begun();
    live(&mut host, &[Step::Check, Step::Return], &mut Life(99)).unwrap();
    let inconsistent = host.journal.touched.clone();
    assert_eq!(inconsistent.len(), 1);
    let other = BTreeSet::from([ServiceName::new("b").unwrap()]);
    let next = || host.journal.begin(Some(generation(OLD)), generation(3), other.clone());
    // Refused by validate, or ended before: nothing ran, of the new release nothing is left.
    let refused = next().next(Event::Done).next(Event::Failed(Cause::default()));
    assert_eq!((refused.state, &refused.touched), (State::Inconsistent, &inconsistent));
    assert_eq!(next().next(Event::Done).next(Event::Restarted).touched, inconsistent);
    assert_eq!(next().next(Event::Restarted).touched, inconsistent);
    // Done, or gone back from: its hooks ran.
    for failing in [&[][..], &[Step::Check]] {
        let mut host = Host { journal: next(), ..host.clone() };
        live(&mut host, failing, &mut Life(99)).unwrap();
        assert!(host.journal.state.is_settled() && host.journal.touched.is_empty(), "{failing:?}");
    }
    let mut worse = Host { journal: next(), ..host.clone() };
    live(&mut worse, &[Step::Check, Step::Return], &mut Life(99)).unwrap();
    assert_eq!((worse.journal.touched.len(), worse.journal.owed.len()), (2, 0));
}

#[test]
fn a_37_the_one_before_is_what_was_replaced_and_not_one_that_was_gone_back_from() {
    let mut history = History::default();
    for number in 1..=5 {
        history.made_live(&generation(number));
    }
    let before = |history: &History| history.before_live().unwrap().clone();
    let four = before(&history);
    assert_eq!(four.number, 4);
    history.made_live(&four);
    assert_eq!(before(&history).number, 3, "further back each time");
    history.made_live(&generation(6));
    assert_eq!((history.live, before(&history).number), (6, 4), "5 was bad");
}

#[test]
fn a_36_what_failed_is_remembered_once_and_not_for_ever() {
    let mut history = History::default();
    let failure = |number: u64, reason: &str| Failure {
        release: generation(number).release,
        state: State::Idle,
        since: number,
        reason: reason.to_owned(),
    };
    assert!(history.failed(failure(1, "not permitted")));
    assert!(!history.failed(Failure { since: 9, ..failure(1, "not permitted") }), "the same again");
    assert!(history.failed(failure(1, "no space")));
    let long = "ü".repeat(MAX_REASON);
    assert!(history.failed(failure(2, &long)) && !history.failed(failure(2, &long)));
    for number in 3..=KEPT_FAILURES as u64 {
        assert!(history.failed(failure(number, "x")));
    }
    assert_eq!(history.failures.len(), KEPT_FAILURES);
    assert_eq!(history.failures[0].reason, "no space", "the oldest went");
}

#[test]
fn a_33_what_ends_the_agent_each_time_is_given_up() {
    let mut journal = begun().next(Event::Done).next(Event::Done).next(Event::Done);
    assert_eq!(journal.state, State::Activating);
    let mut starts = 0;
    while journal.state == State::Activating {
        journal = journal.next(Event::Restarted);
        starts += 1;
    }
    assert_eq!((starts, journal.state), (MAX_RESUMES, State::RollingBack));
    for _ in 0..MAX_RESUMES {
        journal = journal.next(Event::Restarted);
    }
    assert_eq!(journal.state, State::Inconsistent);
    assert!(journal.reason.contains("the agent ended 3 times while it was activating"), "{}", journal.reason);
}

#[test]
fn a_35_a_release_that_failed_waits_for_a_newer_one_or_a_person() {
    let (two, three) = (generation(2).release.hash, generation(3).release.hash);
    let mut orders = Orders::default();
    let history = History::default();
    let cause = Event::Failed(Cause::default());
    let failed = begun().next(Event::Done).next(cause);
    assert_eq!(failed.state, State::RolledBack);
    assert_eq!(target(&two, &failed, &history, &orders), Target::Quarantined);
    assert_eq!(target(&three, &failed, &history, &orders), Target::Newest);
    orders.lifted = failed.run;
    assert_eq!(target(&two, &failed, &history, &orders), Target::Newest);
    let again = failed.begin(None, generation(2), BTreeSet::new()).next(Event::Done);
    let again = again.next(Event::Failed(Cause::default()));
    assert_eq!(target(&two, &again, &history, &orders), Target::Quarantined, "it was lifted once");
    let good = begun().next(Event::Done).next(Event::Done).next(Event::Done).next(Event::Done);
    assert_eq!(target(&two, &good.next(Event::Done), &history, &orders), Target::Newest);
}

#[test]
fn a_36_the_newest_generations_are_kept_and_going_back_makes_no_new_one() {
    let mut history = History::default();
    let most = KEPT_GENERATIONS as u64;
    for number in 1..=most + 2 {
        assert!(history.made_live(&generation(number)));
    }
    let kept: Vec<u64> = history.generations.iter().map(|kept| kept.number).collect();
    assert_eq!(kept, (3..=most + 2).collect::<Vec<_>>());
    assert!(!history.made_live(&generation(most + 2)), "the same again");
    let back = history.before_live().unwrap().clone();
    assert!(history.made_live(&back));
    assert_eq!((history.live, history.generations.len() as u64), (most + 1, most));
    assert_eq!(history.before_live().unwrap().number, most);
    let same = Generation { release: generation(99).release, ..generation(most + 1) };
    assert!(history.made_live(&same), "another release that shows the same");
    assert_eq!((history.live, history.live().unwrap().release.number), (most + 1, 99));
}

#[test]
fn a_37_what_the_operator_holds_comes_first() {
    let mut history = History::default();
    history.made_live(&generation(1));
    history.made_live(&generation(2));
    let orders = Orders { hold: Some(1), lifted: 0 };
    let newest = generation(2).release.hash;
    assert_eq!(target(&newest, &Journal::default(), &history, &orders), Target::Held(1));
    let failed = Journal::default().begin(None, generation(1), BTreeSet::new());
    let failed = failed.next(Event::Done).next(Event::Failed(Cause::default()));
    assert_eq!(target(&newest, &failed, &history, &orders), Target::Quarantined, "it does not work either");
}

#[test]
fn what_is_kept_is_bounded_and_read_again() {
    let long = "ü".repeat(KEPT_OUTPUT);
    let cause = Cause { reason: long.clone(), output: long };
    let journal = begun().next(Event::Done).next(Event::Failed(cause));
    assert!(journal.reason.len() <= MAX_REASON && journal.output.len() <= KEPT_OUTPUT);
    let bytes = codec::encode(&journal);
    assert_eq!(codec::decode::<Journal>(&bytes, crate::limits::MAX_JOURNAL).unwrap(), journal);
}
