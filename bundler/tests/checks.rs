//! What is refused before anything is signed, because files are wrong or hosts could not use them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // tests
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O

mod common;

use common::Repo;
use rootcast::cose::{self, DocumentKind};
use rootcast::id::{AuthorityHash, PlatformId, TrustHash};
use rootcast::path::ChannelName;
use rootcast::protocol::Interest;
use rootcast::trust::TrustChain;
use rootcast_bundler::config::Rootcast;
use rootcast_bundler::{CompileError, Founding, Making, PUBLISHER_KEY_FILE, Sealer, Signed};
use rootcast_keys::Signer;
use rootcast_replica::{Replica, Rule, Trusted, Update};
use rootcast_store::MemoryStore;
use std::sync::Arc;

const PLATFORM: PlatformId = PlatformId::from_bytes([7; 16]);

/// A publisher that needs no origin, and its repository.
struct Desk {
    repo: Repo,
    replica: Replica,
    signer: Signer,
    sealer: Sealer,
    _keys: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let keys = tempfile::tempdir().unwrap();
        let channel = ChannelName::new("main").unwrap();
        let authority = AuthorityHash::from_bytes([9; 32]);
        let founding =
            Founding { platform: PLATFORM, authority, grant: &channel, issued: 1, expires: 1 << 40 };
        let (document, _) = founding.found(keys.path(), None).unwrap();
        let payload = cose::unverified_payload(DocumentKind::Trust, &document).unwrap();
        let chain = TrustChain::pinned(&document, TrustHash::of(&payload)).unwrap();
        let store = Arc::new(MemoryStore::new());
        let replica = Replica::open(store, Trusted::in_memory(chain), channel, false, None).unwrap();
        let signer = Signer::load(&keys.path().join(PUBLISHER_KEY_FILE), PLATFORM).unwrap();
        Self { repo: Repo::new(), replica, signer, sealer: Sealer::random().unwrap(), _keys: keys }
    }

    /// Commits the work tree and makes a release of it, which is held from then on.
    fn publish(&self) -> Result<Signed, CompileError> {
        self.repo.commit();
        let source = self.repo.source();
        let settings = Rootcast::read(&source).unwrap();
        let making = Making {
            source: &source,
            settings: &settings,
            replica: &self.replica,
            sealer: &self.sealer,
            issued: 1,
            last: None,
            allow_empty: true,
            progress: &|_, _, _| {},
        };
        let signed = making.make(&self.signer)?;
        let update = Update::of_publication(signed.publication.clone(), signed.edits.clone());
        self.replica.receive(&update, &Interest::All, Rule::Own).unwrap();
        Ok(signed)
    }

    fn refused(&self) -> String {
        self.publish().map(|signed| signed.number).unwrap_err().to_string()
    }
}

#[test]
fn f_70_f_71_files_are_refused_with_their_places_and_all_are_counted() {
    let desk = Desk::new();
    desk.repo.write("a.yaml", "a: 1\nb: [\n");
    desk.repo.write("b.json", "{\"x\": 1, \"x\": 2}");
    desk.repo.write("c.toml", "a = 1\na = 2\n");
    desk.repo.write("d.ini", "[s]\nk = 1\nk = 2\n");
    desk.repo.write("e.conf", concat!("token = REPLACE", "_ME\n"));
    let message = desk.refused();
    for line in
        ["a.yaml:3:1: ", "b.json:1:10: duplicate key `x`", "c.toml:2:1: ", "d.ini:3:1: ", "e.conf:1:9: "]
    {
        assert!(message.contains(&format!("\n  {line}")), "{line}: {message}");
    }
    assert!(message.starts_with("5 things are not as hosts need it:"), "{message}");
    for at in 0..30 {
        desk.repo.write(&format!("many/{at}.json"), "x");
    }
    assert!(desk.refused().ends_with("\n  and 15 more"));
    desk.repo.write("rootcast.toml", "[checks]\noff = ['many/**', '?.*']\n");
    desk.publish().unwrap();
}

#[test]
fn f_70_only_what_changed_is_checked_again() {
    let desk = Desk::new();
    desk.repo.write("rootcast.toml", "[checks]\noff = ['a.json']\n");
    desk.repo.write("a.json", "no json");
    desk.repo.write("b.json", "{}");
    desk.publish().unwrap();
    desk.repo.write("b.json", "{\"x\": 1}");
    assert_eq!(desk.publish().unwrap().files_changed, 1);
    desk.repo.write("rootcast.toml", "");
    assert!(desk.refused().contains("a.json:1:1: "), "with other settings, all are");
}

#[test]
fn f_72_documents_are_held_to_their_schemas() {
    let desk = Desk::new();
    desk.repo.write(
        "rootcast.toml",
        "layers = ['base']\n[[validate]]\nfiles = ['app.yaml']\nschema = 'schemas/app.yaml'\n",
    );
    desk.repo.write(
        "schemas/app.yaml",
        "type: object\nrequired: [port]\nproperties:\n  port: {type: integer, maximum: 65535}\n",
    );
    desk.repo.write("base/app.yaml", "name: x\nport: 8080\n");
    desk.publish().unwrap();
    desk.repo.write("base/app.yaml", "name: x\nport: 80800\n");
    let message = desk.refused();
    assert!(
        message.contains("base/app.yaml:2:7: 80800 is greater than the maximum of 65535 (schemas/app.yaml)"),
        "{message}"
    );
    desk.repo.write("base/app.yaml", "name: x\n");
    assert!(desk.refused().contains("base/app.yaml:1:1: \\\"port\\\" is a required property"));
    desk.repo.write("base/app.yaml", "name: x\nport: 8080\n");
    desk.publish().unwrap();
    desk.repo.write("schemas/app.yaml", "type: object\nrequired: [address]\n");
    assert!(
        desk.refused().contains("base/app.yaml:1:1: "),
        "another schema is held against what did not change"
    );
    for (schema, said) in [
        ("type: 7\n", "schemas/app.yaml:1:7: is no JSON Schema: 7 is not valid"),
        ("type: object\nproperties:\n  port: {type: 7}\n", "schemas/app.yaml:3:16: is no JSON Schema"),
        ("{", "schemas/app.yaml:2:1: "),
        ("a: 1\na: 2\n", "schemas/app.yaml:2:1: duplicate key `a`"),
        ("$ref: http://127.0.0.1:1/x\n", "schemas/app.yaml:1:1: is no JSON Schema"),
    ] {
        desk.repo.write("schemas/app.yaml", schema);
        let message = desk.refused();
        assert!(message.contains(said) && message.contains("schemas/app.yaml:"), "{schema}: {message}");
    }
    desk.repo.git(&["rm", "-q", "-f", "schemas/app.yaml"]);
    assert!(desk.refused().contains("there is no such schema"));
}

const RULES: &str = "layers = ['base', 'region/{region}', 'host/{host}']\n[[merge]]\nfiles = ['*.yaml']\n\
                     [[template]]\nfiles = ['*.tpl', 't.yaml']\n\
                     [hosts.a]\nlabels = { region = 'eu' }\n[hosts.b]\nlabels = { region = 'us' }\nfacts = { cores = 8 }\n";

#[test]
fn f_65_views_of_known_hosts_are_tried() {
    let desk = Desk::new();
    desk.repo.write("rootcast.toml", RULES);
    desk.repo.write("base/app.yaml", "a: {x: 1}\n");
    desk.repo.write("region/eu/app.yaml", "a: {y: 2}\n");
    desk.repo.write("base/x.tpl", "{{ host }} {{ labels.region }}\n");
    desk.publish().unwrap();
    desk.repo.write("region/us/app.yaml", "- 1\n");
    assert!(desk.refused().contains("region/us/app.yaml:1:1: only documents that are a map"));
    desk.repo.git(&["rm", "-q", "-f", "region/us/app.yaml"]);
    desk.repo.write("base/x.tpl", "{{ host }}\n{{ facts.cores }}\n");
    let message = desk.refused();
    assert!(message.contains("base/x.tpl:2:4: template: `facts.cores` is not defined (host a)"), "{message}");
    desk.repo.write("base/x.tpl", "{{ host }");
    assert!(desk.refused().contains("base/x.tpl:1:"), "what is no template needs no host");
    desk.repo.write("base/x.tpl", "{{ host }}\n");
    desk.repo.write("base/t.yaml", "a: {{ labels.region }}: x\n");
    let message = desk.refused();
    assert!(message.contains("base/t.yaml as it is rendered:1:") && message.contains("(host a"), "{message}");
    desk.repo.git(&["rm", "-q", "-f", "base/t.yaml"]);
    desk.repo.write("host/b/x.tpl/below", "x");
    let message = desk.refused();
    assert!(message.contains("x.tpl is a file, and x.tpl/below lies beneath it (host b)"), "{message}");
}

#[test]
fn f_65_what_is_merged_for_a_host_is_held_to_the_schema() {
    let desk = Desk::new();
    let schema = "[[validate]]\nfiles = ['app.yaml']\nschema = 's.json'\n";
    desk.repo.write("rootcast.toml", RULES.replace("[hosts.a]", &format!("{schema}[hosts.a]")));
    desk.repo.write("s.json", "{\"properties\": {\"n\": {\"type\": \"integer\"}}, \"required\": [\"n\"]}");
    desk.repo.write("base/app.yaml", "x: 1\n");
    desk.repo.write("host/a/app.yaml", "y: 1\nn: many\n");
    let message = desk.refused();
    assert!(message.contains("host/a/app.yaml:2:4: ") && message.contains("(host a)"), "{message}");
    assert!(message.contains("base/app.yaml:1:1: ") && message.contains("(host b)"), "{message}");
    desk.repo.write("base/app.yaml", "n: 1\n");
    desk.repo.write("host/a/app.yaml", "y: 1\n");
    desk.publish().unwrap();
}

#[test]
fn f_30_rules_without_layers_have_a_plan() {
    let desk = Desk::new();
    desk.repo.write("a", "1");
    assert_eq!(desk.publish().unwrap().publication.leaves.len(), 1);
    desk.repo.write("rootcast.toml", "[[template]]\nfiles = ['a']\n");
    let names: Vec<String> =
        desk.publish().unwrap().publication.leaves.iter().map(|leaf| leaf.name.to_string()).collect();
    assert_eq!(names, ["base", "plan"]);
}

/// What the next publication tells, without the places.
fn told(desk: &Desk) -> Vec<String> {
    desk.publish().unwrap().warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn f_99_what_no_host_has_is_told_with_its_place_and_what_is_near() {
    let desk = Desk::new();
    let settings = "[services.web]
files = ['ngnix/**', 'base/nginx/*', 'nginx/*',
  'site.conf', 'none/at/all']
install = [{ from = 'nginx/conf.d', to = '/1' }, { from = 'conf.d', to = '/2' }, { from = 'nginx/ngnix.conf', to = '/3' },
  { from = 'link/conf.d', to = '/4' }, { from = 'base/nginx', to = '/5' }]
[[template]]
files = ['nginx/*.cof']
[[merge]]
files = ['x.yaml']
[[validate]]
files = ['y.yaml']
schema = 's.json'
[checks]
off = ['z']
";
    desk.repo.write("rootcast.toml", format!("layers = ['base']\n{settings}"));
    desk.repo.write("base/nginx/nginx.conf", "1");
    desk.repo.write("base/nginx/conf.d/site.conf", "1");
    desk.repo.link("base/link", "nginx");
    let web = |place: &str, said: &str, near: &str| {
        let effect = match said.starts_with("at") {
            true => "installs nothing from there",
            false => "never runs for one",
        };
        let near = if near.is_empty() { String::new() } else { format!("; did you mean `{near}`?") };
        format!("{place}: no host has a file {said}, so service `web` {effect}{near}")
    };
    let expected = [
        web("3:10", "under `ngnix/**`", "nginx/**"),
        web("3:22", "under `base/nginx/*`", "nginx/*"),
        web("4:3", "under `site.conf`", "**/site.conf"),
        web("4:16", "under `none/at/all`", ""),
        web("5:59", "at `conf.d`", "nginx/conf.d"),
        web("5:91", "at `nginx/ngnix.conf`", "nginx/nginx.conf"),
        web("6:49", "at `base/nginx`", "nginx"),
        "8:10: no host has a file under `nginx/*.cof`, so nothing is rendered by it".to_owned(),
        "10:10: no host has a file under `x.yaml`, so nothing is merged by it".to_owned(),
        "12:10: no host has a file under `y.yaml`, so nothing is held to its schema".to_owned(),
        "15:8: no host has a file under `z`, so nothing is left unchecked by it".to_owned(),
    ];
    assert_eq!(told(&desk), expected);
}

#[test]
fn f_99_hosts_that_are_known_count_and_some_may_have_none() {
    let desk = Desk::new();
    let settings = |hosts: &str| {
        let service = "[services.db]\nfiles = ['db/**']\n[services.web]\nfiles = ['web/*']\n";
        format!("layers = ['base', 'role/{{role}}']\n{service}{hosts}")
    };
    desk.repo.write("rootcast.toml", settings(""));
    desk.repo.write("role/db/db/one.conf", "1");
    desk.repo.write("role/web/web/one.conf", "1");
    desk.repo.write("role/web/web/two.conf", "1");
    assert_eq!(told(&desk), [""; 0], "without known hosts all files count");
    desk.repo.write("rootcast.toml", settings("[hosts.web-1.labels]\nrole = 'web'\n"));
    let for_others = "3:10: no host of [hosts] has a file under `db/**` (others have `role/db/db/one.conf`), so service \
                      `db` never runs for one";
    assert_eq!(told(&desk), [for_others]);
    desk.repo.write(
        "rootcast.toml",
        settings("[hosts.web-1.labels]\nrole = 'web'\n[hosts.db-1.labels]\nrole = 'db'\n[hosts.none]\n"),
    );
    assert_eq!(told(&desk), [""; 0], "one that has it is enough");
    desk.repo.write("role/web/web/one.conf", "2");
    desk.repo.git(&["rm", "-q", "-f", "role/web/web/two.conf"]);
    assert_eq!(told(&desk), [""; 0]);
    desk.repo.git(&["mv", "-f", "role/web/web", "role/web/wbe"]);
    assert_eq!(
        told(&desk),
        [
            "5:10: no host of [hosts] has a file under `web/*`, so service `web` never runs for one; did you mean `wbe/*`?"
        ],
        "when what was there has gone"
    );
    desk.repo.write("role/web/wbe/one.conf", "3");
    assert_eq!(told(&desk), [""; 0], "and not each time");
}
