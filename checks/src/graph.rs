//! The resolved dependency graph, as `cargo metadata` tells it.

use crate::CheckError;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The parts of `cargo metadata --format-version 1` that the rules read.
#[derive(Debug, Clone, Deserialize)]
pub struct Graph {
    /// Every package that the resolution needs.
    pub packages: Vec<Package>,
    /// Ids of the packages of this workspace.
    pub workspace_members: Vec<String>,
    /// Who depends on whom.
    pub resolve: Resolve,
    /// The table `[workspace.metadata]`.
    #[serde(default)]
    pub metadata: Option<WorkspaceMetadata>,
}

/// The table `[workspace.metadata]` of the root manifest.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct WorkspaceMetadata {
    /// Its table `layers`.
    #[serde(default)]
    pub layers: Layers,
}

/// The table `[workspace.metadata.layers]`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Layers {
    /// Names of the workspace's packages, the lowest layer first.
    #[serde(default)]
    pub order: Vec<Vec<String>>,
}

/// One package, of one version.
#[derive(Debug, Clone, Deserialize)]
pub struct Package {
    /// Its id, unique in the graph.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence expression.
    pub license: Option<String>,
    /// Where it comes from; `None` for a path.
    pub source: Option<String>,
    /// Its manifest.
    pub manifest_path: PathBuf,
    /// What it declares to depend on.
    #[serde(default)]
    pub dependencies: Vec<Declared>,
}

/// A dependency as a manifest declares it.
#[derive(Debug, Clone, Deserialize)]
pub struct Declared {
    /// Name of the package, before any renaming.
    pub name: String,
    /// `None` for a normal dependency, else `build` or `dev`.
    pub kind: Option<String>,
    /// Features that are asked for.
    #[serde(default)]
    pub features: Vec<String>,
}

/// Who depends on whom.
#[derive(Debug, Clone, Deserialize)]
pub struct Resolve {
    /// One node for each package.
    pub nodes: Vec<Node>,
}

/// A package and what it is built with.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// Id of the package.
    pub id: String,
    /// Its dependencies.
    pub deps: Vec<Edge>,
}

/// A dependency as it was resolved.
#[derive(Debug, Clone, Deserialize)]
pub struct Edge {
    /// Id of the package that is depended on.
    pub pkg: String,
    /// In which roles.
    pub dep_kinds: Vec<EdgeKind>,
}

/// The role of a resolved dependency.
#[derive(Debug, Clone, Deserialize)]
pub struct EdgeKind {
    /// `None` for a normal dependency, else `build` or `dev`.
    pub kind: Option<String>,
}

impl Graph {
    /// Asks the cargo that runs this test about the workspace at `root`, for the given targets.
    ///
    /// Not `--offline`: with a complete lock file and the packages at hand cargo
    /// makes no request, and on a fresh clone it may fetch what one package's
    /// build did not need.
    ///
    /// # Errors
    /// [`CheckError::Start`], [`CheckError::Metadata`] or [`CheckError::Answer`].
    pub fn load(root: &Path, targets: &[String]) -> Result<Self, CheckError> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut command = Command::new(&cargo);
        command.current_dir(root).args(["metadata", "--format-version", "1", "--locked"]);
        for target in targets {
            command.args(["--filter-platform", target]);
        }
        let output = command.output().map_err(|source| CheckError::Start { cargo, source })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(CheckError::Metadata { said });
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The layers of `[workspace.metadata.layers]`, the lowest first.
    pub fn layers(&self) -> &[Vec<String>] {
        self.metadata.as_ref().map_or(&[], |table| &table.layers.order)
    }

    /// The packages of this workspace.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// The package `name` and all that it links with: normal dependencies only,
    /// at every step, so neither build scripts' nor tests' needs are counted.
    /// Names, each with one chain of packages that leads to it.
    pub fn normal_closure(&self, name: &str) -> BTreeMap<&str, String> {
        let names: BTreeMap<&str, &str> =
            self.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
        let nodes: BTreeMap<&str, &Node> = self.resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
        let mut found = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut pending: Vec<(&str, String)> = self
            .packages
            .iter()
            .filter(|package| package.name == name)
            .map(|package| (package.id.as_str(), String::new()))
            .collect();
        while let Some((id, before)) = pending.pop() {
            let Some(&name) = names.get(id) else { continue };
            if !seen.insert(id) {
                continue;
            }
            let chain = if before.is_empty() { name.to_owned() } else { format!("{before} -> {name}") };
            for edge in nodes.get(id).map_or(&[][..], |node| &node.deps) {
                if edge.dep_kinds.iter().any(|role| role.kind.is_none()) {
                    pending.push((&edge.pkg, chain.clone()));
                }
            }
            found.insert(name, chain);
        }
        found
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A made-up graph. `members` and `others` are package names; `edges` are
    /// (from, to, kind), with an empty kind for a normal dependency.
    pub(crate) fn graph(
        order: &[&[&str]],
        members: &[&str],
        others: &[&str],
        edges: &[(&str, &str, &str)],
    ) -> Graph {
        let role = |kind: &str| if kind.is_empty() { json!(null) } else { json!(kind) };
        let all: Vec<&str> = members.iter().chain(others).copied().collect();
        let packages: Vec<_> = all
            .iter()
            .map(|name| {
                let own = members.contains(name);
                json!({
                    "id": format!("id {name}"), "name": name, "version": "1.0.0", "license": "MIT",
                    "source": if own { json!(null) } else { json!("registry+https://example.org/index") },
                    "manifest_path": format!("{name}/Cargo.toml"),
                    "dependencies": edges.iter().filter(|edge| edge.0 == *name)
                        .map(|edge| json!({"name": edge.1, "kind": role(edge.2), "features": []}))
                        .collect::<Vec<_>>(),
                })
            })
            .collect();
        let nodes: Vec<_> = all
            .iter()
            .map(|name| {
                let deps: Vec<_> = edges
                    .iter()
                    .filter(|edge| edge.0 == *name)
                    .map(|edge| json!({"pkg": format!("id {}", edge.1), "dep_kinds": [{"kind": role(edge.2)}]}))
                    .collect();
                json!({"id": format!("id {name}"), "deps": deps})
            })
            .collect();
        serde_json::from_value(json!({
            "packages": packages,
            "workspace_members": members.iter().map(|name| format!("id {name}")).collect::<Vec<_>>(),
            "resolve": {"nodes": nodes},
            "metadata": {"layers": {"order": order}},
        }))
        .unwrap()
    }

    #[test]
    fn the_closure_follows_normal_dependencies_only() {
        let graph = graph(
            &[],
            &["core"],
            &["a", "b", "tool", "prop"],
            &[
                ("core", "a", ""),
                ("a", "b", ""),
                ("a", "tool", "build"),
                ("core", "prop", "dev"),
                ("b", "a", ""),
            ],
        );
        let closure = graph.normal_closure("core");
        assert_eq!(closure.keys().copied().collect::<Vec<_>>(), ["a", "b", "core"]);
        assert_eq!(closure["b"], "core -> a -> b");
    }
}
