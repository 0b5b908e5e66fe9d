//! Every house rule, on this workspace (specs/architecture.md, H-1 to H-10).

#![allow(clippy::expect_used, reason = "a test")]

use rootcast_checks::graph::{Graph, Package};
use rootcast_checks::policy::Policy;
use rootcast_checks::source::Source;
use rootcast_checks::{Findings, closure, layers, manifest, policy, source};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const CORE: &str = "rootcast";

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("the crate is in the workspace").to_owned()
});
static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy::load(&ROOT.join("deny.toml")).expect("deny.toml"));
static GRAPH: LazyLock<Graph> =
    LazyLock::new(|| Graph::load(&ROOT, &POLICY.graph.targets).expect("the graph of the workspace"));

fn home(member: &Package) -> &Path {
    member.manifest_path.parent().expect("a manifest is in a directory")
}

/// Sources below a part of a member, their paths from the root of the repository.
fn sources(member: &Package, part: &str, with_tests: bool) -> Vec<Source> {
    let mut all = source::read_all(&home(member).join(part), with_tests).expect("sources");
    for source in &mut all {
        source.path = source.path.strip_prefix(&*ROOT).expect("a member is below the root").to_owned();
    }
    all
}

/// The sources of a member that ship: `src`, without tests.
fn shipped(member: &Package) -> Vec<Source> {
    let all = sources(member, "src", false);
    assert!(!all.is_empty(), "{} has no sources, so nothing would be checked", member.name);
    all.iter().map(Source::without_tests).collect()
}

fn holds(findings: &Findings) {
    assert!(findings.is_empty(), "\n  {}\n", findings.join("\n  "));
}

#[test]
fn every_member_has_one_layer() {
    holds(&layers::table_is_complete(&GRAPH));
}

#[test]
fn imports_go_to_lower_layers_only() {
    holds(&layers::imports_go_down(&GRAPH));
}

#[test]
fn the_core_links_with_nothing_that_does_io() {
    holds(&closure::core_is_pure(&GRAPH, CORE));
}

#[test]
fn the_core_names_nothing_that_does_io() {
    let core = GRAPH.members().find(|member| member.name == CORE).expect("the core");
    holds(&source::core_does_no_io(&shipped(core)));
}

#[test]
fn secret_keys_are_where_documents_are_signed_only() {
    let others = GRAPH.members().filter(|member| {
        member.name != closure::KEY_HOME && !closure::KEY_USERS.contains(&member.name.as_str())
    });
    let mut findings: Findings = others.flat_map(|member| source::secret_keys(&shipped(member))).collect();
    findings.extend(closure::key_features_stay_home(&GRAPH));
    holds(&findings);
}

#[test]
fn there_is_one_cryptographic_provider() {
    holds(&closure::one_provider(&GRAPH));
}

#[test]
fn members_run_on_a_simulated_machine_too() {
    const MEMBERS: [&str; 3] = ["rootcast-replica", "rootcast-relay", "rootcast-agent"];
    let members: Vec<_> = GRAPH.members().filter(|member| MEMBERS.contains(&member.name.as_str())).collect();
    assert_eq!(members.len(), MEMBERS.len());
    let all = members.into_iter().flat_map(shipped);
    let all = all.filter(|source| !source.path.ends_with("replica/src/machine.rs"));
    holds(&source::can_be_simulated(&all.collect::<Vec<_>>()));
}

#[test]
fn every_licence_is_allowed() {
    holds(&policy::licences(&GRAPH, &POLICY));
}

#[test]
fn every_crate_comes_from_the_registry() {
    holds(&policy::sources(&GRAPH, &POLICY));
}

#[test]
fn no_banned_crate_is_in_the_graph() {
    holds(&policy::bans(&GRAPH, &POLICY));
}

#[test]
fn two_versions_of_a_crate_have_a_reason() {
    holds(&policy::duplicates(&GRAPH, &POLICY));
}

#[test]
fn every_dependency_has_a_reason() {
    holds(&manifest::reasons(&manifest::read(&ROOT.join("Cargo.toml")).expect("the root manifest")));
}

#[test]
fn every_member_inherits_lints_and_dependencies() {
    let findings = GRAPH.members().flat_map(|member| {
        let table = manifest::read_toml(&member.manifest_path).expect("a manifest");
        manifest::inherits(&member.name, &table)
    });
    holds(&findings.collect());
}

#[test]
fn nothing_is_left_unfinished() {
    let findings = GRAPH.members().flat_map(|member| {
        let parts = ["src", "tests", "benches", "examples"];
        parts.into_iter().flat_map(|part| source::finished(&sources(member, part, true)))
    });
    holds(&findings.collect());
}

#[test]
fn no_source_file_is_too_long() {
    holds(&GRAPH.members().flat_map(|member| source::sizes(&shipped(member))).collect());
}
