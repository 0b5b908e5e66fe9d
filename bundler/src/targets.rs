//! What the settings name of hosts' files, and whether any host has it (specs/configuration.md, F-99).

use rootcast::limits::MAX_REFUSALS_NAMED;
use rootcast::path::ConfigPath;
use rootcast::pattern::Pattern;
use rootcast::settings::{SettingsError, Spanned, near};
use std::collections::BTreeSet;

/// How many names that are near are tried in the place of one.
const NEAR_TRIED: usize = 8;

/// A file that a release delivers.
#[derive(Debug, Clone)]
pub(crate) struct Delivered {
    /// Where it is, from the source's root.
    pub(crate) source: ConfigPath,
    /// Where it is on hosts.
    pub(crate) path: ConfigPath,
    /// Whether a host that the settings know has it; where they know none, any host.
    pub(crate) is_known: bool,
    /// Whether it is a link, beneath which there may be more.
    pub(crate) is_link: bool,
}

/// What is named.
#[derive(Debug, Clone)]
enum Aim {
    /// All files under a pattern.
    Under(Pattern),
    /// A file, or all that is beneath a directory.
    At(ConfigPath),
}

impl Aim {
    fn names(&self, file: &ConfigPath) -> bool {
        match self {
            Self::Under(pattern) => pattern.matches(file.as_str()),
            Self::At(path) => path == file || path.is_above(file),
        }
    }

    fn hits(&self, file: &Delivered) -> bool {
        let beneath_link = |path: &ConfigPath| file.is_link && file.path.is_above(path);
        self.names(&file.path) || matches!(self, Self::At(path) if beneath_link(path))
    }

    /// The same with another text, if that is one.
    fn with(&self, text: &str) -> Option<Self> {
        match self {
            Self::Under(_) => Pattern::new(text).ok().map(Self::Under),
            Self::At(_) => ConfigPath::new(text).ok().map(Self::At),
        }
    }
}

/// Something that the settings name.
#[derive(Debug, Clone)]
struct Target {
    aim: Aim,
    /// What does not happen where no host has it.
    effect: String,
    /// Its place in the settings.
    place: SettingsError,
}

/// All that the settings name of hosts' files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets(Vec<Target>);

/// It says where settings stand that are compared themselves, which is no matter for what they make.
impl PartialEq for Targets {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Targets {}

impl Targets {
    /// Takes in a pattern that was judged already.
    pub(crate) fn pattern(&mut self, text: &str, written: &Spanned<String>, effect: String) {
        if let Ok(pattern) = Pattern::new(written.get_ref()) {
            self.add(text, written, Aim::Under(pattern), effect);
        }
    }

    /// Takes in a file or directory that was judged already.
    pub(crate) fn path(&mut self, text: &str, written: &Spanned<String>, effect: String) {
        if let Ok(path) = ConfigPath::new(written.get_ref()) {
            self.add(text, written, Aim::At(path), effect);
        }
    }

    fn add(&mut self, text: &str, written: &Spanned<String>, aim: Aim, effect: String) {
        let place = SettingsError::at(text, written.span().start, String::new());
        self.0.push(Target { aim, effect, place });
    }

    /// Whether nothing is named.
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a path of a host is among what is named.
    pub(crate) fn have(&self, path: &ConfigPath) -> bool {
        self.0.iter().any(|target| target.aim.names(path))
    }

    /// What no known host has any file for: most likely a slip.
    pub(crate) fn missed(&self, files: &[Delivered], knows_hosts: bool) -> Vec<SettingsError> {
        let mut missed: Vec<&Target> = self.0.iter().collect();
        for file in files.iter().filter(|file| file.is_known) {
            missed.retain(|target| !target.aim.hits(file));
        }
        let near = Near::of(files);
        let told = missed.into_iter().enumerate().map(|(at, target)| {
            let other = files.iter().find(|file| target.aim.hits(file));
            let who = if knows_hosts { "no host of [hosts]" } else { "no host" };
            let (written, kind) = match &target.aim {
                Aim::Under(pattern) => (pattern.as_str(), "under"),
                Aim::At(path) => (path.as_str(), "at"),
            };
            let others = other.map_or_else(String::new, |file| format!(" (others have `{}`)", file.source));
            let (text, effect) = (written.escape_debug(), &target.effect);
            let message = format!("{who} has a file {kind} `{text}`{others}, so {effect}");
            // To look for what is near costs more than to look for what is there.
            let suggestion =
                (other.is_none() && at < MAX_REFUSALS_NAMED).then(|| near.to(&target.aim, written));
            SettingsError { message, suggestion: suggestion.flatten(), ..target.place.clone() }
        });
        told.collect()
    }
}

/// Files among which what was meant is looked for.
struct Near<'f> {
    files: &'f [Delivered],
    /// All names of files and directories.
    names: Vec<&'f str>,
}

impl<'f> Near<'f> {
    fn of(files: &'f [Delivered]) -> Self {
        let names: BTreeSet<&str> = files.iter().flat_map(|file| file.path.segments()).collect();
        Self { files, names: names.into_iter().collect() }
    }

    /// What was most likely meant by what no file is under: it is under this.
    fn to(&self, aim: &Aim, written: &str) -> Option<String> {
        let segments: Vec<&str> = written.split('/').collect();
        let ways = [Self::without_layer, Self::mistyped, Self::deeper];
        let mut ways = ways.into_iter().flat_map(|way| way(self, aim, &segments));
        ways.find(|text| aim.with(text).is_some_and(|aim| self.files.iter().any(|file| aim.hits(file))))
    }

    /// Where the file is in the source, and not on hosts.
    fn without_layer(&self, aim: &Aim, segments: &[&str]) -> Vec<String> {
        let in_source = |file: &&Delivered| file.source != file.path && aim.names(&file.source);
        let found = self.files.iter().find(in_source).and_then(|file| {
            let layer = file.source.segments().count() - file.path.segments().count();
            segments.get(layer..)
        });
        found.map(|rest| rest.join("/")).into_iter().collect()
    }

    /// With one of its names as a file or directory is called.
    fn mistyped(&self, _: &Aim, segments: &[&str]) -> Vec<String> {
        let corrected = |(at, name): (usize, &&str)| {
            let names = near(name, &self.names).into_iter().take(NEAR_TRIED);
            let with = |name| {
                segments.iter().enumerate().map(move |(other, old)| if other == at { name } else { *old })
            };
            names.map(|name| with(name).collect::<Vec<_>>().join("/")).collect::<Vec<_>>()
        };
        segments.iter().enumerate().flat_map(corrected).collect()
    }

    /// In some directory.
    fn deeper(&self, aim: &Aim, segments: &[&str]) -> Vec<String> {
        let written = segments.join("/");
        if matches!(aim, Aim::Under(_)) {
            return vec![format!("{written}/**"), format!("**/{written}")];
        }
        let inside = format!("/{written}/");
        let found = self.files.iter().find_map(|file| {
            let path = format!("{}/", file.path);
            let end = path.find(&inside)? + inside.len() - 1;
            path.get(..end).map(str::to_owned)
        });
        found.into_iter().collect()
    }
}
