//! What the settings say of views: merges, templates, checks and known hosts
//! (specs/configuration.md, F-50 to F-52, F-65 and F-70 to F-73).

use crate::targets::Targets;
use rootcast::limits::{MAX_KNOWN_HOSTS, MAX_VIEW_PATTERNS};
use rootcast::member::Labels;
use rootcast::path::{BundleName, ConfigPath};
use rootcast::pattern::Pattern;
use rootcast::settings::{SettingsError, Spanned};
use rootcast::view_rules::{MergeRule, ViewRules};
use rootcast_view::{Facts, Variables, check_facts};
use serde::Deserialize;
use std::collections::BTreeMap;

/// One of the settings' `[[merge]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenMerge {
    files: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    keys: BTreeMap<String, String>,
}

/// One of the settings' `[[template]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenTemplate {
    files: Spanned<Vec<Spanned<String>>>,
}

/// One of the settings' `[[validate]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenSchema {
    files: Spanned<Vec<Spanned<String>>>,
    schema: Spanned<String>,
}

/// The settings' `[checks]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenChecks {
    off: Option<Spanned<Vec<Spanned<String>>>>,
}

/// One of the settings' `[hosts.NAME]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenHost {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    facts: Facts,
}

/// Which files are held to a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaRule {
    /// Which, by their paths on the host.
    pub files: Vec<Pattern>,
    /// The schema, from the source's root.
    pub schema: ConfigPath,
}

/// How files are checked when they are published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checks {
    /// Files that are not, by their paths on the host.
    pub off: Vec<Pattern>,
    /// Schemas.
    pub schemas: Vec<SchemaRule>,
}

impl Checks {
    /// Whether a file, by its path on the host, is left alone.
    pub fn are_off(&self, path: &ConfigPath) -> bool {
        self.off.iter().any(|pattern| pattern.matches(path.as_str()))
    }

    /// The schemas that a file is held to.
    pub fn schemas_of(&self, path: &ConfigPath) -> impl Iterator<Item = &ConfigPath> {
        let rules = self.schemas.iter();
        rules
            .filter(|rule| rule.files.iter().any(|files| files.matches(path.as_str())))
            .map(|rule| &rule.schema)
    }
}

/// Hosts that the settings know, in the order of their names.
pub type KnownHosts = Vec<Variables>;

type Written = Spanned<Vec<Spanned<String>>>;

/// Reads patterns; at least one.
fn patterns(text: &str, written: &Written, what: &str) -> Result<Vec<Pattern>, SettingsError> {
    if written.get_ref().is_empty() {
        let message = format!("no pattern, so nothing would be {what}: name some files");
        return Err(SettingsError::at(text, written.span().start, message));
    }
    if written.get_ref().len() > MAX_VIEW_PATTERNS {
        let message = format!("more than {MAX_VIEW_PATTERNS} patterns");
        return Err(SettingsError::at(text, written.span().start, message));
    }
    let read = |one: &Spanned<String>| {
        Pattern::new(one.get_ref())
            .map_err(|error| SettingsError::at(text, one.span().start, error.to_string()))
    };
    written.get_ref().iter().map(read).collect()
}

/// The rules that travel to hosts.
pub(crate) fn rules(
    text: &str,
    merges: &[WrittenMerge],
    templates: &[WrittenTemplate],
) -> Result<ViewRules, SettingsError> {
    let mut rules = ViewRules::default();
    let wrong = |at: &Written, reason| SettingsError::at(text, at.span().start, reason);
    for merge in merges {
        let files = patterns(text, &merge.files, "merged")?;
        rules.merges.push(MergeRule { files, keys: merge.keys.clone() });
        rules.check().map_err(|reason| wrong(&merge.files, reason))?;
    }
    for template in templates {
        rules.templates.extend(patterns(text, &template.files, "rendered")?);
        rules.check().map_err(|reason| wrong(&template.files, reason))?;
    }
    Ok(rules)
}

/// How files are checked.
pub(crate) fn checks(
    text: &str,
    schemas: &[WrittenSchema],
    written: &WrittenChecks,
) -> Result<Checks, SettingsError> {
    let mut checks = Checks::default();
    if let Some(off) = &written.off {
        checks.off = patterns(text, off, "left alone")?;
    }
    let mut count = checks.off.len();
    for rule in schemas {
        let files = patterns(text, &rule.files, "held to the schema")?;
        count += files.len();
        if count > MAX_VIEW_PATTERNS {
            let message = format!("more than {MAX_VIEW_PATTERNS} patterns of checks");
            return Err(SettingsError::at(text, rule.files.span().start, message));
        }
        let schema = ConfigPath::new(rule.schema.get_ref())
            .map_err(|error| SettingsError::at(text, rule.schema.span().start, format!("schema {error}")))?;
        checks.schemas.push(SchemaRule { files, schema });
    }
    Ok(checks)
}

/// The files that all of these are for.
pub(crate) fn targets(
    text: &str,
    (merges, templates): (&[WrittenMerge], &[WrittenTemplate]),
    (schemas, checks): (&[WrittenSchema], &WrittenChecks),
) -> Targets {
    let mut targets = Targets::default();
    let merged = merges.iter().map(|merge| (&merge.files, "nothing is merged by it"));
    let rendered = templates.iter().map(|template| (&template.files, "nothing is rendered by it"));
    let held = schemas.iter().map(|schema| (&schema.files, "nothing is held to its schema"));
    let off = checks.off.iter().map(|off| (off, "nothing is left unchecked by it"));
    for (files, effect) in merged.chain(rendered).chain(held).chain(off) {
        files.get_ref().iter().for_each(|pattern| targets.pattern(text, pattern, effect.to_owned()));
    }
    targets
}

/// The hosts that are known.
pub(crate) fn hosts(
    text: &str,
    written: &BTreeMap<String, Spanned<WrittenHost>>,
) -> Result<KnownHosts, SettingsError> {
    let mut hosts = Vec::new();
    for (name, host) in written {
        let at = host.span().start;
        let wrong = |message: String| SettingsError::at(text, at, message);
        if hosts.len() >= MAX_KNOWN_HOSTS {
            return Err(wrong(format!("more than {MAX_KNOWN_HOSTS} hosts")));
        }
        let named = BundleName::new(name).map_err(|error| wrong(format!("hosts: {error}")))?;
        if named.as_str().contains('/') {
            return Err(wrong(format!("hosts.{name}: the name of a host has no `/`")));
        }
        let labels = Labels::new(host.get_ref().labels.clone())
            .map_err(|error| wrong(format!("hosts.{name}: {error}")))?
            .of_host(name);
        let facts = host.get_ref().facts.clone();
        check_facts(&facts).map_err(|error| wrong(format!("hosts.{name}: {error}")))?;
        hosts.push(Variables { host: name.clone(), labels, facts });
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use crate::config::Rootcast;
    use rootcast::path::ConfigPath;
    use rootcast_view::Fact;

    #[test]
    fn f_50_f_65_rules_checks_and_hosts_are_read() {
        let text = "[[merge]]\nfiles = ['**/*.yaml']\nkeys = { servers = 'name' }\n[[template]]\nfiles = ['t/*']\n\
                    [[validate]]\nfiles = ['app/*.yaml']\nschema = 'schemas/app.json'\n[checks]\noff = ['raw/**']\n\
                    [hosts.web-1]\nlabels = { region = 'eu' }\nfacts = { cores = 8, tls = true, rack = 'r1' }\n";
        let config = Rootcast::parse(text).unwrap();
        let path = |text: &str| ConfigPath::new(text).unwrap();
        assert_eq!(config.views.merge(&path("a/b.yaml")).unwrap().keys["servers"], "name");
        assert!(config.views.is_template(&path("t/x")) && !config.views.is_template(&path("t/x/y")));
        assert!(config.checks.are_off(&path("raw/a/b")));
        assert_eq!(config.checks.schemas_of(&path("app/a.yaml")).count(), 1);
        let host = &config.hosts[0];
        assert_eq!((host.host.as_str(), host.labels["host"].as_str()), ("web-1", "web-1"));
        assert_eq!((host.labels["region"].as_str(), &host.facts["cores"]), ("eu", &Fact::Integer(8)));
    }

    #[test]
    fn f_51_every_mistake_is_named_with_its_place() {
        let cases = [
            ("[[merge]]\nfiles = []", "2:9: no pattern"),
            ("[[merge]]\nfiles = ['a', '[']", "2:15: `[` without"),
            ("[[merge]]\nfiles = ['a']\nkey = {}", "3:1: unknown key `key`; did you mean `keys`?"),
            ("[[merge]]\nfiles = ['a']\nkeys = { l = '' }", "2:9: a keyed list"),
            ("[[template]]\nfile = ['a']", "2:1: unknown key `file`; did you mean `files`?"),
            ("[[validate]]\nfiles = ['a']", "1:1: missing key `schema`"),
            ("[[validate]]\nfiles = ['a']\nschema = '/x'", "3:10: schema `/x`: is absolute"),
            ("[checks]\noff = ['{']", "2:8: `{`"),
            ("[hosts.'A']", "1:1: hosts: `A`: may have only"),
            ("[hosts.'a/b']", "1:1: hosts.a/b: the name of a host has no `/`"),
            ("[hosts.a]\nlabels = { host = 'b' }", "1:1: hosts.a: "),
            ("[hosts.a]\nfacts = { X = 1 }", "1:1: hosts.a: fact `X`"),
            ("[hosts.a]\nfacts = { x = 1.5 }", "2:"),
            ("[hosts.a]\nrole = 'web'", "2:1: unknown key `role`"),
        ];
        for (text, start) in cases {
            let message = Rootcast::parse(text).expect_err(text).to_string();
            assert!(message.starts_with(start), "{text}\n{message}");
        }
    }
}
