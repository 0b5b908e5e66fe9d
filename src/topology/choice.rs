//! Which parent a child follows: a state machine without clock, network or randomness
//! (specs/topology.md, TP-30 to TP-37).

use super::{Address, Alternate, Alternates, Child, Condition, Place, Rank, Worth, hash};
use crate::limits::{
    CUT_OFF_PATIENCE, CUT_OFF_SPREAD, FLAP_WINDOW, HOME_STABLE, HOME_STABLE_MAX, MAX_CANDIDATES, PROBE_FIRST,
    PROBE_MAX, RETRY_FIRST, RETRY_MAX,
};
use crate::path::MemberName;
use core::time::Duration;

/// How long a child waits for what. Times are how long the process has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// First wait before a parent is dialled again after all were; it doubles.
    pub retry: Duration,
    /// First wait before a better parent is looked at; it doubles up to [`PROBE_MAX`].
    pub probe: Duration,
    /// How long a better parent must be reachable before it is gone home to.
    pub stable: Duration,
    /// How long a parent that is cut off or behind may look for a way itself.
    pub cut_off: Duration,
    /// The time over which its children spread then.
    pub spread: Duration,
}

impl Patience {
    /// What daemons have.
    pub const STANDARD: Self = Self {
        retry: RETRY_FIRST,
        probe: PROBE_FIRST,
        stable: HOME_STABLE,
        cut_off: CUT_OFF_PATIENCE,
        spread: CUT_OFF_SPREAD,
    };
}

/// What a child without a parent does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It dials.
    Dial(Address),
    /// All were tried: it waits so long.
    Wait(Duration),
}

/// What to make of a parent that has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Follow it.
    Take,
    /// Leave it, and try the others first.
    Later,
}

/// How long a connection to another relay is kept before it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Not at all: what it says of itself decides.
    No,
    /// So long, to see whether it is stable.
    For(Duration),
    /// As long as it lives: it is the one to go to when the parent is lost.
    Spare,
}

/// A relay to look at while a parent is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// Which.
    pub address: Address,
    /// When.
    pub at: Duration,
    /// How long its connection is kept.
    pub hold: Hold,
}

/// What was seen of a relay that was dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name, by its certificate.
    pub name: MemberName,
    /// Where it is, by its certificate.
    pub place: Place,
    /// The round trip to it.
    pub round_trip: Duration,
}

#[derive(Debug, Clone)]
struct Candidate {
    address: Address,
    name: Option<MemberName>,
    place: Place,
    /// Its place among the configured addresses; none where a parent told of it.
    configured: Option<usize>,
    /// Whether the newest list has it.
    told: bool,
    /// The least that was measured.
    round_trip: Option<Duration>,
    /// What it was worth when it was last seen.
    worth: Worth,
    /// Whether it was dialled since the last wait.
    tried: bool,
    /// When it is looked at next, and the wait before that.
    probe_at: Duration,
    probe_gap: Duration,
    /// How long it must be stable.
    stable: Duration,
    rank: Option<(super::Distance, usize, Rank)>,
}

/// The parent that is followed.
#[derive(Debug, Clone)]
struct Current {
    address: Address,
    since: Duration,
    worth: Worth,
}

/// The choice of a parent, of one child in one channel.
#[derive(Debug, Clone)]
pub struct Choice {
    child: Child,
    patience: Patience,
    /// Whether a connection to another parent is kept, to go to at once.
    wants_spare: bool,
    candidates: Vec<Candidate>,
    current: Option<Current>,
    wait: Duration,
    /// All that could be reached are poor: the best of them is taken.
    settle: bool,
    /// Counts what was jittered, so that no two waits of a child are alike.
    jitters: u64,
}

impl Choice {
    /// Begins without a parent. `configured`: the addresses that an operator gave, the best first.
    pub fn new(child: Child, configured: &[Address], wants_spare: bool, patience: Patience) -> Self {
        let mut choice = Self {
            child,
            patience,
            wants_spare,
            candidates: Vec::new(),
            current: None,
            wait: patience.retry,
            settle: false,
            jitters: 0,
        };
        for (order, address) in configured.iter().take(MAX_CANDIDATES).enumerate() {
            choice.add(address.clone(), Some(order));
        }
        choice
    }

    /// Takes a list that a parent gave, or that was kept. Those of the lists before stay until
    /// they cannot be reached, have moved, or their room is needed: a parent in trouble, or one
    /// that lies, takes no relay away that a child knows (TP-12).
    pub fn learn(&mut self, alternates: &Alternates) {
        for known in &mut self.candidates {
            known.told = alternates.iter().any(|told| told.address == known.address);
        }
        let current = self.current.as_ref().map(|current| current.address.clone());
        let moved = |known: &Candidate| alternates.iter().any(|told| Some(&told.name) == known.name.as_ref());
        self.candidates.retain(|known| {
            let stays = known.configured.is_some() || known.told || known.tried;
            stays || Some(&known.address) == current.as_ref() || !moved(known)
        });
        alternates.iter().for_each(|told| self.remember(told));
    }

    /// Forgets a relay that could not be reached, if nobody names it any more.
    fn forget(&mut self, address: &Address) {
        let current = self.current.as_ref().map(|current| &current.address);
        self.candidates.retain(|known| {
            let is_named = known.told || known.configured.is_some();
            known.address != *address || is_named || Some(&known.address) == current
        });
    }

    /// Takes one relay besides those that are known.
    pub fn remember(&mut self, told: &Alternate) {
        let elsewhere =
            |known: &Candidate| known.name.as_ref() == Some(&told.name) && known.address != told.address;
        // It may be known already under an address that has worked.
        if told.name == self.child.name || self.candidates.iter().any(elsewhere) {
            return;
        }
        self.add(told.address.clone(), None);
        if let Some(known) = self.candidate(&told.address) {
            // What a certificate said is better than what others say.
            if known.name.is_none() {
                (known.name, known.place) = (Some(told.name.clone()), told.place.clone());
                known.rank = None;
            }
        }
        self.order();
    }

    /// What to do without a parent. Gives another answer each time.
    pub fn next_step(&mut self) -> Next {
        let untried = self.candidates.iter_mut().find(|known| !known.tried);
        if let Some(known) = untried {
            known.tried = true;
            return Next::Dial(known.address.clone());
        }
        // None is good: one that is poor, and lets us follow it, is better than none.
        let best =
            self.candidates.iter().filter(|known| matches!(known.worth, Worth::Behind | Worth::CutOff));
        let best = best.min_by_key(|known| known.worth).map(|known| known.address.clone());
        if let (Some(address), false) = (best, self.settle) {
            self.settle = true;
            return Next::Dial(address);
        }
        self.settle = false;
        for known in &mut self.candidates {
            (known.tried, known.worth) = (false, Worth::Good);
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(RETRY_MAX);
        Next::Wait(wait / 2 + jitter(&self.child, &mut self.jitters, wait / 2))
    }

    /// Judges a parent that was dialled and has said how it stands. `newest`: the rank of the
    /// newest release that the child knows of.
    pub fn judge(
        &mut self,
        now: Duration,
        address: &Address,
        seen: Seen,
        condition: &Condition,
        newest: Option<(u64, u64)>,
    ) -> Verdict {
        let worth = condition.worth(&self.child, newest);
        self.note(address, seen, worth);
        let others = self.candidates.iter().any(|known| !known.tried);
        match worth {
            Worth::Loop => return Verdict::Later,
            Worth::Good => {}
            Worth::Behind | Worth::CutOff if self.settle || !others => {}
            Worth::Behind | Worth::CutOff => return Verdict::Later,
        }
        self.follow(now, address, worth);
        Verdict::Take
    }

    fn follow(&mut self, now: Duration, address: &Address, worth: Worth) {
        self.settle = false;
        self.current = Some(Current { address: address.clone(), since: now, worth });
        self.look_soon(now, worth, |known, soon| known.probe_at.max(soon));
    }

    /// When the others are looked at: the sooner the less our own parent is worth.
    fn look_soon(&mut self, now: Duration, worth: Worth, when: impl Fn(&Candidate, Duration) -> Duration) {
        let Self { child, patience, candidates, jitters, .. } = self;
        // The same for all, so that they are looked at in their order.
        let soon = match worth {
            Worth::Good => patience.probe + jitter(child, jitters, patience.probe),
            _ => patience.cut_off + jitter(child, jitters, patience.spread),
        };
        for known in candidates {
            (known.probe_at, known.probe_gap) = (when(known, now + soon), patience.probe);
        }
    }

    /// Hears from the parent how it stands. Whether it must be left at once.
    pub fn heard(&mut self, now: Duration, condition: &Condition, newest: Option<(u64, u64)>) -> bool {
        let worth = condition.worth(&self.child, newest);
        let Some(current) = &mut self.current else { return false };
        let before = core::mem::replace(&mut current.worth, worth);
        let address = current.address.clone();
        if let Some(known) = self.candidate(&address) {
            known.worth = worth;
        }
        if worth > Worth::Good && before == Worth::Good {
            self.look_soon(now, worth, |_, soon| soon);
        }
        worth == Worth::Loop
    }

    /// The parent is lost, or could not be reached. `ours`: by trouble of our own, so
    /// that there is no hurry to the next.
    pub fn lost(&mut self, now: Duration, address: &Address, ours: bool) {
        let followed = self.current.take_if(|current| current.address == *address);
        let lasted = followed.map_or(Duration::ZERO, |current| now.saturating_sub(current.since));
        if lasted > self.wait && !ours {
            self.wait = self.patience.retry;
            self.candidates.iter_mut().for_each(|known| known.tried = false);
        }
        let most = HOME_STABLE_MAX.max(self.patience.stable);
        let least = self.patience.stable;
        if let Some(known) = self.candidate(address) {
            (known.tried, known.worth) = (true, Worth::Good);
            // Nor is our own trouble anything to hold against it.
            if !lasted.is_zero() && !ours {
                known.stable = if lasted < FLAP_WINDOW { (known.stable * 2).min(most) } else { least };
            }
        }
        if ours {
            self.candidates.iter_mut().for_each(|known| known.tried = true);
        } else if lasted.is_zero() {
            self.forget(address);
        }
    }

    /// Begins anew without a parent, the best first: what kept all from being reached is over.
    pub fn restart(&mut self) {
        self.wait = self.patience.retry;
        self.candidates.iter_mut().for_each(|known| known.tried = false);
    }

    /// Which relay to look at while the parent is followed; `has_spare`: whether a spare
    /// connection is there already.
    pub fn errand(&self, now: Duration, has_spare: bool) -> Option<Errand> {
        let current = self.current.as_ref()?;
        let others = || self.others(current);
        if current.worth > Worth::Good {
            let first = others().min_by_key(|known| known.probe_at)?;
            return Some(Errand { address: first.address.clone(), at: first.probe_at, hold: Hold::No });
        }
        let better = others().filter(|known| self.is_better(known, current));
        let better = better.min_by_key(|known| known.probe_at);
        let better = better.map(|known| Errand {
            address: known.address.clone(),
            at: known.probe_at,
            hold: Hold::For(known.stable),
        });
        let is_due = better.as_ref().is_some_and(|errand| errand.at <= now);
        if is_due || has_spare || !self.wants_spare {
            return better;
        }
        let spare = others().min_by_key(|known| known.probe_at.max(now));
        let spare = spare.map(|known| Errand {
            address: known.address.clone(),
            at: known.probe_at,
            hold: Hold::Spare,
        });
        [better, spare].into_iter().flatten().min_by_key(|errand| errand.at)
    }

    /// Takes what came of an errand: what was seen of the relay, or that it could not be
    /// reached or did not stay. Whether the child moves to it.
    pub fn looked(
        &mut self,
        now: Duration,
        address: &Address,
        outcome: Option<(Seen, &Condition)>,
        newest: Option<(u64, u64)>,
    ) -> bool {
        let worth = outcome.as_ref().map(|(_, condition)| condition.worth(&self.child, newest));
        if let (Some((seen, _)), Some(worth)) = (outcome, worth) {
            self.note(address, seen, worth);
        }
        let first = self.patience.probe;
        let gap = self.candidate(address).map_or(first, |known| known.probe_gap);
        let at = now + gap + jitter(&self.child, &mut self.jitters, gap);
        let most = PROBE_MAX.max(self.patience.probe);
        if let Some(known) = self.candidate(address) {
            (known.probe_at, known.probe_gap) = (at, (gap * 2).min(most));
        }
        if worth.is_none() {
            self.forget(address);
        }
        let (Some(current), Some(worth)) = (&self.current, worth) else { return false };
        let known = self.candidates.iter().find(|known| known.address == *address);
        match current.worth {
            Worth::Good => worth == Worth::Good && known.is_some_and(|known| self.is_better(known, current)),
            // No better one than it is: the child stays.
            poor => worth < poor,
        }
    }

    /// The child has moved to a relay that it had looked at.
    pub fn moved(&mut self, now: Duration, address: &Address) {
        let worth = self.candidate(address).map_or(Worth::Good, |known| known.worth);
        self.follow(now, address, worth);
    }

    /// Whether there is anybody to go to but the parent.
    pub fn has_others(&self) -> bool {
        self.current.as_ref().is_some_and(|current| self.others(current).next().is_some())
    }

    /// The addresses of all that are known, the best first.
    pub fn known(&self) -> impl Iterator<Item = &Address> {
        self.candidates.iter().map(|known| &known.address)
    }

    /// The parent's address, and its rank for tests and logs.
    pub fn current(&self) -> Option<&Address> {
        self.current.as_ref().map(|current| &current.address)
    }

    /// All but the one that is followed, also where that has other addresses.
    fn others<'s>(&'s self, current: &'s Current) -> impl Iterator<Item = &'s Candidate> {
        let own = self.candidates.iter().find(|known| known.address == current.address);
        let name = own.and_then(|own| own.name.as_ref());
        self.candidates.iter().filter(move |known| {
            known.address != current.address && (name.is_none() || known.name.as_ref() != name)
        })
    }

    fn is_better(&self, other: &Candidate, current: &Current) -> bool {
        let own = self.candidates.iter().find(|known| known.address == current.address);
        own.is_none_or(|own| other.rank < own.rank)
    }

    fn candidate(&mut self, address: &Address) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|known| known.address == *address)
    }

    fn add(&mut self, address: Address, configured: Option<usize>) {
        if self.candidate(&address).is_some()
            || (self.candidates.len() >= MAX_CANDIDATES && !self.make_room())
        {
            return;
        }
        self.candidates.push(Candidate {
            address,
            name: None,
            place: Place::default(),
            configured,
            told: configured.is_none(),
            round_trip: None,
            worth: Worth::Good,
            tried: false,
            probe_at: Duration::ZERO,
            probe_gap: self.patience.probe,
            stable: self.patience.stable,
            rank: None,
        });
        self.order();
    }

    /// Forgets the farthest relay that nobody names any more. Whether there was one.
    fn make_room(&mut self) -> bool {
        let current = self.current.as_ref().map(|current| &current.address);
        let is_old =
            |known: &Candidate| !known.told && known.configured.is_none() && Some(&known.address) != current;
        let farthest = self.candidates.iter().rposition(is_old);
        farthest.map(|farthest| self.candidates.remove(farthest)).is_some()
    }

    /// Notes what a certificate and a connection have shown.
    fn note(&mut self, address: &Address, seen: Seen, worth: Worth) {
        if let Some(known) = self.candidate(address) {
            let least = known.round_trip.map_or(seen.round_trip, |before| before.min(seen.round_trip));
            known.round_trip = Some(least);
            (known.name, known.place, known.worth, known.rank) =
                (Some(seen.name.clone()), seen.place, worth, None);
        }
        // The same relay under an address that somebody told.
        let current = self.current.as_ref().map(|current| &current.address);
        self.candidates.retain(|known| {
            known.address == *address
                || known.configured.is_some()
                || Some(&known.address) == current
                || known.name.as_ref() != Some(&seen.name)
        });
        self.order();
    }

    /// Ranks what changed, and puts the best first. Where no place makes a difference,
    /// the operator's order does (TP-5).
    fn order(&mut self) {
        let Self { child, candidates, .. } = self;
        for known in candidates.iter_mut().filter(|known| known.rank.is_none()) {
            let who = known.name.as_ref().map_or(known.address.as_str(), MemberName::as_str);
            let rank = Rank::new(child, &known.place, known.round_trip, who);
            let order = match rank.distance() {
                super::Distance::Top => known.configured.unwrap_or(MAX_CANDIDATES),
                _ => 0,
            };
            known.rank = Some((rank.distance(), order, rank));
        }
        candidates.sort_by(|one, other| (one.rank, &one.address).cmp(&(other.rank, &other.address)));
    }
}

/// A part of a time that differs between children, and from one use to the next.
fn jitter(child: &Child, uses: &mut u64, most: Duration) -> Duration {
    *uses += 1;
    let part = hash(&[child.name.as_str(), &uses.to_string()]) >> 11;
    most.mul_f64(part as f64 / (1u64 << 53) as f64)
}
