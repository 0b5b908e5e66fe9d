//! The policy of `deny.toml`: licences, sources, bans and duplicates (H-5).
//!
//! `deny.toml` is cargo-deny's own file, and cargo-deny reads more into it. The
//! rules here are the part that must hold on every machine, without an
//! installation and without any network.

use crate::graph::{Graph, Package};
use crate::{CheckError, Findings, licence};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The parts of `deny.toml` that the rules read.
#[derive(Debug, Clone, Deserialize)]
pub struct Policy {
    /// What is looked at.
    pub graph: Targets,
    /// The licences that fit.
    pub licenses: Licences,
    /// The crates that do not, and the versions that may stand side by side.
    pub bans: Bans,
    /// Where crates may come from.
    pub sources: Sources,
}

/// `[graph]`
#[derive(Debug, Clone, Deserialize)]
pub struct Targets {
    /// Target triples; what only others need is not looked at.
    pub targets: Vec<String>,
}

/// `[licenses]`
#[derive(Debug, Clone, Deserialize)]
pub struct Licences {
    /// Licences that any crate may have.
    pub allow: Vec<String>,
}

/// `[bans]`
#[derive(Debug, Clone, Deserialize)]
pub struct Bans {
    /// Crates that must not be in the graph.
    pub deny: Vec<Named>,
    /// `name@version` of crates that may be there beside another version.
    pub skip: Vec<Named>,
}

/// A crate, and why it is named.
#[derive(Debug, Clone, Deserialize)]
pub struct Named {
    /// `name`, or `name@version`.
    #[serde(rename = "crate")]
    pub name: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// `[sources]`
#[derive(Debug, Clone, Deserialize)]
pub struct Sources {
    /// Indexes of registries.
    #[serde(rename = "allow-registry")]
    pub allow_registry: Vec<String>,
}

impl Policy {
    /// Reads the policy.
    ///
    /// # Errors
    /// [`CheckError::Read`] or [`CheckError::Toml`].
    pub fn load(path: &Path) -> Result<Self, CheckError> {
        crate::manifest::read_toml(path)
    }
}

/// Every crate's licence expression is satisfied by the list, and every entry of the list is needed.
pub fn licences(graph: &Graph, policy: &Policy) -> Findings {
    let allow: BTreeSet<&str> = policy.licenses.allow.iter().map(String::as_str).collect();
    let mut findings = Findings::new();
    let mut met = BTreeSet::new();
    for package in &graph.packages {
        let expression = package.license.as_deref().unwrap_or_default();
        met.extend(licence::identifiers(expression));
        match licence::satisfied(expression, &|name| allow.contains(name)) {
            Some(true) => {}
            Some(false) => {
                findings.push(format!("{} is `{expression}`, which fits no licence allowed", full(package)))
            }
            None => findings.push(format!("{} has no readable licence: `{expression}`", full(package))),
        }
    }
    let unmet = allow.iter().filter(|name| !met.contains(**name));
    findings.extend(unmet.map(|name| format!("deny.toml allows `{name}`, which no crate has; remove it")));
    findings
}

/// Every crate that is not a member comes from a registry on the list.
pub fn sources(graph: &Graph, policy: &Policy) -> Findings {
    let mut findings = Findings::new();
    for package in &graph.packages {
        let allowed = match &package.source {
            None => graph.workspace_members.contains(&package.id),
            Some(source) => source
                .strip_prefix("registry+")
                .is_some_and(|index| policy.sources.allow_registry.iter().any(|allowed| allowed == index)),
        };
        if !allowed {
            let source = package.source.as_deref().unwrap_or("a path outside the workspace");
            findings
                .push(format!("{} comes from {source}; use a registry that deny.toml allows", full(package)));
        }
    }
    findings
}

/// No banned crate is in the graph, and every ban says why.
pub fn bans(graph: &Graph, policy: &Policy) -> Findings {
    let mut findings = without_reason(&policy.bans.deny);
    for ban in &policy.bans.deny {
        for package in graph.packages.iter().filter(|package| package.name == ban.name) {
            findings.push(format!("{} is banned: {}", full(package), ban.reason));
        }
    }
    findings
}

/// Of each crate at most one version is in the graph that no `skip` names; every `skip` is needed and says why.
pub fn duplicates(graph: &Graph, policy: &Policy) -> Findings {
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in &graph.packages {
        versions.entry(&package.name).or_default().insert(full(package));
    }
    versions.retain(|_, all| all.len() > 1);
    let mut findings = without_reason(&policy.bans.skip);
    let mut needed = BTreeSet::new();
    for all in versions.values() {
        let (skipped, counted): (Vec<&String>, Vec<&String>) =
            all.iter().partition(|version| policy.bans.skip.iter().any(|skip| skip.name == **version));
        needed.extend(skipped);
        if counted.len() > 1 {
            findings.push(format!(
                "{counted:?} are all in the graph; unify them, or add a `skip` that says why not"
            ));
        }
    }
    let idle = policy.bans.skip.iter().filter(|skip| !needed.contains(&skip.name));
    findings.extend(
        idle.map(|skip| format!("deny.toml skips `{}`, which has no second version; remove it", skip.name)),
    );
    findings
}

fn without_reason(entries: &[Named]) -> Findings {
    let silent = entries.iter().filter(|entry| entry.reason.trim().is_empty());
    silent.map(|entry| format!("the entry `{}` of deny.toml has no reason", entry.name)).collect()
}

fn full(package: &Package) -> String {
    format!("{}@{}", package.name, package.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::tests::graph;

    fn policy(allow: &[&str], deny: &[(&str, &str)], skip: &[(&str, &str)]) -> Policy {
        let named = |entries: &[(&str, &str)]| {
            let entry = |(name, reason): &(&str, &str)| Named {
                name: (*name).to_owned(),
                reason: (*reason).to_owned(),
            };
            entries.iter().map(entry).collect()
        };
        Policy {
            graph: Targets { targets: Vec::new() },
            licenses: Licences { allow: allow.iter().map(|name| (*name).to_owned()).collect() },
            bans: Bans { deny: named(deny), skip: named(skip) },
            sources: Sources { allow_registry: vec!["https://example.org/index".to_owned()] },
        }
    }

    fn two_versions() -> Graph {
        let mut graph = graph(&[], &[], &["syn", "old"], &[]);
        graph.packages[1].name = "syn".to_owned();
        graph.packages[1].version = "0.9.0".to_owned();
        graph
    }

    #[test]
    fn a_licence_outside_the_list_an_absent_one_and_an_idle_entry_are_found() {
        let mut graph = graph(&[], &[], &["good", "bad", "none"], &[]);
        graph.packages[1].license = Some("MIT AND GPL-3.0-only".to_owned());
        graph.packages[2].license = None;
        let findings = licences(&graph, &policy(&["MIT", "Zlib"], &[], &[]));
        assert_eq!(findings.len(), 3, "{findings:?}");
        graph.packages.truncate(1);
        assert!(licences(&graph, &policy(&["MIT"], &[], &[])).is_empty());
    }

    #[test]
    fn a_git_source_another_registry_and_a_foreign_path_are_found() {
        let policy = policy(&[], &[], &[]);
        let mut graph = graph(&[], &["own"], &["good", "git", "other", "path"], &[]);
        assert!(sources(&graph, &policy).is_empty());
        graph.packages[2].source = Some("git+https://example.org/index".to_owned());
        graph.packages[3].source = Some("registry+https://example.org/index2".to_owned());
        graph.packages[4].source = None;
        assert_eq!(sources(&graph, &policy).len(), 3);
    }

    #[test]
    fn a_banned_crate_and_a_ban_without_reason_are_found() {
        let graph = graph(&[], &[], &["openssl-sys"], &[]);
        assert_eq!(bans(&graph, &policy(&[], &[("openssl-sys", "one provider")], &[])).len(), 1);
        assert_eq!(bans(&graph, &policy(&[], &[("openssl", "")], &[])).len(), 1);
        assert!(bans(&graph, &policy(&[], &[("openssl", "one provider")], &[])).is_empty());
    }

    #[test]
    fn a_second_version_needs_a_skip_and_a_skip_needs_a_second_version() {
        assert_eq!(duplicates(&two_versions(), &policy(&[], &[], &[])).len(), 1);
        assert!(duplicates(&two_versions(), &policy(&[], &[], &[("syn@0.9.0", "macros")])).is_empty());
        assert_eq!(duplicates(&two_versions(), &policy(&[], &[], &[("syn@0.9.0", " ")])).len(), 1);
        let one = graph(&[], &[], &["syn"], &[]);
        assert_eq!(duplicates(&one, &policy(&[], &[], &[("syn@1.0.0", "macros")])).len(), 1);
    }
}
