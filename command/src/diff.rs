//! `rootcast diff`

use crate::explain;
use crate::failure::{Exit, Failure};
use crate::output::{Output, plain};
use crate::publish::{runtime, shown, warn};
use gix_imara_diff::{Algorithm, Diff, InternedInput};
use rootcast::entry::{Content, Entry};
use rootcast::id::NodeId;
use rootcast::object::ObjectSource;
use rootcast::path::{BundleName, ConfigPath};
use rootcast_bundler::{Preview, PublishConfig, Publisher, Shown};
use rootcast_view::{Variables, ViewError, Views};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One host: of rootcast.toml, or any name with its labels
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    host: Option<String>,
    /// A label of that host, beside those in rootcast.toml
    #[arg(long = "label", value_name = "LABEL=VALUE", conflicts_with = "all")]
    labels: Vec<String>,
    /// All hosts of rootcast.toml [default]
    #[arg(long)]
    all: bool,
    /// The publisher's configuration file: its state holds the newest release
    #[arg(long, default_value = "publish.toml")]
    config: PathBuf,
    #[command(flatten)]
    from: explain::From,
}

/// Lines around a change.
const CONTEXT: usize = 3;

/// What a host has at a path, as it is compared and shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Nothing,
    /// Text that fits one blob.
    Text(Vec<u8>, bool),
    /// What cannot be shown as text: what it is.
    Other(String),
}

/// A change of one file, and the hosts that have it.
type Changes = BTreeMap<(ConfigPath, Side, Side), Vec<String>>;

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let config = PublishConfig { key: None, ..PublishConfig::load(&arguments.config)? };
    let source = Arc::new(Mutex::new(arguments.from.open()?));
    let bar = output.progress("reading");
    let progress = shown(bar.clone());
    let preview = runtime()?.block_on(async {
        let mut publisher = Publisher::open(&config)?;
        publisher.set_allow_empty(true);
        publisher.preview(&source, progress).await
    });
    bar.finish_and_clear();
    let preview = preview?;
    let warnings = warn(&preview.warnings);
    let hosts = hosts(arguments, &preview)?;
    let mut changes = Changes::new();
    for host in &hosts {
        compare(&preview, host, &mut changes)?;
    }
    for ((path, before, after), hosts) in &changes {
        tell(path, (before, after), hosts, output);
    }
    let services = changed_services(&preview);
    for (name, what) in &services {
        output.value(&json!({ "event": "service", "service": name, "what": what }));
        output.line(format!("{what} service {name}: its hooks, or what it installs"));
    }
    let changes = changes.len() + services.len();
    output.value(&json!({
        "event": "compared", "release": preview.release, "hosts": hosts.len(), "changes": changes,
        "warnings": warnings,
    }));
    if changes == 0 {
        let hosts = if hosts.len() == 1 { "the host" } else { "any host" };
        output.line(format!("nothing changes for {hosts} since release {}", preview.release));
        return Ok(());
    }
    let message = format!("{} since release {}", counted(changes, "change"), preview.release);
    Err(Failure::new(Exit::Differences, message).next("rootcast publish   makes them"))
}

/// Services of which hosts will do something else, whether a file changes or not.
fn changed_services(preview: &Preview) -> Vec<(String, &'static str)> {
    let (before, after) = (&preview.before.services, &preview.after.services);
    let gone = before.iter().filter(|was| after.get(&was.name).is_none());
    let gone = gone.map(|was| (was.name.to_string(), "removed"));
    let other = after.iter().filter_map(|is| match before.get(&is.name) {
        None => Some((is.name.to_string(), "added")),
        Some(was) => (was != is).then(|| (is.name.to_string(), "changed")),
    });
    gone.chain(other).collect()
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn hosts(arguments: &Arguments, preview: &Preview) -> Result<Vec<Variables>, Failure> {
    let settings = &preview.settings;
    if arguments.host.is_some() || !arguments.labels.is_empty() {
        return Ok(vec![explain::host(settings, arguments.host.as_deref(), &arguments.labels)?]);
    }
    match (settings.hosts.is_empty(), &settings.layers) {
        (false, _) => Ok(settings.hosts.clone()),
        // All hosts have the same files.
        (true, None) => Ok(vec![Variables { host: "every host".into(), ..Variables::default() }]),
        (true, Some(_)) => {
            Err(Failure::new(Exit::Usage, "rootcast.toml names no hosts, so there is none to compare")
                .next("add `[hosts.NAME]` with its labels, or give --host NAME --label region=eu"))
        }
    }
}

fn failed(error: &ViewError) -> Failure {
    Failure::new(Exit::Failure, error.to_string())
}

/// A release's layers of one host.
struct Layers<'a> {
    names: Vec<BundleName>,
    roots: Vec<NodeId>,
    of: &'a Shown,
}

impl<'a> Layers<'a> {
    fn of(of: &'a Shown, host: &Variables) -> Self {
        let (names, roots) = of.layers_of(host);
        Self { names, roots, of }
    }

    fn views<'v>(&'v self, objects: &'v dyn ObjectSource, host: &'v Variables) -> Result<Views<'v>, Failure> {
        let views = Views::open(objects, (&self.names, &self.roots), &self.of.rules, host);
        views.map_err(|error| failed(&error.into()))
    }
}

fn compare(preview: &Preview, host: &Variables, changes: &mut Changes) -> Result<(), Failure> {
    let objects: &dyn ObjectSource = &*preview.store;
    let (before, after) = (Layers::of(&preview.before, host), Layers::of(&preview.after, host));
    let (before, after) = (before.views(objects, host)?, after.views(objects, host)?);
    let tree = |error: rootcast::tree::TreeError| failed(&error.into());
    let mut paths = before.layers().differing(after.layers()).map_err(tree)?;
    // Under other rules the same layers make other files.
    if preview.before.rules != preview.after.rules {
        for views in [&before, &after] {
            paths.extend(views.layers().resolve().map_err(tree)?.into_keys());
        }
    }
    for path in paths {
        let sides =
            (side(&before, &preview.before, &path, objects)?, side(&after, &preview.after, &path, objects)?);
        if sides.0 != sides.1 {
            changes.entry((path, sides.0, sides.1)).or_default().push(host.host.clone());
        }
    }
    Ok(())
}

fn side(
    views: &Views<'_>,
    shown: &Shown,
    path: &ConfigPath,
    objects: &dyn ObjectSource,
) -> Result<Side, Failure> {
    let entry = views.layers().get(path).map_err(|error| failed(&error.into()))?;
    Ok(match entry {
        None => Side::Nothing,
        Some(Entry::Symlink { target }) => Side::Other(format!("a link to {}", target.as_str())),
        // What it says is for its hosts alone.
        Some(Entry::Secret { id, size }) => Side::Other(format!("a secret, {size} bytes encrypted, {id}")),
        Some(Entry::File { executable, .. }) if shown.rules.derives(path) => match views.make(path) {
            Ok(made) => of_bytes(&made.content, executable),
            // What is live on hosts may be of a release that they refuse.
            Err(error) => Side::Other(format!("a file that cannot be made: {error}")),
        },
        Some(Entry::File { content: Content::Blob { id, .. }, executable }) => {
            let bytes = objects.read(&id.into()).map_err(|error| failed(&error.into()))?;
            of_bytes(&bytes, executable)
        }
        Some(Entry::File { content: Content::Chunked { id, size }, .. }) => {
            Side::Other(format!("{size} bytes, {id}"))
        }
    })
}

fn of_bytes(bytes: &[u8], executable: bool) -> Side {
    match std::str::from_utf8(bytes) {
        Ok(_) => Side::Text(bytes.to_vec(), executable),
        Err(_) => Side::Other(format!("{} bytes, {}", bytes.len(), rootcast::id::BlobId::of(bytes))),
    }
}

fn tell(path: &ConfigPath, (before, after): (&Side, &Side), hosts: &[String], output: &Output) {
    let what = match (before, after) {
        (Side::Nothing, _) => "added",
        (_, Side::Nothing) => "removed",
        _ => "changed",
    };
    let mut lines = Vec::new();
    let text = |side: &Side| match side {
        Side::Text(bytes, _) => String::from_utf8_lossy(bytes).into_owned(),
        Side::Nothing | Side::Other(_) => String::new(),
    };
    for (sign, side) in [('-', before), ('+', after)] {
        if let Side::Other(other) = side {
            lines.push(format!("{sign} {other}"));
        }
    }
    if let (Side::Text(_, was), Side::Text(_, is)) = (before, after)
        && was != is
    {
        lines.push(format!("  mode {} -> {}", mode(*was), mode(*is)));
    }
    lines.extend(unified(&text(before), &text(after)));
    output.value(&json!({ "event": "change", "path": path.as_str(), "what": what, "hosts": hosts, "diff": lines.join("\n") }));
    const NAMED: usize = 5;
    let mut named: Vec<String> = hosts.iter().take(NAMED).map(|host| plain(host)).collect();
    if hosts.len() > NAMED {
        named.push(format!("and {} more", hosts.len() - NAMED));
    }
    output.line(format!(
        "{what} {}   {}: {}",
        plain(path.as_str()),
        counted(hosts.len(), "host"),
        named.join(", ")
    ));
    for line in lines {
        output.line(line.replace('\t', "    ").chars().flat_map(shown_char).collect::<String>());
    }
}

/// A character of a file on a terminal.
fn shown_char(character: char) -> Vec<char> {
    if character.is_control() { character.escape_debug().collect() } else { vec![character] }
}

fn mode(executable: bool) -> &'static str {
    if executable { "0755" } else { "0644" }
}

/// The lines of a unified difference, without the names of files.
fn unified(before: &str, after: &str) -> Vec<String> {
    let input = InternedInput::new(before, after);
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let range = |range: &std::ops::Range<u32>| (range.start as usize, range.end as usize);
    let hunks: Vec<_> = diff.hunks().map(|hunk| (range(&hunk.before), range(&hunk.after))).collect();
    let mut lines = Vec::new();
    let mut rest = hunks.as_slice();
    while let Some(((first_old, _), (first_new, _))) = rest.first() {
        // Changes whose context would touch are shown together.
        let near = rest.windows(2).take_while(|pair| match pair {
            [one, two] => two.0.0 - one.0.1 <= 2 * CONTEXT,
            _ => false,
        });
        let count = near.count() + 1;
        let (group, after_group) = rest.split_at(count);
        let lead = CONTEXT.min(*first_old);
        let last = group.last().map_or(0, |hunk| hunk.0.1);
        let tail = CONTEXT.min(old.len().saturating_sub(last));
        let (from_old, from_new) = (first_old - lead, first_new - lead);
        let head = lines.len();
        let mut at = from_old;
        for ((old_from, old_to), (new_from, new_to)) in group {
            let slice = |of: &[&str], from: usize, to: usize, sign: char| -> Vec<String> {
                of.get(from..to.min(of.len()))
                    .unwrap_or_default()
                    .iter()
                    .map(|line| format!("{sign}{line}"))
                    .collect()
            };
            lines.extend(slice(&old, at, *old_from, ' '));
            lines.extend(slice(&old, *old_from, *old_to, '-'));
            lines.extend(slice(&new, *new_from, *new_to, '+'));
            at = *old_to;
        }
        lines.extend(old.get(at..at + tail).unwrap_or_default().iter().map(|line| format!(" {line}")));
        let of = |sign: char| lines.iter().skip(head).filter(|line| !line.starts_with(sign)).count();
        let header = format!("@@ -{},{} +{},{} @@", from_old + 1, of('+'), from_new + 1, of('-'));
        lines.insert(head, header);
        rest = after_group;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_with_their_lines() {
        let before: String = (1..=20).map(|line| format!("{line}\n")).collect();
        let after =
            before.replace("\n2\n", "\ntwo\n").replace("\n4\n", "\n4\nmore\n").replace("\n18\n", "\n");
        let expected = "@@ -1,7 +1,8 @@\n 1\n-2\n+two\n 3\n 4\n+more\n 5\n 6\n 7\n@@ -15,6 +16,5 @@\n 15\n 16\n 17\n-18\n 19\n 20";
        assert_eq!(unified(&before, &after).join("\n"), expected);
        assert_eq!(unified("", "a\nb\n"), ["@@ -1,0 +1,2 @@", "+a", "+b"]);
        assert_eq!(unified("a\n", ""), ["@@ -1,1 +1,0 @@", "-a"]);
        assert!(unified("a\n", "a\n").is_empty());
    }
}
