//! Which commits are measured.

use crate::error::BenchError;
use rootcast_bundler::source::Source;
use std::path::Path;

/// Most samples of mode cold: each is a whole tree, and they are much alike.
const COLD_SAMPLES: usize = 3;

/// A step from one commit to a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// What the client holds; nothing at all in mode cold.
    pub(crate) from: Option<String>,
    /// The commits after it, first parents each; the last is what it gets.
    pub(crate) commits: Vec<String>,
}

impl Pair {
    /// What the client gets.
    pub(crate) fn to(&self) -> &str {
        self.commits.last().map_or("", String::as_str)
    }
}

/// What to sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// How many.
    pub(crate) steps: usize,
    /// Commits between two.
    pub(crate) every: usize,
    /// Commits that each spans.
    pub(crate) span: usize,
}

impl Wanted {
    /// Commits that this needs.
    fn commits(self) -> usize {
        (self.steps - 1).saturating_mul(self.every).saturating_add(self.span).saturating_add(1)
    }
}

/// A history along first parents, oldest first.
#[derive(Debug, Clone)]
pub(crate) struct History(Vec<String>);

impl History {
    /// Reads as much of the history as the samples need.
    ///
    /// # Errors
    /// When it is no git repository, or cannot be read.
    pub(crate) fn read(repository: &Path, wanted: &[Wanted]) -> Result<Self, BenchError> {
        let source = Source::open(repository, None)?;
        if source.commit().is_empty() {
            let message = format!("--repo: {} is the root of no git repository", repository.display());
            return Err(BenchError::Usage(message));
        }
        let count = wanted.iter().map(|wanted| wanted.commits()).max().unwrap_or(1);
        Ok(Self(source.first_parents(count)?.iter().map(hex::encode).collect()))
    }

    /// The newest commit.
    pub(crate) fn head(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// Samples, oldest first, the last one ending at the newest commit; and what
    /// is to be said where there are fewer than asked for, or shorter ones.
    pub(crate) fn sample(&self, wanted: Wanted) -> (Vec<Pair>, Option<String>) {
        let length = self.0.len();
        let span = wanted.span.min(length.saturating_sub(1));
        let indices = indices(length, Wanted { span, ..wanted });
        let pairs: Vec<Pair> = indices
            .iter()
            .filter_map(|(from, to)| {
                let commits = self.0.get(from + 1..=*to)?.to_vec();
                Some(Pair { from: self.0.get(*from).cloned(), commits })
            })
            .collect();
        let plural =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let note = (pairs.len() < wanted.steps || span < wanted.span).then(|| {
            format!(
                "asked for {} of {}, {} apart; the history has {} along first parents, so there {} {} of {}",
                plural(wanted.steps, "sample"),
                plural(wanted.span, "commit"),
                wanted.every,
                plural(length, "commit"),
                if pairs.len() == 1 { "is" } else { "are" },
                pairs.len(),
                plural(span, "commit"),
            )
        });
        (pairs, note)
    }

    /// Commits for empty clients: the newest, and a few of those sampled before it.
    pub(crate) fn sample_cold(&self, wanted: Wanted) -> Vec<Pair> {
        let last = self.0.len().saturating_sub(1);
        let reach = (wanted.steps - 1).saturating_mul(wanted.every).min(last);
        let count = COLD_SAMPLES.min(wanted.steps).min(reach + 1);
        let back = |sample: usize| reach * (count - 1 - sample) / (count - 1).max(1);
        let at = (0..count).filter_map(|sample| self.0.get(last - back(sample)).cloned());
        at.map(|commit| Pair { from: None, commits: vec![commit] }).collect()
    }
}

/// Indices into a history of `length`, oldest pair first.
fn indices(length: usize, wanted: Wanted) -> Vec<(usize, usize)> {
    let Some(last) = length.checked_sub(1).filter(|_| wanted.span > 0) else { return Vec::new() };
    let back = |step: usize| Some((step, last.checked_sub(step.checked_mul(wanted.every)?)?));
    let mut pairs: Vec<(usize, usize)> = (0..wanted.steps)
        .map_while(back)
        .map_while(|(_, to)| Some((to.checked_sub(wanted.span)?, to)))
        .collect();
    pairs.reverse();
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(length: usize) -> History {
        History((0..length).map(|number| number.to_string()).collect())
    }

    #[test]
    fn pairs_end_at_the_newest_and_are_as_far_apart_as_asked() {
        let wanted = Wanted { steps: 3, every: 4, span: 1 };
        assert_eq!(indices(100, wanted), [(90, 91), (94, 95), (98, 99)]);
        assert_eq!(wanted.commits(), 10);
        assert_eq!(indices(10, wanted), [(0, 1), (4, 5), (8, 9)]);
        let jump = Wanted { steps: 2, every: 1, span: 5 };
        assert_eq!(indices(100, jump), [(93, 98), (94, 99)]);
        let (pairs, note) = history(100).sample(jump);
        assert_eq!(note, None);
        assert_eq!(pairs[0].from.as_deref(), Some("93"));
        assert_eq!(pairs[0].commits, ["94", "95", "96", "97", "98"]);
        assert_eq!(pairs[1].to(), "99");
    }

    #[test]
    fn a_short_history_gives_what_it_has_and_says_so() {
        let (pairs, note) = history(3).sample(Wanted { steps: 40, every: 1, span: 1 });
        assert_eq!(pairs.len(), 2);
        assert!(note.unwrap().contains("3 commits along first parents, so there are 2 of 1 commit"));
        let (pairs, note) = history(3).sample(Wanted { steps: 1, every: 1, span: 10 });
        assert_eq!((pairs.len(), pairs[0].commits.len()), (1, 2));
        assert!(note.unwrap().contains("so there is 1 of 2 commits"));
    }

    #[test]
    fn a_root_commit_alone_is_cold_only() {
        let wanted = Wanted { steps: 4, every: 2, span: 1 };
        let (pairs, note) = history(1).sample(wanted);
        assert!(pairs.is_empty() && note.is_some());
        let cold = history(1).sample_cold(wanted);
        assert_eq!(cold.len(), 1);
        assert_eq!((cold[0].from.as_ref(), cold[0].to()), (None, "0"));
    }

    #[test]
    fn cold_samples_are_spread_and_end_at_the_newest() {
        let to = |wanted| -> Vec<String> {
            history(100).sample_cold(wanted).iter().map(|pair| pair.to().to_owned()).collect()
        };
        assert_eq!(to(Wanted { steps: 11, every: 2, span: 1 }), ["79", "89", "99"]);
        assert_eq!(to(Wanted { steps: 2, every: 1, span: 1 }), ["98", "99"]);
        assert_eq!(to(Wanted { steps: 1, every: 1, span: 1 }), ["99"]);
        assert_eq!(to(Wanted { steps: 1000, every: 1, span: 1 }), ["0", "50", "99"]);
    }
}
