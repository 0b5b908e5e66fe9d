//! Secrets from a repository to hosts: real processes, real memory, two hosts
//! with one key each.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

mod common;

use common::{Deployment, Repository, Running, run};
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const FIRST: &str = "correct horse battery staple";
const SECOND: &str = "tr0ub4dor and three";
const SHARED: &str = "s3cr3t for everybody here";

/// Two hosts, `web-1` and `web-2`, and a repository with secrets for the first and for both.
struct Scene {
    deployment: Deployment,
    /// Their secrets: in memory, wherever the rest is.
    memory: tempfile::TempDir,
    source: Repository,
}

impl Scene {
    fn new() -> Self {
        let (deployment, told) = Deployment::with("main", &["agent:web-2"]);
        let recipient = told["recipients"][2].as_str().unwrap().to_owned();
        let identities = Path::new(&deployment.path("platform")).join("identities");
        let said =
            |host: &str| fs::read_to_string(identities.join(format!("agent-{host}/secrets.pub"))).unwrap();
        assert_eq!(recipient, said("web-2").trim(), "printed, and written beside the key");
        let source = Repository::init(Path::new(&deployment.path("source")));
        source.write(
            "rootcast.toml",
            &format!(
                "[recipients]\nfirst = ['{}']\n\n[[secrets]]\nfiles = ['tls/*.key']\nrecipients = ['first']\n\n\
                 [[secrets]]\nfiles = ['token', 'nothing/**']\nrecipients = ['first', '{recipient}']\n",
                said("web-1").trim()
            ),
        );
        source.write("plain", "for everybody\n");
        source.write("token", SHARED);
        source.write("tls/site.key", FIRST);
        source.write("tls/site.pem", "public\n");
        source.commit("first");
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        Self { deployment, memory, source }
    }

    fn secrets(&self, host: &str) -> PathBuf {
        self.memory.path().join(host)
    }

    fn config(&self, host: &str) -> String {
        self.deployment.path(&format!("{host}.toml"))
    }

    fn agent(&self, host: &str, relay: &str, secrets: &Path) -> Running {
        let text = format!(
            "identity = 'platform/identities/agent-{host}'\nstate = 'state-{host}'\nlive = 'live-{host}'\n\
             relays = ['{relay}']\nsecrets = '{}'\n",
            secrets.display()
        );
        fs::write(self.config(host), text).unwrap();
        let log =
            File::options().append(true).create(true).open(self.deployment.path(&format!("{host}.log")));
        Running::start_logged(&["agent", &self.config(host)], log.unwrap())
    }

    fn publish(&self, config: &str) -> Value {
        let (told, errors) = run(0, &["publish", &self.deployment.path("source"), "--config", config, "-vv"]);
        assert!(!errors.contains(FIRST) && !errors.contains(SHARED), "{errors}");
        told[0].clone()
    }

    fn current(&self, host: &str, path: &str) -> PathBuf {
        Path::new(&self.deployment.path(&format!("live-{host}/current"))).join(path)
    }

    /// Where the link of a secret leads to.
    fn target(&self, host: &str, path: &str) -> PathBuf {
        fs::read_link(self.current(host, path)).unwrap()
    }

    /// Fails where a secret can be read in a file below the platform's directory,
    /// all stores, slots, logs and reports, but for the source itself.
    fn assert_nothing_in_the_clear(&self) {
        let mut files = 0;
        for (name, (bytes, _)) in common::files(self.deployment.home.path()) {
            if name.starts_with("source/") {
                continue;
            }
            files += 1;
            for secret in [FIRST, SECOND, SHARED] {
                let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!is_there, "`{secret}` is in {name}");
            }
        }
        assert!(files > 20, "{files} files were looked at");
    }
}

fn active(agent: &Running, release: u64) -> Value {
    agent.wait_for("release", |event| {
        assert_ne!(event["event"], "failed", "{event}");
        event["event"] == "active" && event["release"] == release
    })
}

#[test]
fn a_secret_reaches_its_hosts_and_nobody_else() {
    let scene = Scene::new();
    let (_origin, address) = scene.deployment.relay("origin", "127.0.0.1:0", &[]);
    let publisher = scene.deployment.publisher("state-publisher", &address);
    let one = scene.agent("web-1", &address, &scene.secrets("web-1"));
    let two = scene.agent("web-2", &address, &scene.secrets("web-2"));
    let published = scene.publish(&publisher);
    let warning = "rootcast.toml:9:19: no file that is delivered is under `nothing/**`, so nothing is made secret by it";
    assert_eq!(published["warnings"], serde_json::json!([warning]));

    // The one has both, the other what is for both; in memory, for their owner alone.
    let (first, second) = (active(&one, 1), active(&two, 1));
    assert_eq!(
        (&first["files"], &first["secrets"], &first["secrets_left_out"]),
        (&4.into(), &2.into(), &0.into())
    );
    assert_eq!(
        (&second["files"], &second["secrets"], &second["secrets_left_out"]),
        (&3.into(), &1.into(), &1.into())
    );
    let read = |host, path| fs::read_to_string(scene.current(host, path)).unwrap();
    assert_eq!((read("web-1", "tls/site.key"), read("web-1", "token")), (FIRST.into(), SHARED.into()));
    assert_eq!((read("web-2", "plain"), read("web-2", "token")), ("for everybody\n".into(), SHARED.into()));
    assert!(fs::symlink_metadata(scene.current("web-2", "tls/site.key")).is_err());
    let key = scene.target("web-1", "tls/site.key");
    assert_eq!(key.parent(), Some(&*scene.secrets("web-1")));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o400);
    assert_eq!(fs::metadata(scene.secrets("web-1")).unwrap().permissions().mode() & 0o7777, 0o700);
    scene.assert_nothing_in_the_clear();

    // Shown as what it is, and no more.
    for host in ["web-1", "web-2"] {
        run(0, &["verify", &scene.config(host)]);
        let (shown, _) = run(0, &["inspect", &scene.config(host), "--file", "base:tls/site.key"]);
        assert_eq!((&shown[0]["kind"], shown[0].get("text")), (&"secret".into(), None));
        let (shown, _) = run(0, &["inspect", &scene.config(host), "--bundle", "base"]);
        assert_eq!(shown.iter().filter(|entry| entry["kind"] == "secret").count(), 2);
    }

    // All files are read anew, and what did not change is not sent again.
    let settings = fs::read_to_string(scene.source.path.join("rootcast.toml")).unwrap();
    scene.source.write("rootcast.toml", &format!("{settings}\n[limits]\nfiles = 1000\n"));
    scene.source.write("plain", "for everybody, anew\n");
    scene.source.commit("second");
    let published = scene.publish(&publisher);
    assert_eq!(published["files_changed"], 1, "{published}");
    assert!(published["edit_bytes"].as_u64().unwrap() < 60, "{published}");
    active(&one, 2);
    assert_eq!(scene.target("web-1", "tls/site.key"), key);

    // Another content is another file; the one before goes when no slot leads to it.
    scene.source.write("tls/site.key", SECOND);
    scene.source.commit("third");
    assert!(scene.publish(&publisher)["edit_bytes"].as_u64().unwrap() > 200);
    active(&one, 3);
    assert_eq!(read("web-1", "tls/site.key"), SECOND);
    assert_ne!(scene.target("web-1", "tls/site.key"), key);
    scene.source.write("plain", "fourth\n");
    scene.source.commit("fourth");
    scene.publish(&publisher);
    active(&one, 4);
    active(&two, 4);
    let names = |host| fs::read_dir(scene.secrets(host)).unwrap().count();
    assert_eq!((key.exists(), names("web-1"), names("web-2")), (false, 2, 1));
    scene.assert_nothing_in_the_clear();
}

#[test]
fn a_25_memory_that_was_lost_is_filled_again_at_the_start() {
    let scene = Scene::new();
    let (origin, address) = scene.deployment.relay("origin", "127.0.0.1:0", &[]);
    let publisher = scene.deployment.publisher("state-publisher", &address);
    let agent = scene.agent("web-1", &address, &scene.secrets("web-1"));
    scene.publish(&publisher);
    active(&agent, 1);
    agent.signal("TERM");
    assert!(agent.ends_within(common::DEADLINE));
    let link = scene.current("web-1", "tls/site.key");
    let inode = fs::symlink_metadata(&link).unwrap().ino();
    fs::remove_dir_all(scene.secrets("web-1")).unwrap();
    let (told, _) = run(3, &["verify", &scene.config("web-1")]);
    let differences = told[0]["current"]["differences"].to_string();
    assert!(differences.contains("tls/site.key: is a secret that is not in memory"), "{differences}");

    // Without any relay, as after a power failure of a whole datacenter.
    drop(origin);
    let agent = scene.agent("web-1", &address, &scene.secrets("web-1"));
    assert_eq!(active(&agent, 1)["flipped"], false);
    assert_eq!(fs::read_to_string(&link).unwrap(), FIRST);
    assert_eq!(fs::symlink_metadata(&link).unwrap().ino(), inode, "the slot is as it was");
    run(0, &["verify", &scene.config("web-1")]);
    fs::set_permissions(scene.target("web-1", "token"), Permissions::from_mode(0o600)).unwrap();
    fs::write(scene.target("web-1", "token"), "forged").unwrap();
    let (told, _) = run(3, &["verify", &scene.config("web-1")]);
    let differences = told[0]["current"]["differences"].to_string();
    assert!(differences.contains("token: is a secret with other content in memory"), "{differences}");
    assert!(!differences.contains(SHARED), "{differences}");
    scene.assert_nothing_in_the_clear();
}

#[test]
fn a_22_without_memory_or_with_an_open_key_nothing_becomes_live() {
    let scene = Scene::new();
    let (_origin, address) = scene.deployment.relay("origin", "127.0.0.1:0", &[]);
    let publisher = scene.deployment.publisher("state-publisher", &address);
    scene.publish(&publisher);
    // A directory that is there on every machine, and is neither memory nor disk.
    let agent = scene.agent("web-1", &address, Path::new("/proc/sys"));
    let failed = agent.wait_for("refusal", |event| event["event"] == "failed");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("/proc/sys is not in memory") && reason.contains("set `secrets`"), "{reason}");
    assert!(fs::symlink_metadata(scene.deployment.path("live-web-1/current")).is_err());
    drop(agent);

    let key = scene.deployment.path("platform/identities/agent-web-1/secrets.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let (told, errors) = run(8, &["agent", &scene.config("web-1")]);
    assert!(told.last().unwrap()["message"].as_str().unwrap().contains("has mode 644"), "{errors}");
}

#[test]
fn f_43_what_is_marked_secret_and_cannot_be_is_refused() {
    let scene = Scene::new();
    let (_origin, address) = scene.deployment.relay("origin", "127.0.0.1:0", &[]);
    let publisher = scene.deployment.publisher("state-publisher", &address);
    let refused = |message: &str| {
        scene.source.commit("wrong");
        let (_, errors) = run(4, &["publish", &scene.deployment.path("source"), "--config", &publisher]);
        assert!(errors.contains(message) && errors.contains("next:"), "{errors}");
    };
    let link = scene.source.path.join("tls/link.key");
    std::os::unix::fs::symlink("site.key", &link).unwrap();
    refused("tls/link.key is marked secret and is a link");
    fs::remove_file(&link).unwrap();
    let key = scene.source.path.join("tls/site.key");
    fs::set_permissions(&key, Permissions::from_mode(0o755)).unwrap();
    refused("tls/site.key is marked secret and is executable");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    fs::write(&key, vec![b'x'; 512 * 1024 + 1]).unwrap();
    refused("tls/site.key is marked secret and has 524289 bytes; a secret has at most 524288");
}
