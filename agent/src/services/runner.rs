//! The hooks of a stage: services after one another or at once, until all have ended.

use super::hook::{Trees, perform};
use super::newer::Newer;
use rootcast::activation::Cause;
use rootcast::limits::MAX_RUNNING_SERVICES;
use rootcast::service::{Ended, Hook, Phase, Schedule, Service, ServiceName, Services, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The phases of going back.
pub(crate) const BACK: &[Phase] = &[Phase::Activate, Phase::Check, Phase::Undrain];
/// The phases before the flip, when the staged tree was found good.
pub(crate) const BEFORE: &[Phase] = &[Phase::Drain, Phase::Pre];
/// The phases after the flip.
pub(crate) const AFTER: &[Phase] = &[Phase::Activate, Phase::Check, Phase::Undrain, Phase::Test, Phase::Post];
/// The phases that change nothing.
pub(crate) const VALIDATE: &[Phase] = &[Phase::Validate];

/// A hook that was run.
#[derive(Debug, Clone)]
pub struct HookRun {
    /// Of which service.
    pub service: ServiceName,
    /// In which phase.
    pub phase: Phase,
    /// What it did, in words.
    pub what: String,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// The end of what it wrote.
    pub output: String,
    /// How long it took.
    pub milliseconds: u64,
}

impl fmt::Display for HookRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {}", self.phase.as_str(), self.service, self.what)?;
        self.failure.as_ref().map_or(Ok(()), |failure| write!(f, ": {failure}"))
    }
}

type Shared = Arc<OnceCell<Result<(), String>>>;

/// What the stages of one activation share.
#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) trees: Trees,
    /// Told of each hook that ran.
    pub(crate) told: Arc<dyn Fn(&HookRun) + Send + Sync>,
    /// What ends the patience of checks that fail.
    newer: Option<Newer>,
    /// What is done once for all services.
    once: Arc<Mutex<BTreeMap<String, Shared>>>,
}

impl Runner {
    pub(crate) fn new(trees: Trees, told: Arc<dyn Fn(&HookRun) + Send + Sync>) -> Self {
        Self { trees, told, newer: None, once: Arc::default() }
    }

    /// A check that fails is not tried again once a newer release waits.
    pub(crate) fn hurried(self, newer: Newer) -> Self {
        Self { newer: Some(newer), ..self }
    }

    /// Runs the hooks of these phases of the services that are touched, until there is a reason to stop.
    /// Whatever it started has ended then.
    ///
    /// # Errors
    /// The first that failed, and how many with it; or that reason.
    pub(crate) async fn stage(
        &self,
        services: &Services,
        touched: &BTreeSet<ServiceName>,
        phases: &'static [Phase],
        stop: impl Future<Output = Cause>,
    ) -> Result<(), Cause> {
        tokio::pin!(stop);
        let mut running = JoinSet::new();
        let mut schedule = Schedule::new(services, touched, MAX_RUNNING_SERVICES);
        let mut cause: Option<Cause> = None;
        loop {
            while let Some(name) = schedule.begin() {
                let Some(service) = services.get(&name).cloned() else { continue };
                let runner = self.clone();
                running.spawn(async move { (name, runner.service(&service, phases).await) });
            }
            let ended = tokio::select! {
                biased;
                ended = running.join_next() => ended,
                cause = &mut stop => {
                    running.shutdown().await;
                    return Err(cause);
                }
            };
            match ended {
                None => break,
                Some(Ok((name, outcome))) => {
                    schedule.end(&name, outcome.is_ok());
                    cause = cause.or(outcome.err());
                }
                // A task that broke off ran a service that can say nothing any more.
                Some(Err(error)) => {
                    cause.get_or_insert_with(|| Cause { reason: error.to_string(), output: String::new() });
                }
            }
        }
        let Some(mut cause) = cause else { return Ok(()) };
        let failed = schedule.ended().values().filter(|ended| **ended == Ended::Failed).count();
        if failed > 1 {
            cause.reason = format!("{} (and {} more)", cause.reason, failed - 1);
        }
        for (name, ended) in schedule.ended() {
            if let Ended::Skipped(before) = ended {
                tracing::warn!(service = %name, %before, "skipped, as what it waits for failed");
            }
        }
        Err(cause)
    }

    async fn service(&self, service: &Service, phases: &[Phase]) -> Result<(), Cause> {
        for hook in phases.iter().flat_map(|phase| service.hooks(*phase)) {
            self.hook(service, hook).await?;
        }
        Ok(())
    }

    async fn hook(&self, service: &Service, hook: &Hook) -> Result<(), Cause> {
        let Some(shared) = self.shared(hook) else { return self.run(service, hook).await };
        let outcome =
            shared.get_or_init(|| async { self.run(service, hook).await.map_err(|cause| cause.reason) });
        outcome.await.clone().map_err(|reason| Cause { reason, output: String::new() })
    }

    async fn run(&self, service: &Service, hook: &Hook) -> Result<(), Cause> {
        let begun = Instant::now();
        let (outcome, output) = perform(hook, &self.trees, self.newer.as_ref()).await;
        let run = HookRun {
            service: service.name.clone(),
            phase: hook.phase,
            what: hook.work.to_string(),
            failure: outcome.err().map(|error| error.to_string()),
            output,
            milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        (self.told)(&run);
        match run.failure {
            None => Ok(()),
            Some(_) => Err(Cause { reason: run.to_string(), output: run.output }),
        }
    }

    /// What is done once in an activation, by the same name for all who want it.
    fn shared(&self, hook: &Hook) -> Option<Shared> {
        let is_shared = matches!(hook.work, Work::Unit(..) | Work::Signal(..));
        if hook.phase != Phase::Activate || !is_shared {
            return None;
        }
        let mut once = self.once.lock().unwrap_or_else(PoisonError::into_inner);
        Some(once.entry(hook.work.to_string()).or_default().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast::service::WrittenServices;
    use serde::Deserialize;
    use std::path::Path;

    #[derive(Deserialize)]
    struct File {
        services: WrittenServices,
    }

    fn services(text: &str) -> (Services, BTreeSet<ServiceName>) {
        let services =
            Services::of(text, &rootcast::settings::parse::<File>(text).unwrap().services).unwrap();
        let all = services.iter().map(|service| service.name.clone()).collect();
        (services, all)
    }

    /// The events of a stage: each hook appends its name when it begins and when it ends.
    async fn events(text: &str, phases: &'static [Phase], home: &Path) -> (Result<(), Cause>, Vec<String>) {
        let (services, touched) = services(&text.replace("HOME", home.to_str().unwrap()));
        let trees = Trees { staged: home.into(), current: home.into() };
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = told.clone();
        let runner =
            Runner::new(trees, Arc::new(move |run: &HookRun| telling.lock().unwrap().push(run.to_string())));
        let outcome = runner.stage(&services, &touched, phases, std::future::pending()).await;
        drop(runner);
        let told = told.lock().unwrap().clone();
        (outcome, told)
    }

    /// Each waits for the other, which they can only do at the same time; the three of the chain do not.
    #[tokio::test]
    async fn s3_1_a_chain_runs_in_order_and_what_is_apart_at_the_same_time() {
        let home = tempfile::tempdir().unwrap();
        let meet = |own: &str, other: &str| {
            format!(
                "mkfifo HOME/{own} 2>/dev/null; : > HOME/{own}-here; while [ ! -e HOME/{other}-here ]; do sleep 0.01; done; echo {own} >> HOME/log"
            )
        };
        let service = |name: &str, after: &str, script: &str| {
            format!(
                "[services.{name}]\nfiles = ['x']\nafter = [{after}]\nactivate = [{{ command = ['{script}'], shell = true, environment = {{ PATH = '/usr/bin:/bin' }} }}]\n"
            )
        };
        let text = [
            service("a", "", &meet("a", "apart")),
            service("b", "'a'", "echo b >> HOME/log"),
            service("c", "'b'", "echo c >> HOME/log"),
            service("apart", "", &meet("apart", "a")),
        ];
        let (outcome, told) = events(&text.concat(), AFTER, home.path()).await;
        outcome.unwrap();
        assert_eq!(told.len(), 4);
        let log = std::fs::read_to_string(home.path().join("log")).unwrap();
        let chain: Vec<&str> = log.lines().filter(|line| *line != "apart").collect();
        assert_eq!(chain, ["a", "b", "c"], "{log}");
    }

    #[tokio::test]
    async fn s0_3_each_service_has_its_hooks_and_a_failure_skips_only_what_waits_for_it() {
        let home = tempfile::tempdir().unwrap();
        let text = "
            [services.a]
            files = ['x']
            validate = [{ command = ['/bin/true'] }]
            activate = [{ command = ['/bin/true', 'a'] }, { command = ['/bin/false'] }]
            check = [{ command = ['/bin/true', 'never'] }]
            [services.b]
            files = ['x']
            after = ['a']
            activate = [{ command = ['/bin/true', 'b'] }]
            [services.c]
            files = ['x']
            activate = [{ command = ['/bin/true', 'c'] }]
            post = [{ command = ['/bin/true', 'post'] }]
        ";
        let (outcome, mut told) = events(text, AFTER, home.path()).await;
        assert_eq!(outcome.unwrap_err().reason, "activate of a: /bin/false: ended with code 1");
        told.sort();
        let expected = [
            "activate of a: /bin/false: ended with code 1",
            "activate of a: /bin/true a",
            "activate of c: /bin/true c",
            "post of c: /bin/true post",
        ];
        assert_eq!(told, expected);
        assert_eq!(events(text, VALIDATE, home.path()).await.1, ["validate of a: /bin/true"]);
    }

    #[tokio::test]
    async fn a_41_the_same_signal_is_sent_once() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("log");
        let script =
            format!("trap 'echo hup >> {0}' HUP; echo up > {0}; while :; do sleep 0.01; done", log.display());
        let mut daemon = std::process::Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
        std::fs::write(home.path().join("pid"), daemon.id().to_string()).unwrap();
        while !std::fs::read_to_string(&log).is_ok_and(|text| text == "up\n") {
            tokio::task::yield_now().await;
        }
        let service = |name: &str| {
            format!(
                "[services.{name}]\nfiles = ['x']\nactivate = [{{ signal = 'HUP', pid_file = 'HOME/pid' }}]\n"
            )
        };
        let text = ["a", "b", "c"].map(service).concat();
        let (outcome, told) = events(&text, AFTER, home.path()).await;
        outcome.unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
    }
}
