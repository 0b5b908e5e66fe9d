//! What watchers are told: one event for each generation (LA-7, LA-8).

use hyper::body::Bytes;
use rootcast::limits::{KEPT_CHANGES, LOCAL_KEEP_ALIVE, LOCAL_STUCK};
use serde_json::json;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// A view that is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its number on this host.
    pub number: u64,
    /// When it became live, in seconds since 1970.
    pub since: u64,
    /// When its release was made, in seconds since 1970, as far as that is known.
    pub issued: Option<u64>,
}

/// What another generation changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    from: u64,
    to: u64,
    /// None where it is not known, or is too many.
    paths: Option<Arc<[Box<str>]>>,
}

/// What is live, and what the last few generations changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Generations {
    current: Option<Generation>,
    steps: VecDeque<Step>,
}

impl Generations {
    /// What is live.
    pub fn current(&self) -> Option<&Generation> {
        self.current.as_ref()
    }

    /// What is live now. `paths` is what differs from what was before; none where that is not known. Whether it
    /// is another one: a release that changes nothing here is none.
    pub fn push(&mut self, next: Generation, paths: Option<Vec<Box<str>>>) -> bool {
        if let Some(current) = self.current.as_mut().filter(|current| current.number == next.number) {
            current.issued = next.issued;
            return false;
        }
        let from = self.current.as_ref().map_or(0, |before| before.number);
        let step = Step { from, to: next.number, paths: paths.map(Into::into) };
        self.current = Some(next);
        self.steps.push_back(step);
        if self.steps.len() > KEPT_CHANGES {
            self.steps.pop_front();
        }
        true
    }

    /// What differs between a generation and what is live; none where that is not known.
    fn changed_since(&self, number: u64) -> Option<BTreeSet<&str>> {
        let current = self.current.as_ref()?.number;
        if number == current {
            return Some(BTreeSet::new());
        }
        // The newest way from there: a number may come back.
        let begin = self.steps.iter().rposition(|step| step.from == number)?;
        let mut changed = BTreeSet::new();
        for step in self.steps.iter().skip(begin) {
            changed.extend(step.paths.as_ref()?.iter().map(|path| &**path));
        }
        Some(changed)
    }

    /// The event for who knows `before`.
    fn event(&self, before: Option<u64>) -> Option<Bytes> {
        let current = self.current.as_ref()?;
        let changed = before.and_then(|before| self.changed_since(before));
        let data = json!({ "generation": current.number, "changed": changed });
        Some(format!("id: {}\nevent: generation\ndata: {data}\n\n", current.number).into())
    }
}

/// Sends an event for what is live, unless that is `after`, and then for each generation. Who is slow is told
/// of the newest only. Ends when the watcher has left, or takes nothing for [`LOCAL_STUCK`].
pub(super) async fn send(
    mut generations: watch::Receiver<Generations>,
    after: Option<u64>,
    sender: mpsc::Sender<Bytes>,
) {
    let mut told = after;
    loop {
        let event = {
            let now = generations.borrow_and_update();
            // After the agent has started nothing is live for a moment, and then what was before.
            let is_news = now.current.is_some() && told != Some(now.number());
            let event = if is_news { now.event(told) } else { None };
            if event.is_some() {
                told = Some(now.number());
            }
            event
        };
        if let Some(event) = event {
            match tokio::time::timeout(LOCAL_STUCK, sender.send(event)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
        loop {
            tokio::select! {
                biased;
                () = sender.closed() => return,
                changed = generations.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = tokio::time::sleep(LOCAL_KEEP_ALIVE) => {
                    let line = Bytes::from_static(b": \n\n");
                    match tokio::time::timeout(LOCAL_STUCK, sender.send(line)).await {
                        Ok(Ok(())) => {}
                        _ => return,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(number: u64) -> Generation {
        Generation { number, since: 1, issued: Some(1) }
    }

    fn text(event: Option<Bytes>) -> String {
        String::from_utf8(event.unwrap().to_vec()).unwrap()
    }

    #[test]
    fn la_7_an_event_says_what_changed_since_what_the_watcher_knows_or_that_it_is_not_known() {
        let mut generations = Generations::default();
        assert_eq!(generations.event(None), None, "nothing is live");
        generations.push(generation(4), None);
        assert!(text(generations.event(None)).contains(r#""changed":null"#));
        generations.push(generation(5), Some(vec!["b".into(), "a".into()]));
        generations.push(generation(6), Some(vec!["c".into()]));
        assert!(text(generations.event(Some(4))).contains(r#""changed":["a","b","c"]"#));
        assert!(text(generations.event(Some(5))).starts_with("id: 6\nevent: generation\n"));
        assert!(text(generations.event(Some(3))).contains(r#""changed":null"#));
        // A rollback, and forward again.
        generations.push(generation(5), Some(vec!["c".into()]));
        assert!(text(generations.event(Some(6))).contains(r#""changed":["c"]"#));
        generations.push(generation(7), None);
        assert!(text(generations.event(Some(5))).contains(r#""changed":null"#), "too much changed");
        for number in 8..100 {
            generations.push(generation(number), Some(vec!["x".into()]));
        }
        assert_eq!(generations.steps.len(), KEPT_CHANGES);
    }

    #[tokio::test(start_paused = true)]
    async fn la_8_a_slow_watcher_gets_the_newest_only_and_one_that_is_stuck_is_left() {
        let live = watch::Sender::new(Generations::default());
        live.send_if_modified(|live| live.push(generation(1), None));
        let (sender, mut events) = mpsc::channel(1);
        let sending = tokio::spawn(send(live.subscribe(), Some(1), sender));
        tokio::task::yield_now().await;
        for number in 2..50 {
            live.send_if_modified(|live| live.push(generation(number), Some(vec!["x".into()])));
            tokio::task::yield_now().await;
        }
        // The second was on its way already; all between are one.
        assert!(text(events.recv().await).starts_with("id: 2\n"));
        let mut last = String::new();
        for _ in 0..2 {
            last = text(events.recv().await);
        }
        assert!(last.starts_with("id: 49\n"), "{last}");
        // It takes nothing any more.
        live.send_if_modified(|live| live.push(generation(50), None));
        tokio::task::yield_now().await;
        live.send_if_modified(|live| live.push(generation(51), None));
        sending.await.unwrap();
    }
}
