//! Keeping the live tree as its release has it: hears of changes, compares, repairs
//! (specs/activation.md, A-50 to A-59). What to do and when is [`rootcast::drift`].

mod pace;
mod watches;

pub use watches::Limit;

use crate::activate::{Activation, Looked, Placed, Turned};
use crate::slots::{Checked, CurrentRepaired, Fault, Moment, Patterns};
use crate::{AgentConfig, AgentError, AgentEvent};
use rootcast::drift::{Drift, Mode, Spot, Work};
use rootcast::limits::{MAX_DRIFT_NAMED, MAX_DRIFT_SPOTS};
use rootcast_replica::Replica;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use watches::{Seen, Watches};

/// How the live tree is kept, for status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DriftStatus {
    /// What is done about drift.
    pub mode: Mode,
    /// Directories that are watched.
    pub watched: usize,
    /// Why not all are, if so.
    pub limit: Option<Limit>,
    /// Times that something was put right, since the start.
    pub repaired: u64,
    /// Places that are known to differ now.
    pub differing: usize,
    /// When all was compared last, in seconds since 1970; 0 before the first time.
    pub checked: u64,
    /// What an operator should look at.
    pub alarm: Option<String>,
}

impl DriftStatus {
    /// One word for the whole.
    pub fn state(&self) -> &'static str {
        match (self.mode, self.limit, self.watched) {
            (Mode::Off, _, _) => "off",
            (_, Some(_), _) => "limited",
            (_, None, 0) => "waiting",
            (_, None, _) => "watching",
        }
    }
}

/// Drift was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The first places, at most as many as an alarm names.
    pub paths: Vec<String>,
    /// How many differed.
    pub count: u64,
    /// Whether they were put right.
    pub repaired: bool,
    /// Whether the other slot took over for that.
    pub flipped: bool,
    /// Things that the release has not and that were removed, those in directories counted each.
    pub removed: u64,
    /// Where the thing is now that was in the place of `current`, if one was.
    pub set_aside: Option<PathBuf>,
    /// How long the look took, from its beginning.
    pub took: Duration,
}

/// What keeps a live tree.
pub(crate) struct Keeper {
    pub(crate) activation: Arc<Mutex<Activation>>,
    pub(crate) replica: Arc<Replica>,
    /// The directory of `current`.
    pub(crate) home: PathBuf,
    pub(crate) mode: Mode,
    pub(crate) ignored: Patterns,
    /// What may be written outside the live tree is among them.
    pub(crate) settings: watch::Receiver<AgentConfig>,
    /// Changed when a generation has become live, or what it installs was installed.
    pub(crate) turned: watch::Receiver<Turned>,
    pub(crate) status: watch::Sender<DriftStatus>,
    pub(crate) events: Arc<dyn Fn(AgentEvent) + Send + Sync>,
}

/// What a comparison of everything found: in the tree, and outside.
type Compared = (Checked, Vec<Spot>);

/// One that takes its time. Dropped, it ends.
type Comparing = Pin<Box<dyn Future<Output = Result<Compared, AgentError>> + Send>>;

/// What is kept between one turn and the next.
struct Turns {
    drift: Drift,
    watches: Result<Watches, Limit>,
    /// Why not all of the tree is watched.
    limit: Option<Limit>,
    root: Option<(PathBuf, Moment)>,
    /// What is installed outside the tree, if that is known.
    placed: Option<Placed>,
    turned: Turned,
    checking: Option<Comparing>,
    home_gone: bool,
    trouble: Option<String>,
    begun: Instant,
}

impl Turns {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Keeper {
    /// Keeps the tree, for ever.
    pub(crate) async fn keep(mut self) {
        self.status.send_modify(|status| status.mode = self.mode);
        if self.mode == Mode::Off {
            return std::future::pending().await;
        }
        let begun = Instant::now();
        let watches = Watches::open(&self.home);
        let limit = watches.as_ref().err().copied();
        let drift = Drift::new(self.mode, Duration::ZERO, self.jitter());
        let (root, placed, turned, home_gone, trouble) = (None, None, Turned::default(), false, None);
        let mut turns =
            Turns { drift, watches, limit, root, placed, turned, checking: None, home_gone, trouble, begun };
        loop {
            let now = turns.now();
            let wakes = turns.drift.wakes(now).filter(|_| turns.root.is_some());
            let wait = async {
                match wakes {
                    Some(wakes) => tokio::time::sleep(wakes.saturating_sub(now)).await,
                    None => std::future::pending().await,
                }
            };
            let readable = async {
                match &turns.watches {
                    Ok(watches) => watches.readable().await,
                    Err(_) => std::future::pending().await,
                }
            };
            let checked = async {
                match &mut turns.checking {
                    Some(checking) => checking.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = self.turned.changed() => {
                    if changed.is_err() { return }
                    self.take_turns(&mut turns).await;
                }
                _ = readable => {}
                found = checked => {
                    turns.checking = None;
                    let outcome = found.map(|found| self.checked(&mut turns, found));
                    self.ended(&mut turns, outcome).await;
                }
                () = wait => {}
            }
            self.hear(&mut turns);
            while let Some(work) = turns.drift.work(turns.now(), self.jitter()) {
                self.work(&mut turns, work).await;
                self.hear(&mut turns);
                // A flip makes void what is known; it is taken note of first.
                if self.turned.has_changed().unwrap_or(true) {
                    break;
                }
            }
            self.tell(&turns);
        }
    }

    fn jitter(&self) -> u32 {
        self.replica.machine().random()
    }

    /// Another tree is live, or something else is installed, or both.
    async fn take_turns(&mut self, turns: &mut Turns) {
        let before = std::mem::replace(&mut turns.turned, *self.turned.borrow_and_update());
        if turns.turned.tree != before.tree {
            self.turn(turns).await;
        }
        if turns.turned.installed != before.installed {
            self.turn_places(turns).await;
        }
    }

    /// Something else is installed: it is watched from now on. What was done to it before is found by comparing.
    async fn turn_places(&self, turns: &mut Turns) {
        turns.placed = self.blocking(|activation| Ok(activation.placed())).await.ok().flatten();
        // What the installing itself made is told by now.
        self.hear(turns);
        turns.drift.reinstalled();
        turns.trouble = None;
        if let Some(limit) = watch_places(turns).err() {
            self.limited(turns, Some(limit));
        }
        let Some(placed) = turns.placed.clone() else { return };
        let differing = self.replica.machine().blocking(move || placed.differing()).await;
        match differing.unwrap_or(Err(AgentError::Stopped)) {
            Ok(differing) => {
                let now = turns.now();
                differing.into_iter().for_each(|spot| turns.drift.touched(spot, now));
            }
            Err(error) => {
                turns.trouble = Some(format!("drift: {error}"));
                turns.drift.failed(turns.now(), self.jitter());
            }
        }
    }

    /// Another tree is live: it is watched from now on.
    async fn turn(&self, turns: &mut Turns) {
        (turns.trouble, turns.checking) = (None, None);
        let root = self.blocking(|activation| Ok(activation.live_tree())).await;
        turns.root = root.ok().flatten();
        turns.drift.flipped(turns.now(), self.jitter());
        self.watch(turns);
    }

    fn watch(&self, turns: &mut Turns) {
        let Some((root, since)) = turns.root.clone() else { return };
        let now = turns.now();
        if turns.watches.is_err() || turns.home_gone {
            turns.watches = Watches::open(&self.home);
            turns.home_gone = false;
        }
        let covered = match &mut turns.watches {
            Ok(watches) => watches.turn_to(root, since, &self.ignored),
            Err(limit) => Err(*limit),
        };
        // Touched between the flip and now; or before, as files may be marked with a time a little ahead.
        for path in covered.as_deref().unwrap_or_default() {
            turns.drift.suspected(Spot::path(path), now);
        }
        turns.drift.suspected(Spot::Current, now);
        let limit = covered.err().or(watch_places(turns).err());
        self.limited(turns, limit);
    }

    /// Takes note of whether all of the tree is watched.
    fn limited(&self, turns: &mut Turns, limit: Option<Limit>) {
        if let Some(limit) = limit.filter(|_| turns.limit != limit) {
            tracing::warn!(
                limit = limit.as_str(),
                "not all of the live tree can be watched, and it is compared once a minute instead; {}",
                limit.advice()
            );
        }
        turns.limit = limit;
        turns.drift.watches(limit.is_none(), turns.now(), self.jitter());
    }

    /// Takes in what the kernel told.
    fn hear(&self, turns: &mut Turns) {
        let Ok(watches) = &mut turns.watches else { return };
        let mut seen = Seen::default();
        while watches.read(&mut seen) && seen.spots.len() < MAX_DRIFT_SPOTS {}
        if (seen.led_away || seen.overflowed)
            && let Err(limit) = watches.cover_places()
        {
            self.limited(turns, Some(limit));
        }
        let now = turns.now();
        if seen.overflowed {
            tracing::warn!(
                "more changed in the live tree than the kernel keeps; all of it is compared; \
                 the sysctl fs.inotify.max_queued_events sets how much that is"
            );
            turns.drift.lost_sight(now);
        }
        if seen.home_gone && !turns.home_gone {
            tracing::error!(home = %self.home.display(), "the directory of the live tree was moved or removed");
            turns.home_gone = true;
        }
        for spot in seen.spots {
            turns.drift.touched(spot, now);
        }
    }

    async fn work(&self, turns: &mut Turns, work: Work) {
        let outcome = match work {
            Work::Look { spots, repair } => self.look(turns, spots, repair).await,
            Work::Check { hurry } => self.check(turns, hurry).await,
        };
        self.ended(turns, outcome).await;
    }

    /// Takes note of how work ended.
    async fn ended(&self, turns: &mut Turns, outcome: Result<(), AgentError>) {
        turns.trouble = None;
        if let Err(error) = outcome {
            tracing::error!(%error, "the live tree could not be put right");
            turns.trouble = Some(format!("drift: {error}"));
            turns.drift.failed(turns.now(), self.jitter());
            if error.needs_repair() {
                let replica = self.replica.clone();
                let machine = replica.machine().clone();
                let _ = machine.blocking(move || replica.find_damage()).await;
                self.replica.request_repair();
            }
        }
    }

    async fn look(&self, turns: &mut Turns, spots: Vec<Spot>, repair: bool) -> Result<(), AgentError> {
        let begun = Instant::now();
        let places = spots.clone();
        let allow = repair.then(|| self.settings.borrow().allow.clone());
        let mut looked = self.blocking(move |activation| activation.look(&places, allow.as_ref())).await?;
        let now = turns.now();
        let found: Vec<Spot> = looked.spots().collect();
        let news = found.iter().any(|spot| turns.drift.is_news(spot));
        if looked.repaired {
            for spot in &found {
                turns.drift.repaired(spot, now);
            }
        } else {
            turns.drift.differ(&spots, found.iter().cloned());
        }
        turns.drift.refuse(&spots, std::mem::take(&mut looked.refused), now, self.jitter());
        if !looked.is_whole() && (looked.repaired || news) {
            self.announce(&looked, begun.elapsed());
        }
        if looked.flipped {
            self.turn(turns).await;
        } else if let Ok(watches) = &mut turns.watches {
            let mut limit = None;
            for spot in &spots {
                let Spot::Path(path) = spot else { continue };
                match watches.cover(path, &self.ignored) {
                    // Something may have changed before they were watched.
                    Ok(new) => new.into_iter().for_each(|new| turns.drift.touched(Spot::Path(new), now)),
                    Err(reached) => limit = Some(reached),
                }
            }
            if limit.is_some() {
                self.limited(turns, limit);
            }
        }
        Ok(())
    }

    /// Says what was found, and what became of it.
    fn announce(&self, looked: &Looked, took: Duration) {
        let paths: Vec<String> = looked.spots().take(MAX_DRIFT_NAMED).map(|spot| spot.to_string()).collect();
        let set_aside = match &looked.current {
            Some(CurrentRepaired::SetAside(path)) => Some(path.clone()),
            _ => None,
        };
        for one in looked.differences.iter().filter(|one| looked.repaired && one.fault == Fault::Extra) {
            tracing::warn!(path = %one.path.display(), "removed from the live tree: the release has it not");
        }
        if let Some(path) = &set_aside {
            tracing::warn!(moved_to = %path.display(), "what was in the place of `current` was moved aside");
        }
        let count = looked.spots().count() as u64 + looked.found - looked.differences.len() as u64;
        tracing::warn!(
            ?paths,
            count,
            repaired = looked.repaired,
            flipped = looked.flipped,
            micros = took.as_micros() as u64,
            "drift"
        );
        if looked.repaired {
            self.status.send_modify(|status| status.repaired += 1);
        }
        (self.events)(AgentEvent::Drift(Found {
            paths,
            count,
            repaired: looked.repaired,
            flipped: looked.flipped,
            removed: looked.removed,
            set_aside,
            took,
        }));
    }

    /// Compares everything, with no hold on the activation; what differs is looked at again.
    async fn check(&self, turns: &mut Turns, hurry: bool) -> Result<(), AgentError> {
        if turns.checking.is_some() && !hurry {
            return Ok(());
        }
        turns.checking = None;
        let comparable = self.blocking(Activation::comparable).await?;
        let Some(comparable) = comparable else { return Ok(()) };
        let machine = self.replica.machine().clone();
        let compare = move |pace: &dyn Fn(u64) -> bool| {
            let checked = comparable.check(pace)?;
            let places = comparable.differing_places().unwrap_or_else(|error| {
                tracing::warn!(%error, "what services installed cannot be compared");
                Vec::new()
            });
            Ok((checked, places))
        };
        if hurry {
            let found = machine.blocking(move || compare(&|_| true)).await;
            self.checked(turns, found.unwrap_or(Err(AgentError::Stopped))?);
        } else {
            let paced = pace::gently(machine, compare);
            turns.checking = Some(Box::pin(async { paced.await.unwrap_or(Err(AgentError::Stopped)) }));
        }
        Ok(())
    }

    /// Takes in what a comparison of everything found.
    fn checked(&self, turns: &mut Turns, (checked, places): Compared) {
        let now = turns.now();
        self.status.send_modify(|status| status.checked = self.replica.machine().seconds());
        turns.drift.suspected(Spot::Current, now);
        if checked.found > checked.differences.len() as u64 {
            turns.drift.touched(Spot::path(""), now);
        }
        let paths = checked.differences.iter().map(|one| Spot::path(&one.path.to_string_lossy()));
        for spot in paths.chain(places) {
            turns.drift.touched(spot, now);
        }
        if turns.limit.is_some() {
            self.watch(turns);
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Activation) -> Result<T, AgentError> + Send + 'static,
    ) -> Result<T, AgentError> {
        let activation = self.activation.clone();
        let machine = self.replica.machine();
        let done =
            machine.blocking(move || work(&mut activation.lock().unwrap_or_else(PoisonError::into_inner)));
        done.await.map_err(|_| AgentError::Stopped)?
    }

    fn tell(&self, turns: &Turns) {
        let gone = || format!("drift: {} was moved or removed", self.home.display());
        let alarm = turns.home_gone.then(gone).or_else(|| turns.trouble.clone());
        let alarm = alarm.or_else(|| turns.drift.alarm().map(|alarm| alarm.to_string()));
        let before = self.status.borrow().alarm.clone();
        match (&before, &alarm) {
            (before, Some(alarm)) if before.as_ref() != Some(alarm) => tracing::error!("{alarm}"),
            (Some(_), None) => tracing::info!("drift: the live tree needs nobody any more"),
            _ => {}
        }
        self.status.send_if_modified(|status| {
            let before = status.clone();
            status.watched = turns.watches.as_ref().map_or(0, Watches::count);
            status.limit = turns.limit;
            status.differing = turns.drift.known_to_differ();
            status.alarm = alarm;
            *status != before
        });
    }
}

/// Watches what leads to the places where something is installed.
fn watch_places(turns: &mut Turns) -> Result<(), Limit> {
    let Ok(watches) = &mut turns.watches else { return Ok(()) };
    watches.turn_to_places(turns.placed.iter().flat_map(Placed::places))
}
