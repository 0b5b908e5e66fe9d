//! What may be linked into what: the core stays pure (H-2), there is one
//! cryptographic provider (H-4), and secret keys have two homes (H-3).

use crate::Findings;
use crate::graph::Graph;

/// What the core must never link with, and why.
pub const NOT_IN_CORE: &[(&str, &str)] = &[
    ("async-std", "the core has no runtime"),
    ("chrono", "the core reads no clock; `now` is an argument"),
    ("crossbeam-channel", "the core has no threads"),
    ("fastrand", "the core draws no randomness"),
    ("getrandom", "the core draws no randomness"),
    ("gix", "the core reads no repository"),
    ("hyper", "the core knows no network"),
    ("inotify", "the core knows no file system"),
    ("mio", "the core has no sockets"),
    ("nix", "the core makes no system calls"),
    ("notify", "the core knows no file system"),
    ("quinn", "the core knows no network"),
    ("quinn-proto", "the core knows no network"),
    ("rand", "the core draws no randomness"),
    ("rayon", "the core has no threads"),
    ("rcgen", "the core makes no certificates"),
    ("redb", "the core knows no file system"),
    ("rustix", "the core makes no system calls"),
    ("rustls", "the core knows no network"),
    ("socket2", "the core has no sockets"),
    ("tempfile", "the core knows no file system"),
    ("time", "the core reads no clock; `now` is an argument"),
    ("tokio", "the core has no runtime"),
    ("tracing", "the core returns values; who calls it logs"),
];

/// The one provider of TLS's cryptography, and those that must not join it.
pub const PROVIDER: &str = "ring";
/// Providers and TLS stacks that must not join [`PROVIDER`].
pub const OTHER_PROVIDERS: &[&str] =
    &["aws-lc-fips-sys", "aws-lc-rs", "aws-lc-sys", "boring-sys", "native-tls", "openssl", "openssl-sys"];

/// The crate that reads, makes and writes secret signing keys (specs/architecture.md, "Where private keys are").
pub const KEY_HOME: &str = "rootcast-keys";

/// The crates that may use it: those of publishers and root key holders.
pub const KEY_USERS: &[&str] = &["rootcast-bundler", "rootcast-command", "rootcast-benches", "rootcast-sim"];

/// Features of `ed25519-dalek` that read, write or make secret keys.
const KEY_FEATURES: &[&str] = &["hazmat", "pem", "pkcs8", "rand_core", "serde"];

/// Nothing in [`NOT_IN_CORE`] is among the normal dependencies of `core`, at any depth.
pub fn core_is_pure(graph: &Graph, core: &str) -> Findings {
    let closure = graph.normal_closure(core);
    if closure.is_empty() {
        return vec![format!("there is no package `{core}`, so nothing was checked")];
    }
    NOT_IN_CORE
        .iter()
        .filter_map(|(name, reason)| Some((closure.get(name)?, reason)))
        .map(|(chain, reason)| format!("{reason}, but: {chain}"))
        .collect()
}

/// The graph has [`PROVIDER`] and none of [`OTHER_PROVIDERS`].
pub fn one_provider(graph: &Graph) -> Findings {
    let has = |name: &str| graph.packages.iter().any(|package| package.name == name);
    let mut findings = Findings::new();
    if !has(PROVIDER) {
        findings.push(format!("`{PROVIDER}`, the one cryptographic provider, is not in the graph"));
    }
    for name in OTHER_PROVIDERS.iter().filter(|name| has(name)) {
        findings.push(format!("`{name}` is in the graph; `{PROVIDER}` is the one cryptographic provider"));
    }
    findings
}

/// No member but [`KEY_HOME`] asks for what reads or makes secret keys, and
/// none but [`KEY_USERS`] for that crate. Tests may.
pub fn key_features_stay_home(graph: &Graph) -> Findings {
    let mut findings = Findings::new();
    for member in graph.members().filter(|member| member.name != KEY_HOME) {
        let wanted = || member.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev"));
        if wanted().any(|d| d.name == KEY_HOME) && !KEY_USERS.contains(&member.name.as_str()) {
            findings
                .push(format!("`{}` depends on `{KEY_HOME}`, which is for {KEY_USERS:?} only", member.name));
        }
        for feature in wanted().filter(|d| d.name == "ed25519-dalek").flat_map(|d| &d.features) {
            if KEY_FEATURES.contains(&feature.as_str()) {
                findings.push(format!(
                    "`{}` enables `{feature}` of ed25519-dalek; secret keys are for `{KEY_HOME}` only",
                    member.name
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::tests::graph;

    #[test]
    fn a_banned_crate_deep_in_the_core_is_found_with_its_chain() {
        let edges = [("core", "a", ""), ("a", "getrandom", "")];
        let findings = core_is_pure(&graph(&[], &["core"], &["a", "getrandom"], &edges), "core");
        assert_eq!(findings, ["the core draws no randomness, but: core -> a -> getrandom"]);
    }

    #[test]
    fn what_only_tests_and_build_scripts_use_is_fine() {
        let edges = [("core", "tempfile", "dev"), ("core", "cc", "build"), ("cc", "getrandom", "")];
        let graph = graph(&[], &["core"], &["tempfile", "cc", "getrandom"], &edges);
        assert!(core_is_pure(&graph, "core").is_empty());
    }

    #[test]
    fn a_core_that_is_not_there_is_not_pure() {
        assert_eq!(core_is_pure(&graph(&[], &["store"], &[], &[]), "core").len(), 1);
    }

    #[test]
    fn a_second_and_a_missing_provider_are_found() {
        assert!(one_provider(&graph(&[], &[], &["ring"], &[])).is_empty());
        assert_eq!(one_provider(&graph(&[], &[], &["ring", "aws-lc-rs"], &[])).len(), 1);
        assert_eq!(one_provider(&graph(&[], &[], &["openssl-sys"], &[])).len(), 2);
    }

    #[test]
    fn a_key_feature_outside_its_homes_is_found_and_tests_are_exempt() {
        let findings_of = |name: &str, kind: &str| {
            let mut graph = graph(&[], &[name], &["ed25519-dalek"], &[(name, "ed25519-dalek", kind)]);
            for package in &mut graph.packages {
                for wanted in &mut package.dependencies {
                    wanted.features = vec!["fast".to_owned(), "pkcs8".to_owned()];
                }
            }
            key_features_stay_home(&graph)
        };
        assert_eq!(findings_of("rootcast-agent", "").len(), 1);
        assert!(findings_of("rootcast-agent", "dev").is_empty());
        assert!(findings_of("rootcast-keys", "").is_empty());
    }
}
