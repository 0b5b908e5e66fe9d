//! Imports go one way: to lower layers only (H-1).

use crate::Findings;
use crate::graph::Graph;
use std::collections::BTreeMap;

/// The table names every member of the workspace once, and nothing else.
pub fn table_is_complete(graph: &Graph) -> Findings {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in graph.layers().iter().flatten() {
        *counts.entry(name).or_default() += 1;
    }
    let mut findings = Findings::new();
    for member in graph.members() {
        match counts.remove(member.name.as_str()) {
            None => findings.push(format!("`{}` has no layer in [workspace.metadata.layers]", member.name)),
            Some(1) => {}
            Some(count) => findings.push(format!("`{}` has {count} layers; name it once", member.name)),
        }
    }
    findings.extend(counts.keys().map(|name| format!("the layers name `{name}`, which is no member")));
    findings
}

/// Every dependency between members, in whatever role, leads to a strictly lower layer.
pub fn imports_go_down(graph: &Graph) -> Findings {
    let layer_of =
        |name: &str| graph.layers().iter().position(|layer| layer.iter().any(|entry| entry == name));
    let mut findings = Findings::new();
    for member in graph.members() {
        for wanted in &member.dependencies {
            if !graph.members().any(|other| other.name == wanted.name) {
                continue;
            }
            let role = wanted.kind.as_deref().unwrap_or("normal");
            match (layer_of(&member.name), layer_of(&wanted.name)) {
                (Some(own), Some(other)) if other < own => {}
                (Some(own), Some(other)) if other == own => findings.push(format!(
                    "`{}` imports `{}` of its own layer ({role}); move what both need to a lower one",
                    member.name, wanted.name
                )),
                (Some(_), Some(_)) => findings.push(format!(
                    "`{}` imports `{}` of a higher layer ({role}); turn the import round",
                    member.name, wanted.name
                )),
                _ => findings.push(format!(
                    "`{}` imports `{}` ({role}), and one of them has no layer",
                    member.name, wanted.name
                )),
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::tests::graph;

    const ORDER: &[&[&str]] = &[&["core"], &["store", "transport"], &["command"]];
    const MEMBERS: &[&str] = &["core", "store", "transport", "command"];

    #[test]
    fn downward_imports_and_foreign_crates_are_fine() {
        let edges = [
            ("store", "core", ""),
            ("command", "store", ""),
            ("command", "core", "dev"),
            ("core", "hex", ""),
        ];
        let graph = graph(ORDER, MEMBERS, &["hex"], &edges);
        assert!(table_is_complete(&graph).is_empty());
        assert!(imports_go_down(&graph).is_empty());
    }

    #[test]
    fn an_import_within_a_layer_or_upward_is_found_in_every_role() {
        for kind in ["", "build", "dev"] {
            let edges = [("store", "transport", kind), ("core", "command", kind)];
            let findings = imports_go_down(&graph(ORDER, MEMBERS, &[], &edges));
            assert_eq!(findings.len(), 2, "{findings:?}");
            assert!(findings[0].contains("higher layer"), "{findings:?}");
            assert!(findings[1].contains("own layer"), "{findings:?}");
        }
    }

    #[test]
    fn an_import_of_a_crate_without_a_layer_is_found() {
        let graph = graph(&[&["core"]], &["core", "store"], &[], &[("core", "store", "")]);
        assert_eq!(imports_go_down(&graph).len(), 1);
    }

    #[test]
    fn a_missing_a_doubled_and_a_strange_name_are_found() {
        let order: &[&[&str]] = &[&["core"], &["store", "core"], &["ghost"]];
        let findings = table_is_complete(&graph(order, &["core", "store", "agent"], &[], &[]));
        assert_eq!(findings.len(), 3, "{findings:?}");
    }

    #[test]
    fn a_workspace_without_the_table_fails() {
        assert_eq!(table_is_complete(&graph(&[], &["core"], &[], &[])).len(), 1);
    }
}
