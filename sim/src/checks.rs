//! What must hold at every moment. A checker that finds otherwise notes a violation; the run goes on.

use rootcast::acceptance::{Accepted, Floors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);
/// How long after its trouble a node counts as well.
const WELL: Duration = Duration::from_secs(60);

/// Content by path.
pub type Files = BTreeMap<String, String>;
/// What was published under a number, by bundle.
pub type Bundles = BTreeMap<String, Files>;

/// The rules, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A host shows nothing that was not published, and all of one release.
    Active,
    /// Nobody holds a release that the origin did not make durable before.
    Held,
    /// Floors never go back.
    Floors,
    /// Release numbers are shown in order.
    Order,
    /// What the origin sends is bounded by its direct children.
    Origin,
    /// A slow child delays nobody but itself.
    Prompt,
    /// After healing all hosts have the newest release.
    Converges,
    /// After healing hosts and relays go home.
    Home,
    /// After healing the origin counts every host once, where and as it is.
    Status,
    /// After healing no store is damaged.
    Whole,
}

impl Rule {
    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Held => "held",
            Self::Floors => "floors",
            Self::Order => "order",
            Self::Origin => "origin",
            Self::Prompt => "prompt",
            Self::Converges => "converges",
            Self::Home => "home",
            Self::Status => "status",
            Self::Whole => "whole",
        }
    }
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, since the beginning.
    pub at: Duration,
    /// Which.
    pub rule: Rule,
    /// By whom, and how.
    pub what: String,
}

/// What a host must show: its layers, the later over the earlier.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its bundles, in the order of layers.
    pub layers: Vec<String>,
    /// Where `current` is.
    pub live: PathBuf,
}

/// The relays that are nearer to a node than the origin.
#[derive(Debug, Clone, Default)]
pub struct Nearer {
    /// Those that should be its parents.
    pub homes: Vec<usize>,
    /// Those above these.
    pub above: Vec<usize>,
}

#[derive(Debug, Default)]
struct Known {
    /// What may be under a number: an attempt whose end is not known may be followed by another.
    published: BTreeMap<u64, Vec<Bundles>>,
    /// What the origin made durable.
    durable: BTreeMap<u64, Accepted>,
    floors: BTreeMap<(usize, PathBuf), Floors>,
    active: BTreeMap<usize, u64>,
    /// When each host showed a number first.
    shown: BTreeMap<(usize, u64), Instant>,
    hosts: BTreeMap<usize, Host>,
    violations: Vec<Violation>,
    shown_files: u64,
    /// Until when something was wrong with a node, by the node that it comes from; far ahead while it is.
    troubled: BTreeMap<(usize, usize), Instant>,
    /// When the origin made each release durable.
    durable_at: BTreeMap<u64, Instant>,
    /// Whom each node followed last, and whether it still does.
    parents: BTreeMap<usize, (usize, bool)>,
    /// When each node last lost a parent.
    lost_at: BTreeMap<usize, Instant>,
    /// Sessions with the origin that were begun.
    origin_sessions: u64,
}

/// All checkers.
#[derive(Debug)]
pub struct Checks {
    begun: Instant,
    origin: usize,
    known: Mutex<Known>,
}

impl Checks {
    /// Checkers of a tree with this origin; times count from now.
    pub fn new(origin: usize) -> Self {
        Self { begun: Instant::now(), origin, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a violation.
    pub fn violated(&self, rule: Rule, what: String) {
        let violation = Violation { at: self.begun.elapsed(), rule, what };
        tracing::error!(?violation, "VIOLATION");
        self.known().violations.push(violation);
    }

    /// All violations so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.known().violations.clone()
    }

    /// How many files were compared with what was published.
    pub fn files_compared(&self) -> u64 {
        self.known().shown_files
    }

    /// Says what a host must show.
    pub fn add_host(&self, node: usize, host: Host) {
        self.known().hosts.insert(node, host);
    }

    /// Says what is about to be published under a number.
    pub fn publishes(&self, number: u64, bundles: Bundles) {
        self.known().published.entry(number).or_default().push(bundles);
    }

    /// The newest number that the origin made durable; 0 before the first.
    pub fn newest(&self) -> u64 {
        self.known().durable.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// The number that a host showed last; 0 before the first.
    pub fn active(&self, node: usize) -> u64 {
        self.known().active.get(&node).copied().unwrap_or(0)
    }

    /// When a host showed a number first.
    pub fn shown_at(&self, node: usize, number: u64) -> Option<Instant> {
        self.known().shown.get(&(node, number)).copied()
    }

    /// When the origin made a release durable.
    pub fn durable_at(&self, number: u64) -> Option<Instant> {
        self.known().durable_at.get(&number).copied()
    }

    /// Says that something is wrong with a node, or is no more. `cause`: the node whose fault it is.
    pub fn set_troubled(&self, node: usize, cause: usize, troubled: bool) {
        let now = Instant::now();
        let until = if troubled { now + FOR_EVER } else { now };
        self.known().troubled.insert((node, cause), until);
    }

    /// Whether nothing was wrong with a node for long.
    fn is_well(&self, node: usize) -> bool {
        let now = Instant::now();
        let known = self.known();
        known.troubled.range((node, 0)..=(node, usize::MAX)).all(|(_, until)| *until + WELL <= now)
    }

    /// A node has begun a session with a parent. With the origin it has no reason to where relays are
    /// `nearer` and the ways to one of its homes have been well for long, but as a step from one farther off.
    pub fn follows(&self, node: usize, parent: usize, nearer: &Nearer) {
        let before = self.known().parents.insert(node, (parent, true)).map(|(before, _)| before);
        if parent != self.origin {
            return;
        }
        self.known().origin_sessions += 1;
        let Nearer { homes, above } = nearer;
        let is_way = |node: &usize| *node == self.origin || above.contains(node);
        let parent_of = |node: &usize| self.known().parents.get(node).map(|(parent, _)| *parent);
        // A relay that is not home itself may have nothing to give.
        let leads =
            |relay: &usize| self.is_well(*relay) && parent_of(relay).is_some_and(|parent| is_way(&parent));
        let is_step = before.is_some_and(|before| !is_way(&before) && !homes.contains(&before));
        let is_excused =
            is_step || !above.iter().all(leads) || !self.is_well(self.origin) || !self.is_well(node);
        if let Some(home) = homes.iter().find(|home| leads(home)).filter(|_| !is_excused) {
            self.violated(
                Rule::Origin,
                format!("node {node} follows the origin, and its relay {home} is well"),
            );
        }
    }

    /// A node has lost a parent.
    pub fn lost(&self, node: usize, parent: usize) {
        self.known().lost_at.insert(node, Instant::now());
        if let Some((before, follows)) = self.known().parents.get_mut(&node) {
            *follows &= *before != parent;
        }
    }

    /// When a node last lost a parent.
    pub fn lost_at(&self, node: usize) -> Option<Instant> {
        self.known().lost_at.get(&node).copied()
    }

    /// Whom a node follows.
    pub fn parent(&self, node: usize) -> Option<usize> {
        self.known().parents.get(&node).filter(|(_, follows)| *follows).map(|(parent, _)| *parent)
    }

    /// Whether a node follows one of its homes, and the origin where it has none.
    pub fn is_home(&self, node: usize, nearer: &Nearer) -> bool {
        self.parent(node).is_some_and(|parent| {
            if nearer.homes.is_empty() { parent == self.origin } else { nearer.homes.contains(&parent) }
        })
    }

    /// Sessions with the origin so far.
    pub fn origin_sessions(&self) -> u64 {
        self.known().origin_sessions
    }

    /// Looks at the floors of a store that was opened.
    pub fn floors(&self, node: usize, directory: &Path, floors: &Floors) {
        let key = (node, directory.to_owned());
        let before = self.known().floors.get(&key).copied();
        if let Some(before) = before.filter(|before| !before.may_become(floors)) {
            let what = format!("node {node}: from {} to {}", told(&before), told(floors));
            self.violated(Rule::Floors, what);
        }
        self.known().floors.insert(key, *floors);
    }

    /// Looks at a commit that went through.
    pub fn committed(&self, node: usize, directory: &Path, floors: &Floors) {
        self.floors(node, directory, floors);
        let Some(accepted) = floors.release else { return };
        if node == self.origin {
            self.known().durable_at.entry(accepted.number).or_insert_with(Instant::now);
            let before = self.known().durable.insert(accepted.number, accepted);
            if before.is_some_and(|before| before.hash != accepted.hash) {
                self.violated(Rule::Held, format!("the origin holds two releases {}", accepted.number));
            }
            return;
        }
        let durable = self.known().durable.get(&accepted.number).copied();
        if durable.is_none_or(|durable| durable.hash != accepted.hash) {
            let what = format!("node {node} holds a release {} that the origin does not", accepted.number);
            self.violated(Rule::Held, what);
        }
    }

    /// A host says that it shows a release: looks at its number and at its files.
    pub fn shows(&self, node: usize, number: u64) {
        let before = self.known().active.insert(node, number).unwrap_or(0);
        if number < before {
            self.violated(Rule::Order, format!("node {node} shows {number} after {before}"));
        }
        self.known().shown.entry((node, number)).or_insert_with(Instant::now);
        self.look(node, Some(number));
    }

    /// Compares what a host shows with what was published: under this number, or
    /// under any from the one that it showed last.
    pub fn look(&self, node: usize, number: Option<u64>) {
        let Some(host) = self.known().hosts.get(&node).cloned() else { return };
        let files = match read_all(&host.live.join("current")) {
            Ok(files) => files,
            Err(error) => {
                // Before its first release a host shows nothing.
                if self.active(node) > 0 {
                    self.violated(Rule::Active, format!("node {node}: `current` cannot be read: {error}"));
                }
                return;
            }
        };
        self.known().shown_files += files.len() as u64;
        let least = number.unwrap_or_else(|| self.active(node));
        let most = number.unwrap_or(u64::MAX);
        let is_one = {
            let known = self.known();
            known
                .published
                .range(least..=most)
                .flat_map(|(_, all)| all)
                .any(|bundles| view(bundles, &host) == files)
        };
        if !is_one {
            let what = format!("node {node} shows {} files that are no release from {least}", files.len());
            self.violated(Rule::Active, what);
        }
    }
}

fn told(floors: &Floors) -> String {
    let Floors { trust_version, head_epoch, head_sequence, .. } = floors;
    format!("trust {trust_version}, head {head_epoch}.{head_sequence}, release {}", floors.number())
}

/// What a host shows of a release: said again in four lines, so that it is compared with
/// another statement of the rule than the product's.
fn view(bundles: &Bundles, host: &Host) -> Files {
    let mut view = Files::new();
    for layer in &host.layers {
        view.extend(
            bundles.get(layer).into_iter().flatten().map(|(path, text)| (path.clone(), text.clone())),
        );
    }
    view
}

/// All files below a directory.
fn read_all(directory: &Path) -> std::io::Result<Files> {
    let mut files = Files::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in std::fs::read_dir(&at)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap_or(&path).to_string_lossy().into_owned();
                files.insert(name, String::from_utf8_lossy(&std::fs::read(&path)?).into_owned());
            }
        }
    }
    Ok(files)
}
