//! A platform from nothing: init, invite, join, and what is published arrives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a test of a program")]

mod common;

use common::{Running, run};
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

struct Home {
    directory: tempfile::TempDir,
    origin: String,
}

impl Home {
    /// A platform whose origin will serve at a port that is free now.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let origin = socket.local_addr().unwrap().to_string();
        let home = Self { directory, origin };
        let platform = home.path("platform");
        run(0, &["init", &platform, "--address", &home.origin, "--listen", &home.origin, "--unencrypted"]);
        home
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn relay_toml(&self) -> String {
        self.path("platform/origin/relay.toml")
    }

    /// Starts a relay, and gives its address.
    fn relay(&self, config: &str) -> (Running, String) {
        let relay = Running::start(&["relay", config]);
        let ready = relay.wait_for("serving relay", |event| event["event"] == "ready");
        (relay, ready["address"].as_str().unwrap().to_owned())
    }

    /// Invites, and writes the join string into a file.
    fn invite(&self, arguments: &[&str]) -> String {
        let (lines, _) = run(0, &[&["invite", &self.relay_toml()], arguments].concat());
        let path = self.path("join-string");
        fs::write(&path, lines[0]["join"].as_str().unwrap()).unwrap();
        path
    }

    fn join(&self, string: &str, name: &str) -> PathBuf {
        let directory = self.path(name);
        run(
            0,
            &[
                "join",
                "--file",
                string,
                "--directory",
                &directory,
                "--name",
                name,
                "--listen",
                "127.0.0.1:7401",
            ],
        );
        Path::new(&directory).to_owned()
    }
}

#[test]
fn j_25_a_host_joins_through_a_relay_that_has_joined_and_gets_what_is_published() {
    let home = Home::new();
    let (_origin, _) = home.relay(&home.relay_toml());
    let relay = home.join(&home.invite(&["--role", "relay"]), "eu-1");
    // Any port will do here.
    let config = relay.join("relay.toml");
    let text = fs::read_to_string(&config).unwrap().replace("127.0.0.1:7401", "127.0.0.1:0");
    fs::write(&config, text).unwrap();
    let (_relay, address) = home.relay(config.to_str().unwrap());

    let labels = ["--label", "role=web", "--label", "region=eu"];
    let string = home.invite(&[&["--role", "agent", "--address", &address], &labels[..]].concat());
    let host = home.join(&string, "web-1");
    let agent = Running::start(&["agent", host.join("agent.toml").to_str().unwrap()]);

    for (path, content) in [
        ("rootcast.toml", "layers = [\"base\", \"role/{role}\", \"host/{host}\"]\n"),
        ("base/app", "base\n"),
        ("role/web/role", "web\n"),
        ("role/db/role", "db\n"),
        ("host/web-1/app", "web-1\n"),
    ] {
        let path = home.directory.path().join("source").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    run(0, &["publish", &home.path("source"), "--config", &home.path("platform/publish.toml")]);
    agent.wait_for("active release", |event| event["event"] == "active" && event["release"] == 1);
    // The labels of the invitation, and the name, have chosen the layers.
    for (path, content) in [("app", "web-1\n"), ("role", "web\n")] {
        assert_eq!(fs::read_to_string(host.join("live/current").join(path)).unwrap(), content);
    }
    run(0, &["verify", host.join("agent.toml").to_str().unwrap()]);

    let (list, _) = run(0, &["host", "list", &home.relay_toml()]);
    let members = list[0]["members"].as_array().unwrap();
    let row = |role: &str| members.iter().find(|member| member["role"] == role && member["name"] != "origin");
    assert_eq!(row("agent").unwrap()["labels"], "region=eu&role=web");
    assert_eq!(row("relay").unwrap()["name"], "eu-1");
    assert_eq!(members.len(), 4);
    run(0, &["host", "deny", &home.relay_toml(), "agent:web-1"]);
    let (list, _) = run(0, &["host", "list", &home.relay_toml()]);
    let denied: Vec<_> =
        list[0]["members"].as_array().unwrap().iter().filter(|member| member["denied"] == true).collect();
    assert_eq!(denied.len(), 1);
    // The publisher's certificate is young: it is given again.
    run(0, &["join", "--renew", &home.path("platform/publish.toml")]);
}

#[test]
fn threat_24_the_second_machine_with_a_string_is_refused_and_leaves_nothing() {
    let home = Home::new();
    let (_origin, _) = home.relay(&home.relay_toml());
    let string = home.invite(&["--role", "agent"]);
    home.join(&string, "web-1");
    let second = home.path("web-2");
    let (_, errors) = run(8, &["join", "--file", &string, "--directory", &second, "--name", "web-2"]);
    assert!(errors.contains("refused: the token is not valid for this, or no longer"), "{errors}");
    assert!(!Path::new(&second).exists());
    // And a machine that has joined does not join again.
    let string = home.invite(&["--role", "agent"]);
    let first = home.path("web-1");
    let (_, errors) = run(1, &["join", "--file", &string, "--directory", &first, "--name", "web-3"]);
    assert!(errors.contains("is already there"), "{errors}");
    home.join(&string, "web-3");
}

#[test]
fn a_platform_is_made_once_and_its_secrets_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let platform = home.path("platform");
    let (_, errors) = run(1, &["init", &platform, "--address", &home.origin]);
    assert!(errors.contains("already holds a platform"), "{errors}");
    let string = home.invite(&["--role", "agent", "--expires", "1d", "--uses", "3"]);
    let secret = fs::read_to_string(&string).unwrap();
    let mut private = 0;
    for (path, (bytes, _)) in common::files(Path::new(&platform)) {
        let mode = fs::metadata(Path::new(&platform).join(&path)).unwrap().permissions().mode() & 0o777;
        let text = String::from_utf8_lossy(&bytes);
        if text.contains("PRIVATE KEY") || path.contains("membership") {
            assert_eq!(mode, 0o600, "{path}");
            private += 1;
        }
        assert!(!text.contains(secret.trim()), "{path}");
    }
    assert!(private >= 8, "{private}");
    // Another issuing certificate, which the origin takes.
    let (out, keys) = (home.path("issuing"), home.path("platform/origin/keys"));
    run(0, &["init", &platform, "--renew-issuing", &out]);
    run(8, &["init", &platform, "--renew-issuing", &out]);
    for file in ["issuing.key", "issuing.pem"] {
        fs::copy(Path::new(&out).join(file), Path::new(&keys).join(file)).unwrap();
    }
    let (_origin, _) = home.relay(&home.relay_toml());
    home.join(&string, "web-1");
}

#[test]
fn j_2_a_join_string_that_cannot_be_used_says_why() {
    let home = Home::new();
    let string = home.invite(&["--role", "agent"]);
    let text = fs::read_to_string(&string).unwrap();
    let directory = home.path("host");
    let other = if &text[60..61] == "a" { 'i' } else { 'a' };
    for (spoilt, part) in [
        (text[..text.len() / 2].to_owned(), "cut off"),
        (format!("{}{other}{}", &text[..60], &text[61..]), ""),
        (text.replace("join-1", "join-9"), "version 9"),
        ("hello".into(), "not a join string"),
    ] {
        fs::write(&string, spoilt).unwrap();
        let (_, errors) = run(2, &["join", "--file", &string, "--directory", &directory, "--name", "web-1"]);
        assert!(errors.contains(part), "{errors}");
    }
    // Never on the command line, where others can read it.
    run_quietly(2, &["join", &text]);
    let (_, errors) = run(2, &["invite", &home.relay_toml(), "--role", "agent", "--expires", "90d"]);
    assert!(errors.contains("at most 30 days"), "{errors}");
    let (_, errors) = run(2, &["invite", &home.relay_toml(), "--role", "agent", "--label", "host=x"]);
    assert!(errors.contains("`host`"), "{errors}");
}

/// For refusals of the command line itself, which are no JSON.
fn run_quietly(code: i32, arguments: &[&str]) {
    assert_eq!(common::rootcast(arguments).status.code(), Some(code));
}
