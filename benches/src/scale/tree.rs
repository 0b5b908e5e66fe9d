//! Synthetic configuration trees: the same for the same number, nested as
//! directories of services are, and written as a git history.

use super::ScaleError;
use clap::ValueEnum;
use rootcast_bundler::config::CONFIG_FILE;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Commits after the first, each with one line of one file changed. One more changes every file.
pub(super) const CHANGES: u64 = 40;

/// Files of one directory.
const DIRECTORY: u64 = 40;
/// Directories of one team.
const TEAM: u64 = 50;

/// Numbers that follow from a seed alone.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end.max(1)
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let at = self.below(words.len() as u64) as usize;
        words.get(at).copied().unwrap_or_default()
    }
}

/// Bytes of a file at least and at most: smaller ones where there are very many.
fn sizes(files: u64) -> (u64, u64) {
    if files > 200_000 { (64, 512) } else { (200, 4000) }
}

/// How the files of a tree lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// In directories of services, below those of teams; one bundle.
    Nested,
    /// All in one directory; one bundle.
    Flat,
    /// In layers that are a bundle each; a tenth of the files in each of two, the others in `base`.
    Layers,
}

/// The settings of a tree of [`Shape::Layers`].
const LAYERS: &[u8] = b"layers = ['base', 'region/{region}', 'role/{role}']\n";

impl Shape {
    /// The path of the file with this number.
    pub(crate) fn path(self, number: u64) -> String {
        let (directory, ending) =
            (number / DIRECTORY, if number.is_multiple_of(3) { "yaml" } else { "conf" });
        let (team, part) = (directory / TEAM, number % DIRECTORY);
        let layer = match (self, number % 10) {
            (Self::Flat, _) => {
                return format!("team-{team:03}-service-{directory:05}-part-{part:02}.{ending}");
            }
            (Self::Nested, _) => "",
            (Self::Layers, 0) => "region/eu/",
            (Self::Layers, 1) => "role/web/",
            (Self::Layers, _) => "base/",
        };
        format!("{layer}team-{team:03}/service-{directory:05}/part-{part:02}.{ending}")
    }
}

/// The content of a file: lines of settings, the third of them with the version.
pub(super) fn content(number: u64, files: u64, version: u64) -> Vec<u8> {
    const KEYS: [&str; 12] = [
        "listen",
        "timeout_ms",
        "retries",
        "upstream",
        "log_level",
        "pool.size",
        "cache.ttl",
        "region",
        "feature.checkout",
        "tls.min_version",
        "owner",
        "quota",
    ];
    const VALUES: [&str; 10] =
        ["true", "false", "info", "warn", "eu-west-1", "us-east-2", "10.0.", "https://svc-", "1.3", "team-"];
    let (least, most) = sizes(files);
    let mut numbers = Numbers::new(number);
    let size = least + numbers.below(most - least);
    let mut content =
        format!("# service {number}\nname = \"part-{number}\"\nversion = {version}\n").into_bytes();
    while (content.len() as u64) < size {
        let (key, value) = (numbers.pick(&KEYS), numbers.pick(&VALUES));
        content.extend_from_slice(format!("{key} = {value}{}\n", numbers.below(5000)).as_bytes());
    }
    content
}

/// Makes a bare repository: a commit with all files, [`CHANGES`] of one each, one of all again.
pub(crate) fn repository(at: &Path, files: u64, shape: Shape) -> Result<(), ScaleError> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(at).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    std::fs::create_dir_all(at).map_err(|source| ScaleError::io(at, source))?;
    let done = git(&["init", "--bare", "--initial-branch=main"]).status();
    ScaleError::ran("git init", done)?;
    let import = git(&["fast-import", "--quiet", "--depth=0"]).stdin(Stdio::piped()).spawn();
    let mut import = import.map_err(|source| ScaleError::io(Path::new("git"), source))?;
    let written = match import.stdin.take() {
        Some(stdin) => history(&mut BufWriter::with_capacity(1 << 20, stdin), files, shape),
        None => Ok(()),
    };
    ScaleError::ran("git fast-import", import.wait())?;
    written.map_err(|source| ScaleError::io(at, source))
}

fn history(out: &mut impl Write, files: u64, shape: Shape) -> std::io::Result<()> {
    commit(out, 0)?;
    if shape == Shape::Layers {
        file(out, CONFIG_FILE, LAYERS)?;
    }
    for number in 0..files {
        file(out, &shape.path(number), &content(number, files, 1))?;
    }
    for change in 1..=CHANGES {
        commit(out, change)?;
        // Spread over the tree; the multiplier shares no factor with usual sizes.
        let number = change.wrapping_mul(7919) % files.max(1);
        file(out, &shape.path(number), &content(number, files, change + 1))?;
    }
    commit(out, CHANGES + 1)?;
    for number in 0..files {
        file(out, &shape.path(number), &content(number, files, CHANGES + 2))?;
    }
    writeln!(out, "done")?;
    out.flush()
}

fn commit(out: &mut impl Write, number: u64) -> std::io::Result<()> {
    let when = 1_700_000_000 + number * 60;
    writeln!(out, "commit refs/heads/main\ncommitter Scale <scale@example.com> {when} +0000")?;
    writeln!(out, "data 2\n{}", number % 10)
}

fn file(out: &mut impl Write, path: &str, content: &[u8]) -> std::io::Result<()> {
    writeln!(out, "M 100644 inline {path}\ndata {}", content.len())?;
    out.write_all(content)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn files_are_the_same_each_time_and_of_the_sizes_said() {
        for (files, least, most) in [(10_000, 200, 4100), (1_000_000, 64, 612)] {
            let made: Vec<_> = (0..500).map(|number| content(number, files, 1)).collect();
            assert_eq!(made, (0..500).map(|number| content(number, files, 1)).collect::<Vec<_>>());
            assert!(made.iter().all(|content| (least..most).contains(&content.len())));
        }
        for shape in [Shape::Nested, Shape::Flat, Shape::Layers] {
            let paths: BTreeSet<_> = (0..10_000).map(|number| shape.path(number)).collect();
            assert_eq!(paths.len(), 10_000);
        }
    }

    #[test]
    fn a_new_version_changes_one_line() {
        let (one, two) = (content(7, 10_000, 1), content(7, 10_000, 2));
        let lines = |content: &[u8]| {
            String::from_utf8(content.to_vec()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let changed = lines(&one).into_iter().zip(lines(&two)).filter(|(a, b)| a != b).count();
        assert_eq!(changed, 1);
    }
}
