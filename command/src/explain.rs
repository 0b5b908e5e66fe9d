//! `rootcast explain`

use crate::failure::{Exit, Failure};
use crate::output::{Output, plain};
use rootcast::layers::{BASE_BUNDLE, LayerPattern};
use rootcast::member::Labels;
use rootcast::path::{BundleName, ConfigPath};
use rootcast_bundler::CompileError;
use rootcast_bundler::config::{CONFIG_FILE, Rootcast};
use rootcast_bundler::source::{Source, SourceError};
use rootcast_view::{Place, Variables, Version, derive};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file by its path on the host, and a key in it: app/config.yaml, app/config.yaml:server.port
    #[arg(value_name = "PATH[:KEY]")]
    what: String,
    /// The host, as `[hosts.NAME]` in rootcast.toml knows it
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// A label of the host, beside those in rootcast.toml
    #[arg(long = "label", value_name = "LABEL=VALUE")]
    labels: Vec<String>,
    #[command(flatten)]
    from: From,
}

/// Which source is read.
#[derive(clap::Args)]
pub(crate) struct From {
    /// The git repository or plain directory
    #[arg(long, value_name = "DIR", default_value = ".")]
    source: PathBuf,
    /// The branch, tag or commit [default: HEAD]
    #[arg(long, value_name = "REVISION", conflicts_with = "work_tree")]
    revision: Option<String>,
    /// What is in the work tree now, committed or not
    #[arg(long)]
    work_tree: bool,
}

impl From {
    pub(crate) fn open(&self) -> Result<Source, Failure> {
        Ok(match self.work_tree {
            true => Source::open_directory(&self.source)?,
            false => Source::open(&self.source, self.revision.as_deref())?,
        })
    }
}

/// The host that is meant: what the settings know of it, and what the command line says.
pub(crate) fn host(settings: &Rootcast, name: Option<&str>, labels: &[String]) -> Result<Variables, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let known = name.and_then(|name| settings.hosts.iter().find(|host| host.host == name));
    let named = name.unwrap_or("any");
    if name.is_none() && labels.is_empty() {
        return Err(usage("neither a host nor labels are given".into())
            .next("name a host of rootcast.toml with --host, or its labels with --label region=eu"));
    }
    if known.is_none() && labels.is_empty() {
        return Err(Failure::new(
            Exit::Differences,
            format!("{CONFIG_FILE} knows no host `{}`", plain(named)),
        )
        .next(format!("add `[hosts.{}]`, or give its labels with --label region=eu", plain(named))));
    }
    let given =
        Labels::from_pairs(labels.iter().map(String::as_str)).map_err(|error| usage(error.to_string()))?;
    let mut host = known.cloned().unwrap_or_default();
    host.host = named.to_owned();
    host.labels.extend(given.of_host(named));
    Ok(host)
}

/// What a layer has at a path.
struct Found {
    bundle: BundleName,
    /// Where, from the source's root.
    file: String,
    /// What cannot be looked into.
    secret: bool,
    /// Of a link, where it leads.
    link: Option<String>,
}

/// What the layers of a host have at a path, from the lowest to the highest; and the versions that
/// its file is made of: a link or a secret stands for itself.
fn look(
    source: &Source,
    settings: &Rootcast,
    host: &Variables,
    path: &ConfigPath,
) -> Result<(Vec<Found>, Vec<Version>), Failure> {
    let (mut found, mut versions) = (Vec::new(), Vec::new());
    for bundle in layers(settings, host) {
        let file = settings.source_path(&bundle, path);
        let Ok(at) = ConfigPath::new(&file) else { continue };
        // Where a longer layer has the directory, this one has not the file.
        if settings.place(&at) != Some((bundle.clone(), path.clone())) {
            continue;
        }
        let secret = settings.secrets.recipients(&at).is_some();
        let link = source.link_at(&at)?;
        let content = match source.read_path(&file) {
            _ if link.is_some() => Vec::new(),
            Ok(Some(content)) => content,
            // A directory is told of where nothing else is found.
            Ok(None) | Err(SourceError::NotAFile { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        if secret || link.is_some() {
            versions.clear();
        } else {
            versions.push(Version { bundle: bundle.clone(), content: content.into() });
        }
        found.push(Found { bundle, file, secret, link });
    }
    Ok((found, versions))
}

/// Why a host has no file at a path.
fn none(
    source: &Source,
    settings: &Rootcast,
    host: &Variables,
    path: &ConfigPath,
) -> Result<Failure, Failure> {
    let no_file = |why: String| {
        Failure::new(Exit::Differences, format!("host {} has no file {path}: {why}", plain(&host.host)))
    };
    for parent in path.parents().filter_map(|parent| ConfigPath::new(parent).ok()) {
        let (found, _) = look(source, settings, host, &parent)?;
        if let Some(Found { file, link: Some(target), .. }) = found.last() {
            let failure = no_file(format!("{} is a link to {target}", plain(file)));
            let rest = path.as_str().strip_prefix(parent.as_str()).unwrap_or_default();
            return Ok(match behind(&parent, target) {
                Some(target) => {
                    failure.next(format!("rootcast explain {}", plain(&format!("{target}{rest}"))))
                }
                None => failure,
            });
        }
    }
    for bundle in layers(settings, host) {
        let file = settings.source_path(&bundle, path);
        if matches!(source.read_path(&file), Err(SourceError::NotAFile { .. })) {
            return Ok(no_file(format!("{} is a directory", plain(&file))).next("name a file in it"));
        }
    }
    let next = "`--label` gives the labels that choose a host's layers";
    Ok(no_file("none of its layers has".into()).next(next))
}

/// The path that a link leads to.
fn behind(link: &ConfigPath, target: &str) -> Option<ConfigPath> {
    let mut segments: Vec<&str> = link.segments().collect();
    segments.pop();
    for segment in target.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            segment => segments.push(segment),
        }
    }
    ConfigPath::new(&segments.join("/")).ok()
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let (path, key) = match arguments.what.split_once(':') {
        Some((path, key)) => (path, Some(key)),
        None => (arguments.what.as_str(), None),
    };
    let path = ConfigPath::new(path).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let source = arguments.from.open()?;
    let settings = Rootcast::read(&source)
        .map_err(|error| Failure::from(rootcast_bundler::PublishError::from(CompileError::from(error))))?;
    let host = host(&settings, arguments.host.as_deref(), &arguments.labels)?;
    let (found, versions) = look(&source, &settings, &host, &path)?;
    let Some(highest) = found.last() else { return Err(none(&source, &settings, &host, &path)?) };
    let merges = settings.views.merge(&path).is_some();
    let rendered = settings.views.is_template(&path);
    let how = match (merges && versions.len() > 1, rendered) {
        _ if highest.link.is_some() => "linked",
        _ if highest.secret => "taken",
        (true, true) => "rendered and merged",
        (true, false) => "merged",
        (false, true) => "rendered",
        (false, false) => "taken",
    };
    let mut values = Vec::new();
    if !versions.is_empty() {
        let made = derive(&settings.views, &path, &versions, &host).map_err(|error| {
            let at = settings.source_path(&error.bundle, &error.path);
            Failure::new(Exit::InvalidSource, format!("{at}:{}", error.flaw)).next("correct the file")
        })?;
        let node = made.node.or_else(|| {
            let format = rootcast_view::Format::of(&path)?;
            rootcast_view::read(format, &made.content, made.bundles.len().saturating_sub(1)).ok()
        });
        let under = |name: &str| {
            key.is_none_or(|key| {
                name == key || name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))
            })
        };
        for (name, place, text) in node.map(|node| node.values()).unwrap_or_default() {
            if under(&name) {
                let bundle = made.bundles.get(place.layer);
                let file = bundle.map(|bundle| settings.source_path(bundle, &path)).unwrap_or_default();
                values.push(Explained { name, text, file, place });
            }
        }
    }
    if let Some(key) = key.filter(|_| values.is_empty()) {
        return Err(no_value((&path, key), &host, highest));
    }
    tell(&path, &host, (how, rendered), (&found, &values), output);
    Ok(())
}

/// Why a file says nothing at a key.
fn no_value((path, key): (&ConfigPath, &str), host: &Variables, highest: &Found) -> Failure {
    let (name, key) = (plain(&host.host), plain(key));
    let failure = |message: String| Failure::new(Exit::Differences, message);
    let Some(target) = &highest.link else {
        return failure(format!("{path} of host {name} has no value at `{key}`"))
            .next(format!("rootcast explain {path}   shows all its keys"));
    };
    let failure = failure(format!("{path} of host {name} is a link to {target}"));
    match behind(path, target) {
        Some(target) => failure.next(format!("rootcast explain {target}:{key}")),
        None => failure,
    }
}

struct Explained {
    name: String,
    text: String,
    file: String,
    place: Place,
}

/// The bundles of a host's layers, which may exist or not.
fn layers(settings: &Rootcast, host: &Variables) -> Vec<BundleName> {
    let layers = match &settings.layers {
        Some(layers) => layers.clone(),
        None => LayerPattern::parse(BASE_BUNDLE).into_iter().collect(),
    };
    let mut seen = BTreeSet::new();
    let bundles = layers.iter().filter_map(|layer| layer.bundle_for(&host.labels));
    bundles.filter(|bundle| seen.insert(bundle.clone())).collect()
}

fn tell(
    path: &ConfigPath,
    host: &Variables,
    (how, rendered): (&str, bool),
    (found, values): (&[Found], &[Explained]),
    output: &Output,
) {
    let layers = found.iter().map(|found| {
        let Found { bundle, file, secret, link } = found;
        json!({ "bundle": bundle.as_str(), "file": file, "secret": secret, "link": link })
    });
    let told = values.iter().map(|value| {
        json!({ "key": value.name, "value": value.text, "file": value.file,
                "line": value.place.line, "column": value.place.column, "rendered": rendered })
    });
    output.value(&json!({
        "path": path.as_str(), "host": host.host, "how": how,
        "layers": layers.collect::<Vec<_>>(), "values": told.collect::<Vec<_>>(),
    }));
    output.line(format!("{path} on {}: {how} from", plain(&host.host)));
    // What stands for itself hides what is below it, and nothing is merged with it.
    let stands = |layer: &Found| layer.secret || layer.link.is_some();
    let highest = found.iter().rposition(stands).unwrap_or_default();
    let one = matches!(how, "taken" | "rendered" | "linked");
    for (at, layer) in found.iter().enumerate() {
        let mut note = match (layer.secret, &layer.link) {
            (true, _) => "  a secret".into(),
            (false, Some(target)) => format!("  a link to {target}"),
            (false, None) => String::new(),
        };
        if at < highest || (one || at == highest && stands(layer)) && at + 1 < found.len() {
            note.push_str("  hidden by those below");
        }
        output.line(format!("  {:<24} {}{note}", layer.bundle.as_str(), plain(&layer.file)));
    }
    let width = values.iter().map(|value| value.name.chars().count()).max().unwrap_or(0).min(40);
    let within = if rendered { " (as rendered)" } else { "" };
    for value in values {
        let place = format!("{}:{}:{}{within}", value.file, value.place.line, value.place.column);
        output.line(plain(&format!("{:<width$} = {}    {place}", value.name, value.text)));
    }
}
