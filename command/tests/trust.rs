//! Keys, thresholds and changes of trust on a running platform, from the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // tests
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod common;

use common::{Deployment, Repository, Running, run};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

struct Platform {
    deployment: Deployment,
    _origin: Running,
    _eu: Running,
    agent: Running,
    config: String,
    repository: Repository,
}

impl Platform {
    fn start() -> Self {
        let deployment = Deployment::new("main");
        let (origin, address) = deployment.relay("origin", "127.0.0.1:0", &[]);
        let (eu, below) = deployment.relay("eu", "127.0.0.1:0", &[&address]);
        let agent = deployment.agent(&below);
        let config = deployment.publisher("publisher", &address);
        let repository = Repository::init(&deployment.home.path().join("repository"));
        let platform = Self { deployment, _origin: origin, _eu: eu, agent, config, repository };
        platform.change("0");
        platform
    }

    fn path(&self, name: &str) -> String {
        self.deployment.path(name)
    }

    fn change(&self, content: &str) {
        self.repository.write("app.conf", content);
        self.repository.commit(content);
    }

    fn source(&self) -> &str {
        self.repository.path.to_str().unwrap()
    }

    /// Waits until the host runs a release.
    fn runs(&self, release: u64) {
        self.agent.wait_for("release", |event| event["event"] == "active" && event["release"] == release);
    }

    /// Makes a key; its id and public half.
    fn key(&self, name: &str) -> (String, String, String) {
        let path = self.path(name);
        let (lines, _) = run(0, &["key", "new", &path, "--unencrypted"]);
        let text = |key: &str| lines[0][key].as_str().unwrap().to_owned();
        (path, text("id"), text("public"))
    }

    fn propose(&self, out: &str, changes: &[&str]) -> (String, Vec<Value>) {
        let out = self.path(out);
        let lines = run(0, &[&["trust", "propose", &out, "--from", &self.config], changes].concat()).0;
        (out, lines)
    }

    fn sign_trust(&self, code: i32, file: &str, key: &str) -> (Vec<Value>, String) {
        // A root key's holder has nothing but the platform's first version and its fingerprint.
        let platform = self.path("platform");
        run(code, &["trust", "sign", file, "--key", key, "--identity", &platform, "--yes"])
    }

    fn apply(&self, code: i32, file: &str) -> (Vec<Value>, String) {
        run(code, &["trust", "apply", file, "--config", &self.config])
    }

    fn root(&self) -> String {
        self.path("platform/keys/root.key")
    }

    fn publish(&self, code: i32, more: &[&str]) -> (Vec<Value>, String) {
        run(code, &[&["publish", "--config", &self.config], more].concat())
    }

    fn sign(&self, code: i32, file: &str, key: &str, more: &[&str]) -> (Vec<Value>, String) {
        let trust = ["--identity", &self.config, "--yes"];
        run(code, &[&["sign", file, "--key", key], &trust[..], more].concat())
    }
}

#[test]
fn d_41_two_publishers_sign_offline_and_the_host_gets_what_both_signed() {
    let platform = Platform::start();
    let (pass, ann) = (platform.path("pass"), platform.path("ann.key"));
    fs::write(&pass, "correct horse\n").unwrap();
    fs::set_permissions(&pass, fs::Permissions::from_mode(0o600)).unwrap();
    let made = run(0, &["key", "new", &ann, "--passphrase-file", &pass]).0;
    let grant = format!("main={}", made[0]["public"].as_str().unwrap());
    let (file, _) = platform.propose("two.trust", &["--add-publisher", &grant, "--threshold", "main=2"]);
    let (lines, _) =
        run(2, &["trust", "sign", &file, "--key", &platform.root(), "--identity", &platform.config]);
    assert_eq!(lines[0]["changes"].as_array().unwrap().len(), 2, "shown before anybody is asked: {lines:?}");
    platform.sign_trust(0, &file, &platform.root());
    assert_eq!(platform.apply(0, &file).0[0]["version"], 2);

    let ours = platform.path("platform/keys/publisher.key");
    let refused = platform.publish(8, &[platform.source()]).1;
    assert!(refused.contains("signatures of 2 publishers") && refused.contains("--unsigned"), "{refused}");
    let drafts = ["one", "late"].map(|name| {
        let path = platform.path(name);
        platform.publish(0, &[platform.source(), "--unsigned", &path]);
        path
    });
    for draft in &drafts {
        let shown = platform.sign(0, draft, &ours, &[]).0;
        assert_eq!((&shown[0]["release"], &shown[1]["signatures"]), (&1.into(), &1.into()));
        assert!(platform.sign(8, draft, &ours, &[]).1.contains("counts once"));
        assert!(platform.publish(8, &["--signed", draft]).1.contains("1 of the 2 signatures"));
        assert!(platform.sign(8, draft, &platform.root(), &[]).1.contains("may not sign"));
    }
    let wrong = platform.path("wrong");
    fs::copy(&pass, &wrong).unwrap();
    fs::write(&wrong, "another\n").unwrap();
    assert!(platform.sign(8, &drafts[0], &ann, &["--passphrase-file", &wrong]).1.contains("does not open"));
    for draft in &drafts {
        platform.sign(0, draft, &ann, &["--passphrase-file", &pass]);
    }
    // Compiled in another second, so another release of the same number, or the very same.
    let late_differs = fs::read(&drafts[0]).unwrap() != fs::read(&drafts[1]).unwrap();
    for _ in 0..2 {
        assert_eq!(platform.publish(0, &["--signed", &drafts[0]]).0[0]["release"], 1);
    }
    platform.runs(1);
    if late_differs {
        assert!(platform.publish(1, &["--signed", &drafts[1]]).1.contains("release 1 is there already"));
    }
    audit_tells(&platform);
}

/// The record has it all, and a changed line is found.
fn audit_tells(platform: &Platform) {
    let origin = platform.path("origin.toml");
    let (lines, _) = run(0, &["audit", &origin]);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["start", "trust", "publish", "checked"]);
    assert_eq!(lines[2]["fields"]["keys"].as_str().unwrap().split(' ').count(), 2, "{}", lines[2]);
    let path = platform.path("state-origin/audit.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let changed = platform.path("changed");
    fs::create_dir(&changed).unwrap();
    fs::write(format!("{changed}/audit.jsonl"), text.replace("\"version\":2", "\"version\":3")).unwrap();
    let (_, told) = run(3, &["audit", &changed]);
    assert!(told.contains("audit.jsonl:2: the record is broken here"), "{told}");
}

#[test]
fn d_43_keys_are_replaced_while_the_platform_runs() {
    let mut platform = Platform::start();
    platform.publish(0, &[platform.source()]);
    platform.runs(1);
    let trust = run(0, &["trust", "show", "--identity", &platform.config]).0;
    let old = trust[0]["grants"][0]["publishers"]["keys"][0].as_str().unwrap().to_owned();
    let (new_key, _, public) = platform.key("new.key");
    let (gone, grant) = (format!("main={old}"), format!("main={public}"));
    let useless = platform.path("useless");
    let refused = ["trust", "propose", &useless, "--from", &platform.config, "--remove-publisher", &gone];
    assert!(run(8, &refused).1.contains("nobody could"), "the only key of a grant");
    let (file, lines) = platform.propose("next", &["--remove-publisher", &gone, "--add-publisher", &grant]);
    let warning = &lines[1]["warnings"][0];
    assert!(warning.as_str().unwrap().contains("publish anew"), "{lines:?}");
    let (behind, _) = platform.propose("behind", &["--expires", "30"]);
    for file in [&file, &behind] {
        assert!(platform.sign_trust(8, file, &new_key).1.contains("may not sign"));
        platform.sign_trust(0, file, &platform.root());
        assert!(platform.sign_trust(8, file, &platform.root()).1.contains("counts once"));
    }
    platform.apply(0, &file);
    assert_eq!(platform.apply(0, &file).0[0]["version"], 2, "brought again it is no mistake");
    assert!(platform.apply(8, &behind).1.contains("version 2 is in force already"));

    platform.change("1");
    assert!(platform.publish(8, &[platform.source()]).1.contains(&old), "the old key publishes no more");
    let text = fs::read_to_string(&platform.config).unwrap();
    let with_new = platform.path("with-new.toml");
    fs::write(&with_new, text.replace("platform/keys/publisher.key", "new.key")).unwrap();
    platform.config = with_new;
    platform.publish(0, &[platform.source()]);
    platform.runs(2);

    // The root key, too: the old and the new one sign the change, and only the new one what follows.
    let root = trust[0]["roots"]["keys"][0].as_str().unwrap().to_owned();
    let (new_root, _, public) = platform.key("new-root.key");
    let (file, _) = platform.propose("roots", &["--add-root", &public, "--remove-root", &root]);
    platform.sign_trust(0, &file, &platform.root());
    assert!(platform.apply(8, &file).1.contains("0 of 1 signatures of version 3's own"));
    platform.sign_trust(0, &file, &new_root);
    platform.apply(0, &file);
    let (file, _) = platform.propose("after", &["--expires", "60"]);
    assert!(platform.sign_trust(8, &file, &platform.root()).1.contains("may not sign"));
    platform.sign_trust(0, &file, &new_root);
    assert_eq!(platform.apply(0, &file).0[0]["version"], 4);
    platform.change("2");
    platform.publish(0, &[platform.source()]);
    platform.runs(3);
    let (lines, _) = run(0, &["audit", &platform.path("state-origin")]);
    assert_eq!(lines.iter().filter(|line| line["event"] == "trust").count(), 3);
    let shown = run(0, &["trust", "show", "--identity", &platform.config]).0;
    assert_eq!(shown[0]["versions"].as_array().unwrap().len(), 4);
}

#[test]
fn init_encrypts_the_keys_that_people_hold() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (platform, pass) = (path("platform"), path("pass"));
    fs::write(&pass, "correct horse\n").unwrap();
    fs::set_permissions(&pass, fs::Permissions::from_mode(0o600)).unwrap();
    run(0, &["init", &platform, "--address", "localhost:7400", "--passphrase-file", &pass]);
    for name in ["keys/root.key", "keys/publisher.key"] {
        let key = fs::read(format!("{platform}/{name}")).unwrap();
        assert!(key.starts_with(b"age-encryption.org/"), "{name}");
        // With its passphrase it comes out again, and with no other.
        let out = path(name.rsplit('/').next().unwrap());
        run(0, &["key", "export", &format!("{platform}/{name}"), "--out", &out, "--passphrase-file", &pass]);
        assert!(fs::read(&out).unwrap().starts_with(b"-----BEGIN PRIVATE KEY"));
    }
    // A daemon opens this one, and nobody is there to type.
    let online = fs::read(format!("{platform}/origin/keys/head.key")).unwrap();
    assert!(online.starts_with(b"-----BEGIN PRIVATE KEY"));
}
