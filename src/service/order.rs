//! The order of services: what waits for what, what may run at once, what a failure skips.

use super::{ServiceName, Services};
use std::collections::{BTreeMap, BTreeSet};

/// A cycle among services, as `a, b, a`; `None` where there is none (F-92).
pub fn cycle(services: &Services) -> Option<Vec<ServiceName>> {
    let mut done: BTreeSet<&ServiceName> = BTreeSet::new();
    for start in services.iter() {
        // The way from `start` to where the walk is, and at each step what is still to be walked.
        let mut way = vec![(&start.name, start.after.iter())];
        if done.contains(&start.name) {
            continue;
        }
        while let Some((name, rest)) = way.last_mut() {
            let Some(next) = rest.next() else {
                done.insert(*name);
                way.pop();
                continue;
            };
            if let Some(at) = way.iter().position(|(name, _)| *name == next) {
                let names = way.iter().skip(at).map(|(name, _)| (*name).clone());
                return Some(names.chain([next.clone()]).collect());
            }
            if let Some(service) = services.get(next).filter(|service| !done.contains(&service.name)) {
                way.push((&service.name, service.after.iter()));
            }
        }
    }
    None
}

/// How it ended with a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// All its hooks were good.
    Done,
    /// One was not.
    Failed,
    /// It did not run, as this one before it failed.
    Skipped(ServiceName),
}

/// The services of one activation, as they run: each after those before it, the others at once (F-92).
#[derive(Debug, Clone)]
pub struct Schedule {
    /// What each that has not begun waits for.
    waiting: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    running: BTreeSet<ServiceName>,
    ended: BTreeMap<ServiceName, Ended>,
    most: usize,
}

impl Schedule {
    /// A schedule of `touched` services, of which at most `most` run at once. One that does
    /// not run passes on what it waits for.
    pub fn new(services: &Services, touched: &BTreeSet<ServiceName>, most: usize) -> Self {
        let waiting = touched.iter().filter_map(|name| {
            let mut before = BTreeSet::new();
            let mut seen = BTreeSet::new();
            let mut pending: Vec<&ServiceName> = services.get(name)?.after.iter().collect();
            while let Some(next) = pending.pop() {
                if !seen.insert(next) {
                    continue;
                }
                if touched.contains(next) {
                    before.insert(next.clone());
                } else if let Some(service) = services.get(next) {
                    pending.extend(&service.after);
                }
            }
            Some((name.clone(), before))
        });
        Self {
            waiting: waiting.collect(),
            running: BTreeSet::new(),
            ended: BTreeMap::new(),
            most: most.max(1),
        }
    }

    /// The next service that may begin; it runs from then on.
    pub fn begin(&mut self) -> Option<ServiceName> {
        if self.running.len() >= self.most {
            return None;
        }
        let (name, _) = self.waiting.iter().find(|(_, before)| before.is_empty())?;
        let name = name.clone();
        self.waiting.remove(&name);
        self.running.insert(name.clone());
        Some(name)
    }

    /// Takes how a running service ended. After a failure all that wait for it, at whatever
    /// remove, are skipped.
    pub fn end(&mut self, name: &ServiceName, is_good: bool) {
        if !self.running.remove(name) {
            return;
        }
        if is_good {
            self.ended.insert(name.clone(), Ended::Done);
            for before in self.waiting.values_mut() {
                before.remove(name);
            }
            return;
        }
        self.ended.insert(name.clone(), Ended::Failed);
        let mut gone = vec![name.clone()];
        while let Some(failed) = gone.pop() {
            let skipped = self.waiting.iter().filter(|(_, before)| before.contains(&failed));
            let skipped: Vec<ServiceName> = skipped.map(|(skipped, _)| skipped.clone()).collect();
            for skipped in skipped {
                self.waiting.remove(&skipped);
                self.ended.insert(skipped.clone(), Ended::Skipped(failed.clone()));
                gone.push(skipped);
            }
        }
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_over(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// How it ended with those that have.
    pub fn ended(&self) -> &BTreeMap<ServiceName, Ended> {
        &self.ended
    }
}
