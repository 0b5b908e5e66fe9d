//! The repository's own settings, `rootcast.toml`: its channel, the layers that
//! turn directories into bundles, and its limits (specs/configuration.md).

use crate::secrets::{Secrets, WrittenSecret};
use crate::source::{Source, SourceError};
use crate::targets::Targets;
use crate::views::{
    self, Checks, KnownHosts, WrittenChecks, WrittenHost, WrittenMerge, WrittenSchema, WrittenTemplate,
};
use rootcast::layers::{BASE_BUNDLE, LayerError, LayerPattern};
use rootcast::limits::{MAX_BUNDLE, MAX_FILE, MAX_FILES, MAX_LAYERS};
use rootcast::path::{BundleName, ChannelName, ConfigPath};
use rootcast::service::{Services, WrittenServices};
use rootcast::settings::{self, SettingsError, Spanned};
use rootcast::view_rules::ViewRules;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Where the settings stand, from the source's root.
pub const CONFIG_FILE: &str = "rootcast.toml";
/// The channel of a repository that names none.
pub const DEFAULT_CHANNEL: &str = "main";

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file is wrong. Prints as `rootcast.toml:7:1: …`.
    #[error("{CONFIG_FILE}:{0}")]
    Settings(#[from] SettingsError),
}

/// A bundle over one of the limits that the settings set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bundle `{bundle}` has {found} {what}, {}", self.advice())]
pub struct LimitExceeded {
    /// The bundle.
    pub bundle: BundleName,
    /// What there is too much of.
    pub what: &'static str,
    /// The key in `[limits]`.
    pub key: &'static str,
    /// How much there is.
    pub found: u64,
    /// How much there may be.
    pub limit: u64,
}

impl LimitExceeded {
    /// What to do: a limit of the repository can be raised, one of the format cannot.
    fn advice(&self) -> String {
        let (key, limit) = (self.key, self.limit);
        if [MAX_FILES, MAX_BUNDLE].contains(&limit) {
            return format!("at most {limit}; split it into bundles in {CONFIG_FILE}");
        }
        format!("over limits.{key} = {limit}; raise it in {CONFIG_FILE} or deliver less")
    }
}

/// A file whose directory has the shape of a layer, but cannot be a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is in a directory of the layer `{layer}`, but {reason}")]
pub struct Misplaced {
    /// The file.
    pub path: ConfigPath,
    /// The layer.
    pub layer: LayerPattern,
    /// Why its directory cannot be a bundle.
    pub reason: LayerError,
}

/// What bundles of this repository may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most files of one bundle.
    pub files: u64,
    /// Most bytes of content of one bundle.
    pub bytes: u64,
    /// Largest file, in bytes.
    pub file_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: MAX_FILES, bytes: MAX_BUNDLE, file_size: MAX_FILE }
    }
}

impl Limits {
    /// Checks the totals of a bundle.
    ///
    /// # Errors
    /// The first limit that it is over, by its key.
    pub fn check(&self, bundle: &BundleName, files: u64, bytes: u64) -> Result<(), LimitExceeded> {
        let over = |what, key, found, limit| {
            let bundle = bundle.clone();
            Err(LimitExceeded { bundle, what, key, found, limit })
        };
        if files > self.files {
            return over("files", "files", files, self.files);
        }
        if bytes > self.bytes {
            return over("bytes", "bytes", bytes, self.bytes);
        }
        Ok(())
    }
}

/// The settings of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootcast {
    /// The channel that the repository publishes to.
    pub channel: ChannelName,
    /// The layers, the first overridden by those after it; `None` when the whole
    /// repository is the bundle `base`.
    pub layers: Option<Vec<LayerPattern>>,
    /// What its bundles may hold.
    pub limits: Limits,
    /// Which of its files are secret, and to whom they are not.
    pub secrets: Secrets,
    /// The programs that its files are for.
    pub services: Services,
    /// Which files hosts merge and render.
    pub views: ViewRules,
    /// How files are checked before anything is signed.
    pub checks: Checks,
    /// Hosts whose views are tried before anything is signed.
    pub hosts: KnownHosts,
    /// What of hosts' files all of these name.
    pub(crate) targets: Targets,
}

/// The file's shape, before its values are judged.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    channel: Option<Spanned<String>>,
    layers: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    limits: WrittenLimits,
    #[serde(default)]
    recipients: BTreeMap<String, Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    secrets: Vec<WrittenSecret>,
    #[serde(default)]
    services: WrittenServices,
    #[serde(default)]
    merge: Vec<WrittenMerge>,
    #[serde(default)]
    template: Vec<WrittenTemplate>,
    #[serde(default)]
    validate: Vec<WrittenSchema>,
    #[serde(default)]
    checks: WrittenChecks,
    #[serde(default)]
    hosts: BTreeMap<String, Spanned<WrittenHost>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLimits {
    files: Option<Spanned<u64>>,
    bytes: Option<Spanned<u64>>,
    file_size: Option<Spanned<u64>>,
}

impl Rootcast {
    /// Reads the settings of a source. One without the file has the defaults.
    ///
    /// # Errors
    /// When the file cannot be read, or is wrong: with line and column.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        match source.read_path(CONFIG_FILE)? {
            Some(bytes) => Ok(Self::parse(settings::text_of(&bytes)?)?),
            None => Ok(Self::parse("")?),
        }
    }

    /// Reads settings from the text of the file.
    ///
    /// # Errors
    /// The first thing that is wrong, with line and column.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let written: Written = settings::parse(text)?;
        let channel = match &written.channel {
            Some(channel) => ChannelName::new(channel.get_ref())
                .map_err(|error| SettingsError::at(text, channel.span().start, format!("channel {error}")))?,
            None => ChannelName::new(DEFAULT_CHANNEL)
                .map_err(|error| SettingsError::at(text, 0, error.to_string()))?,
        };
        let layers = written.layers.map(|layers| read_layers(text, &layers)).transpose()?;
        let limits = Limits {
            files: read_limit(text, "files", written.limits.files, MAX_FILES)?,
            bytes: read_limit(text, "bytes", written.limits.bytes, MAX_BUNDLE)?,
            file_size: read_limit(text, "file_size", written.limits.file_size, MAX_FILE)?,
        };
        let secrets = Secrets::of(text, &written.recipients, &written.secrets)?;
        let services = Services::of(text, &written.services)?;
        let views = views::rules(text, &written.merge, &written.template)?;
        let checks = views::checks(text, &written.validate, &written.checks)?;
        let hosts = views::hosts(text, &written.hosts)?;
        let mut targets =
            views::targets(text, (&written.merge, &written.template), (&written.validate, &written.checks));
        for (name, pattern) in written.services.patterns() {
            targets.pattern(text, pattern, format!("service `{name}` never runs for one"));
        }
        for (name, from) in written.services.installed() {
            targets.path(text, from, format!("service `{name}` installs nothing from there"));
        }
        Ok(Self { channel, layers, limits, secrets, views, checks, hosts, services, targets })
    }

    /// The bundle that a file of the repository belongs to, and its path there.
    ///
    /// `None` for the settings themselves, and with layers for what is in none
    /// of their directories. Where several layers claim a path, the one with the
    /// most segments has it.
    pub fn place(&self, path: &ConfigPath) -> Option<(BundleName, ConfigPath)> {
        let Some(layers) = &self.layers else {
            let base = BundleName::new(BASE_BUNDLE).ok()?;
            return (path.as_str() != CONFIG_FILE).then(|| (base, path.clone()));
        };
        let (_, bundle) = Self::claim(layers, path)?;
        let bundle = bundle.ok()?;
        let inner = path.as_str().strip_prefix(bundle.as_str())?.strip_prefix('/')?;
        Some((bundle, ConfigPath::new(inner).ok()?))
    }

    /// Whether a file lies where a layer would have it delivered, were its
    /// directory only named as a bundle can be, as `region/EU`. It is not
    /// delivered, which its author can hardly have meant.
    pub fn misplaced(&self, path: &ConfigPath) -> Option<Misplaced> {
        let (layer, bundle) = Self::claim(self.layers.as_ref()?, path)?;
        let reason = bundle.err()?;
        Some(Misplaced { path: path.clone(), layer: layer.clone(), reason })
    }

    /// The longest layer that has `path` beneath its directory, and the
    /// bundle that the directory is.
    fn claim<'a>(
        layers: &'a [LayerPattern],
        path: &ConfigPath,
    ) -> Option<(&'a LayerPattern, Result<BundleName, LayerError>)> {
        // The last segment is the file, which is no directory.
        let depth = path.segments().count() - 1;
        layers
            .iter()
            .filter(|layer| layer.depth() <= depth)
            .filter_map(|layer| Some((layer, layer.claim(path.segments())?)))
            .max_by_key(|(layer, _)| layer.depth())
    }
}

fn read_layers(
    text: &str,
    written: &Spanned<Vec<Spanned<String>>>,
) -> Result<Vec<LayerPattern>, SettingsError> {
    let start = written.span().start;
    let count = written.get_ref().len();
    if count == 0 {
        let message = "no layer, so nothing would be delivered: name some, or leave `layers` out";
        return Err(SettingsError::at(text, start, message));
    }
    if count > MAX_LAYERS {
        let message = format!("{count} layers, over the limit of {MAX_LAYERS}");
        return Err(SettingsError::at(text, start, message));
    }
    let mut layers: Vec<LayerPattern> = Vec::with_capacity(count);
    for layer in written.get_ref() {
        let wrong = |message: String| SettingsError::at(text, layer.span().start, message);
        let pattern = LayerPattern::parse(layer.get_ref()).map_err(|error| wrong(error.to_string()))?;
        if let Some(before) = layers.iter().find(|before| before.is_alike(&pattern)) {
            let message = format!("layer `{pattern}` claims the same directories as `{before}`");
            return Err(wrong(message));
        }
        layers.push(pattern);
    }
    Ok(layers)
}

fn read_limit(text: &str, key: &str, written: Option<Spanned<u64>>, most: u64) -> Result<u64, SettingsError> {
    let Some(written) = written else { return Ok(most) };
    if (1..=most).contains(written.get_ref()) {
        return Ok(*written.get_ref());
    }
    let message = format!("limits.{key} must be between 1 and {most}");
    Err(SettingsError::at(text, written.span().start, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ConfigPath {
        ConfigPath::new(text).unwrap()
    }

    fn placed(config: &Rootcast, text: &str) -> Option<(String, String)> {
        let (bundle, inner) = config.place(&path(text))?;
        Some((bundle.to_string(), inner.to_string()))
    }

    fn refusal(text: &str) -> String {
        ConfigError::from(Rootcast::parse(text).expect_err("must be refused")).to_string()
    }

    #[test]
    fn without_settings_all_is_base() {
        let config = Rootcast::parse("").unwrap();
        assert_eq!(config.channel.as_str(), "main");
        assert_eq!(config.limits, Limits::default());
        assert_eq!(placed(&config, "a/b"), Some(("base".into(), "a/b".into())));
        assert_eq!(placed(&config, "rootcast.toml"), None);
        assert_eq!(placed(&config, "x/rootcast.toml"), Some(("base".into(), "x/rootcast.toml".into())));
    }

    #[test]
    fn layers_split_paths_and_the_longest_wins() {
        let text = "channel = 'team/prod'\nlayers = ['base', 'region/{region}', 'role/{role}', \
                    'role/web/{tier}', '{site}/common']\n[limits]\nfiles = 7\nbytes = 8\nfile_size = 9\n";
        let config = Rootcast::parse(text).unwrap();
        assert_eq!(config.channel.as_str(), "team/prod");
        assert_eq!(config.limits, Limits { files: 7, bytes: 8, file_size: 9 });
        let cases = [
            ("base/motd", Some(("base", "motd"))),
            ("region/eu/nginx/a.conf", Some(("region/eu", "nginx/a.conf"))),
            ("role/web/app.yaml", Some(("role/web", "app.yaml"))),
            ("role/web/front/app.yaml", Some(("role/web/front", "app.yaml"))),
            ("role/db/front/app.yaml", Some(("role/db", "front/app.yaml"))),
            ("paris/common/x", Some(("paris/common", "x"))),
            ("README.md", None),
            ("rootcast.toml", None),
            ("region/eu", None), // a file where a directory would be a bundle
            ("base", None),
            ("basement/x", None),
            ("region/EU/x", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(bundle, inner)| (bundle.into(), inner.into()));
            assert_eq!(placed(&config, text), expected, "{text}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_a_bundle_is_told() {
        let config = Rootcast::parse("layers = ['{site}', 'region/{region}']").unwrap();
        let told = |text| config.misplaced(&path(text)).map(|misplaced| misplaced.to_string());
        let message = told("region/EU/x").unwrap();
        assert!(message.starts_with("`region/EU/x` is in a directory of the layer `region/{region}`"));
        assert!(told("plan/x").unwrap().contains("made for every channel"));
        assert_eq!(placed(&config, "plan/x"), None);
        assert_eq!(told("region/eu/x"), None);
        assert_eq!(told("README"), None);
    }

    #[test]
    fn every_error_names_file_line_and_column() {
        let many = format!("\nlayers = [{}]", "'a',".repeat(MAX_LAYERS + 1));
        let cases = [
            ("\n\nchanel = 'x'", "rootcast.toml:3:1: unknown key `chanel`; did you mean `channel`?"),
            ("channel = 'Prod'", "rootcast.toml:1:11: channel `Prod`: may have only a-z"),
            ("channel = ''", "rootcast.toml:1:11: channel ``: is empty"),
            ("layers = [\n  'base',\n  'Base',\n]", "rootcast.toml:3:3: a layer names bundles: `Base`"),
            ("layers = ['x/{}']", "rootcast.toml:1:11: `{}`: a label may have only"),
            (
                "layers = [\n'a/{x}',\n 'a/{y}']",
                "rootcast.toml:3:2: layer `a/{y}` claims the same directories as `a/{x}`",
            ),
            ("layers = ['plan']", "rootcast.toml:1:11: `plan` is the name of a bundle"),
            ("layers = []", "rootcast.toml:1:10: no layer"),
            ("layers = 'base'", "rootcast.toml:1:10: invalid type"),
            (&many, "rootcast.toml:2:10: 33 layers, over the limit of 32"),
            ("[limits]\nfile = 1", "rootcast.toml:2:1: unknown key `file`; did you mean `files`?"),
            (
                "[services.a]\nfiles = ['x']\nafter = ['a']",
                "rootcast.toml:1:1: service `a` waits for itself: a -> a",
            ),
            ("[limits]\nfiles = 0", "rootcast.toml:2:9: limits.files must be between 1 and 2000000"),
            ("[limits]\nfiles = 2000001", "rootcast.toml:2:9: limits.files must be"),
            ("[limits]\nbytes = -1", "rootcast.toml:2:9: "),
            ("[limits]\nfile_size = 1e3", "rootcast.toml:2:13: "),
            ("channel = 'a'\nchannel = 'b'", "rootcast.toml:2:1: duplicate key"),
        ];
        for (text, start) in cases {
            let message = refusal(text);
            assert!(message.starts_with(start), "{text:?}: {message}");
        }
    }

    #[test]
    fn threat_28_totals_over_a_limit_name_bundle_and_key() {
        let limits = Limits { files: 2, bytes: 100, file_size: 50 };
        let bundle = BundleName::new("role/web").unwrap();
        assert_eq!(limits.check(&bundle, 2, 100), Ok(()));
        let files = limits.check(&bundle, 3, 0).unwrap_err().to_string();
        assert!(files.starts_with("bundle `role/web` has 3 files, over limits.files = 2"), "{files}");
        let bytes = limits.check(&bundle, 1, 101).unwrap_err().to_string();
        assert!(bytes.contains("101 bytes, over limits.bytes = 100"), "{bytes}");
        let most = Limits::default().check(&bundle, 1, MAX_BUNDLE + 1).unwrap_err().to_string();
        let advice =
            format!("{} bytes, at most {MAX_BUNDLE}; split it into bundles in rootcast.toml", MAX_BUNDLE + 1);
        assert_eq!(most, format!("bundle `role/web` has {advice}"));
    }
}
