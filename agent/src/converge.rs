//! From what is live to what is to be: the steps of an activation, each written down before it is done
//! (specs/activation.md, A-30 to A-37). What follows what is core's to decide.

use crate::activate::{Activation, Live};
use crate::books::Books;
use crate::change::Change;
use crate::services::{AFTER, BACK, BEFORE, HookRun, Installer, Newer, Runner, Trees, VALIDATE};
use crate::{AgentConfig, AgentError, AgentEvent};
use rootcast::acceptance::Accepted;
use rootcast::activation::{Cause, Event, Failure, Generation, Journal, State, Step, Target, target};
use rootcast::service::{Phase, ServiceName, Services};
use rootcast::status::{Condition, HostState, reason};
use rootcast_replica::Replica;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::UnixDatagram;
use tokio::sync::watch;

/// Why the newest release is not live.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    /// The release.
    pub(crate) release: u64,
    /// How it ended with it.
    pub(crate) state: State,
    /// Why.
    pub(crate) reason: String,
    /// The last that the hook wrote which failed.
    pub(crate) output: String,
}

/// What is live, and why it is not something else.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The release that is live; 0 for none.
    pub(crate) release: u64,
    /// What of it is live.
    pub(crate) live: Option<Live>,
    /// What is not.
    pub(crate) refused: Option<Refused>,
    /// The generation that the operator holds, if one.
    pub(crate) held: Option<u64>,
}

/// Brings generations to life on this host.
pub(crate) struct Converging {
    activation: Arc<Mutex<Activation>>,
    replica: Arc<Replica>,
    settings: watch::Receiver<AgentConfig>,
    events: Arc<dyn Fn(AgentEvent) + Send + Sync>,
    books: Books,
    /// Rung when the operator has given orders.
    bell: Option<UnixDatagram>,
    /// Whether it was rung in the midst of an activation.
    is_rung: bool,
    /// What is said of this host to its relay.
    report: watch::Sender<Condition>,
    /// Epoch and number of the newest release when an activation began.
    newest: (u64, u64),
    /// Whether this process has yet to look at what it found.
    is_found: bool,
    /// What the last flip made live.
    live: Option<Live>,
}

impl Converging {
    pub(crate) fn new(
        activation: Arc<Mutex<Activation>>,
        replica: Arc<Replica>,
        settings: watch::Receiver<AgentConfig>,
        events: Arc<dyn Fn(AgentEvent) + Send + Sync>,
        report: watch::Sender<Condition>,
        books: Books,
    ) -> Self {
        let bell = books.bell();
        if let Err(error) = &bell {
            tracing::warn!(%error, "orders are looked at when a release comes, and at the start, only");
        }
        let (bell, is_rung, newest, live) = (bell.ok(), false, (0, 0), None);
        let is_found = true;
        let converging = Self {
            activation,
            replica,
            settings,
            events,
            books,
            bell,
            is_rung,
            report,
            newest,
            is_found,
            live,
        };
        converging.pin();
        converging
    }

    /// Completes when the operator has given orders that were not looked at yet.
    pub(crate) async fn rung(&mut self) {
        if !std::mem::take(&mut self.is_rung) {
            self.ring().await;
        }
    }

    async fn ring(&self) {
        match &self.bell {
            // Whatever it says, and also where it cannot be heard: to look costs little.
            Some(bell) => drop(bell.recv(&mut [0; 1]).await),
            None => std::future::pending().await,
        }
    }

    /// Completes when the operator wants another generation than the one that is being made live.
    async fn ordered(&mut self, instead_of: u64) -> Cause {
        loop {
            if let Some(number) = self.books.orders.hold.filter(|number| *number != instead_of) {
                let reason = format!("meanwhile the operator ordered generation {number}");
                return Cause { reason, output: String::new() };
            }
            self.ring().await;
            self.is_rung = true;
            if let Err(error) = self.books.reread_orders() {
                tracing::error!(%error, "orders cannot be read; those before stand");
            }
        }
    }

    /// Remembers why a release was not made live; whether that is news.
    pub(crate) async fn remember_failure(&mut self, release: Accepted, state: State, why: &str) -> bool {
        let since = self.replica.machine().seconds();
        let is_news = self.books.history.failed(Failure { release, state, since, reason: why.to_owned() });
        if is_news && let Err(error) = self.write(Books::write_history).await {
            tracing::warn!(%error, "that will not be in the history");
        }
        is_news
    }

    /// What is live and good.
    pub(crate) fn live(&self) -> Option<&Generation> {
        self.books.history.live()
    }

    /// Goes on with what was found under way, and then makes live what is to be.
    ///
    /// # Errors
    /// What could not be tried, or not be written down; it can be tried again.
    pub(crate) async fn towards(&mut self, newest: Generation) -> Result<Outcome, AgentError> {
        self.books.reread_orders()?;
        self.newest = newest.release.rank();
        if !self.books.journal.state.is_settled() {
            if self.is_found {
                let found = std::mem::take(&mut self.books.journal);
                tracing::warn!(
                    state = found.state.as_str(),
                    "an activation was under way when the agent ended"
                );
                self.books.journal = found.next(Event::Restarted);
                // One start counts once, also where that cannot be written down yet.
                self.is_found = false;
                self.write(Books::write_journal).await?;
            }
            self.drive().await?;
        }
        self.is_found = false;
        let Books { journal, history, orders, .. } = &self.books;
        let (held, aim) = (orders.hold, target(&newest.release.hash, journal, history, orders));
        let outcome = match aim {
            Target::Newest => self.make_live(newest).await,
            Target::Quarantined => self.stay().await,
            Target::Held(number) => match history.get(number).cloned() {
                Some(held) => self.make_live(held).await,
                None => Err(AgentError::NoGeneration(number)),
            },
        };
        let outcome = Outcome { held, ..outcome? };
        self.settle().await?;
        Ok(outcome)
    }

    /// Keeps what was live as it is where nothing newer could be begun: after a start nobody has looked at it
    /// yet. Gives its release, and what of it is live, where that is so.
    pub(crate) async fn keep_live(&mut self) -> Option<(u64, Live)> {
        let live = self.live().filter(|_| self.books.journal.state.is_settled())?.clone();
        let release = live.release.number;
        let kept = self.blocking(move |activation| match activation.live_tree() {
            Some(_) => Ok(None),
            None => activation.bring(&live).map(Some),
        });
        let kept = match kept.await {
            Ok(kept) => kept?,
            Err(error) => {
                tracing::warn!(%error, release, "what was live cannot be compared, and is left as it is");
                return None;
            }
        };
        self.settle().await.ok()?;
        Some((release, kept))
    }

    /// Has what is installed kept as it is from now on.
    async fn settle(&self) -> Result<(), AgentError> {
        let Some(live) = self.books.history.live().cloned() else { return Ok(()) };
        let books = self.books.directory().to_owned();
        self.blocking(move |activation| {
            activation.settle(&live, &books);
            Ok(())
        })
        .await
    }

    async fn make_live(&mut self, new: Generation) -> Result<Outcome, AgentError> {
        let old = self.books.history.live().cloned();
        let (from, to) = (old.clone(), new.clone());
        let change = self.blocking(move |activation| activation.change(from.as_ref(), &to)).await?;
        // What of the last activation was left inconsistent runs as well.
        if change.is_quiet() && self.books.journal.touched.is_empty() {
            let to = new.clone();
            let live = self.blocking(move |activation| activation.bring(&to)).await?;
            let release = new.release.number;
            self.remember(&new).await?;
            return Ok(Outcome { release, live: Some(live), refused: None, held: None });
        }
        let to = new.clone();
        let staged = self.blocking(move |activation| activation.stage(&to)).await?;
        self.permitted(&change, &staged)?;
        let before = std::mem::take(&mut self.books.journal);
        // What is staged needs no record of its own: nothing of it shows.
        self.books.journal = before.begin(old, new.clone(), change.touched).next(Event::Done);
        self.pin();
        self.drive().await?;
        if self.books.journal.state != State::Active {
            return self.stay().await;
        }
        Ok(Outcome { release: new.release.number, live: self.live.take(), refused: None, held: None })
    }

    /// What all services of this host want must be permitted: those that run, and those that install.
    fn permitted(&self, change: &Change, staged: &Path) -> Result<(), AgentError> {
        let allow = self.settings.borrow().allow.clone();
        let wants = change.services.iter().filter(|service| {
            change.touched.contains(&service.name)
                || service.install.iter().any(|install| staged.join(install.from.as_str()).exists())
        });
        Ok(allow.judge(wants)?)
    }

    /// What was live stays, and the newest release is not.
    async fn stay(&mut self) -> Result<Outcome, AgentError> {
        let live = match self.books.history.live().cloned() {
            None => None,
            Some(generation) => {
                let number = generation.release.number;
                Some((number, self.blocking(move |activation| activation.bring(&generation)).await?))
            }
        };
        let Journal { state, new, switched, reason, output, .. } = self.books.journal.clone();
        let release = new.map_or(0, |new| new.release.number);
        let how = match (switched, state) {
            (false, _) => "was refused",
            (true, State::Inconsistent) => "failed, and so did going back",
            (true, _) => "was rolled back",
        };
        let reason = format!("release {release} {how}: {reason}");
        let refused = Some(Refused { release, state, reason, output });
        Ok(Outcome {
            release: live.as_ref().map_or(0, |(number, _)| *number),
            live: live.map(|(_, live)| live),
            refused,
            held: None,
        })
    }

    /// Does step after step, until nothing is under way.
    async fn drive(&mut self) -> Result<(), AgentError> {
        let Journal { old, new, touched, .. } = self.books.journal.clone();
        let Some(new) = new else { return Ok(()) };
        let (from, to) = (old.clone(), new.clone());
        let change = self.blocking(move |activation| {
            activation.unsettle();
            activation.change(from.as_ref(), &to)
        });
        let mut change = change.await?;
        change.touched = touched;
        while let Some(step) = self.books.journal.step() {
            let state = self.books.journal.state;
            let event = if has_work(step, &change) {
                self.write(Books::write_journal).await?;
                tracing::info!(state = state.as_str(), release = new.release.number, "activation");
                self.report.send_if_modified(|said| {
                    let is_said = said.state == HostState::Updating;
                    if is_said {
                        said.reason = reason(&format!("release {}: {}", new.release.number, state.as_str()));
                    }
                    is_said
                });
                (self.events)(AgentEvent::Activation { release: new.release.number, state });
                match self.perform(step, old.as_ref(), &new, &change).await {
                    Ok(()) => Event::Done,
                    Err(cause) => Event::Failed(cause),
                }
            } else {
                Event::Done
            };
            if let Event::Failed(cause) = &event {
                tracing::error!(
                    state = state.as_str(),
                    reason = cause.reason,
                    output = cause.output,
                    "activation failed"
                );
            }
            let journal = std::mem::take(&mut self.books.journal);
            self.books.journal = journal.next(event);
        }
        let Journal { state, reason, .. } = self.books.journal.clone();
        match state {
            State::Active => self.remember(&new).await?,
            State::RolledBack | State::Inconsistent => {
                self.remember_failure(new.release, state, &reason).await;
                // A crash may have come after the new one was remembered, and before it was good in the journal.
                if let Some(old) = &old {
                    self.remember(old).await?;
                }
            }
            _ => {}
        }
        self.write(Books::write_journal).await?;
        (self.events)(AgentEvent::Activation {
            release: new.release.number,
            state: self.books.journal.state,
        });
        self.pin();
        Ok(())
    }

    async fn perform(
        &mut self,
        step: Step,
        old: Option<&Generation>,
        new: &Generation,
        change: &Change,
    ) -> Result<(), Cause> {
        let Change { services, touched, .. } = change;
        let phases = match step {
            Step::Validate => VALIDATE,
            Step::Drain => BEFORE,
            Step::Check => AFTER,
            Step::Switch => return self.switch(new, services).await,
            Step::Return => return self.go_back(old, change).await,
        };
        let mut runner = self.runner(new).await?;
        // What the operator holds is not given up for a release that would have to wait all the same.
        if self.books.orders.hold.is_none() {
            runner = runner.hurried(Newer::new(&self.replica, self.newest));
        }
        runner.stage(services, touched, phases, self.ordered(new.number)).await
    }

    /// The flip back, what is installed, and the hooks of what is live then. Nothing cuts it short.
    async fn go_back(&mut self, old: Option<&Generation>, change: &Change) -> Result<(), Cause> {
        let Change { services, before, touched, .. } = change;
        let Some(old) = old else {
            let reason = "there is no generation to go back to, so its files stay".to_owned();
            return Err(Cause { reason, output: String::new() });
        };
        let switched = self.books.journal.switched;
        if switched {
            self.switch(old, before).await?;
        }
        let runner = self.runner(old).await?;
        let is_known = |name: &&ServiceName| before.get(name).is_some();
        let (known, unknown): (BTreeSet<_>, BTreeSet<_>) = touched.iter().partition(is_known);
        let names = |names: BTreeSet<&ServiceName>| names.into_iter().cloned().collect();
        // What was not live yet has nothing to take up again, but may have been drained.
        runner.stage(services, &names(unknown), UNDRAIN, never()).await?;
        runner.stage(before, &names(known), if switched { BACK } else { UNDRAIN }, never()).await
    }

    /// The flip, and what is installed.
    async fn switch(&mut self, to: &Generation, services: &Services) -> Result<(), Cause> {
        let (allow, books) = (self.settings.borrow().allow.clone(), self.books.directory().to_owned());
        let (to, services) = (to.clone(), services.clone());
        let live = self.blocking(move |activation| {
            let root = activation.stage(&to)?;
            let live = activation.flip()?;
            let installer = Installer::new(books, activation.current());
            let installed = installer.apply(&services, &root, &allow)?;
            tracing::info!(written = installed.written, removed = installed.removed, "installed");
            Ok(live)
        });
        self.live = Some(live.await.map_err(cause)?);
        Ok(())
    }

    async fn runner(&self, of: &Generation) -> Result<Runner, Cause> {
        let of = of.clone();
        let trees = self.blocking(move |activation| {
            Ok(Trees { staged: activation.stage(&of)?, current: activation.current() })
        });
        let events = self.events.clone();
        let told = move |run: &HookRun| {
            let (milliseconds, output) = (run.milliseconds, run.output.as_str());
            match run.failure {
                None => tracing::info!(milliseconds, "{run}"),
                Some(_) => tracing::error!(milliseconds, output, "{run}"),
            }
            events(AgentEvent::Hook(run.clone()));
        };
        Ok(Runner::new(trees.await.map_err(cause)?, Arc::new(told)))
    }

    /// Notes what has become live.
    async fn remember(&mut self, live: &Generation) -> Result<(), AgentError> {
        let before = self.books.history.clone();
        if self.books.history.made_live(live) {
            let written = self.write(Books::write_history).await;
            if let Err(error) = written {
                self.books.history = before;
                return Err(error);
            }
        }
        self.pin();
        Ok(())
    }

    /// Writes one of the books on a thread that may wait for the disk.
    async fn write(&self, book: fn(&Books) -> Result<(), AgentError>) -> Result<(), AgentError> {
        let books = self.books.clone();
        let machine = self.replica.machine().clone();
        machine.blocking(move || book(&books)).await.map_err(|_| AgentError::Stopped)?
    }

    /// Keeps the trees that may be gone back to, or on to.
    fn pin(&self) {
        self.replica.pin(self.books.roots());
    }

    /// Runs work that waits for the disk on a thread that may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Activation) -> Result<T, AgentError> + Send + 'static,
    ) -> Result<T, AgentError> {
        let activation = self.activation.clone();
        let machine = self.replica.machine().clone();
        let done = machine
            .blocking(move || work(&mut activation.lock().unwrap_or_else(PoisonError::into_inner)))
            .await;
        done.map_err(|_| AgentError::Stopped)?
    }
}

const UNDRAIN: &[Phase] = &[Phase::Undrain];

fn never() -> std::future::Pending<Cause> {
    std::future::pending()
}

fn has_work(step: Step, change: &Change) -> bool {
    match step {
        Step::Validate => change.has_hooks(VALIDATE),
        Step::Drain => change.has_hooks(BEFORE),
        Step::Check => change.has_hooks(AFTER),
        Step::Switch | Step::Return => true,
    }
}

fn cause(error: AgentError) -> Cause {
    Cause { reason: error.to_string(), output: String::new() }
}
