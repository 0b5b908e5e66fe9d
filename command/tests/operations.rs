//! What operators use: hosts and why, probes and measurements, reload, and word to a service manager.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

mod scene;

use scene::{DEADLINE, Daemon, Scene, json, rootcast, run};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

/// Asks until the answer is as wanted.
fn until<T: std::fmt::Debug>(what: &str, ask: impl Fn() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let answer = ask();
        if wanted(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE * 2, "waiting for {what}: {answer:?}");
    }
}

/// A GET over HTTP/1.1: the status, and the body.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A page of measurements by the grammar of the text format: every sample follows the one HELP and
/// TYPE of its family, and no sample comes twice. Gives the samples.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let is_name = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !text.starts_with(|first: char| first.is_ascii_digit())
    };
    let (mut samples, mut families, mut family) =
        (BTreeMap::new(), BTreeSet::new(), (String::new(), String::new()));
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !text.is_empty() && families.insert(name.to_owned()), "{line}");
            family = (name.to_owned(), String::new());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(name == family.0 && matches!(kind, "counter" | "gauge"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family.1 = kind.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            assert!(name == family.0 && !family.1.is_empty(), "{line}");
            for label in labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty()) {
                let (key, text) = label.split_once('=').unwrap();
                assert!(
                    is_name(key) && text.starts_with('"') && text.ends_with('"') && text.len() >= 2,
                    "{line}"
                );
            }
            assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line} twice");
        }
    }
    samples
}

fn operations(ready: &Value) -> String {
    ready["operations"].as_str().unwrap().to_owned()
}

/// An origin, the relay `eu` below it, and below that a host that shows release 1.
struct Chain {
    _origin: Daemon,
    /// The origin's.
    address: String,
    relay: Daemon,
    agent: Daemon,
    /// An identity that may ask them all.
    ask: String,
}

impl Chain {
    fn of(scene: &Scene) -> Self {
        let (_origin, address) = scene.relay("origin", &[]);
        scene.publish(&address);
        let (relay, below) = scene.relay("eu", &[&address]);
        let agent = scene.agent(&below);
        agent.wait_for("active");
        Self { _origin, address, relay, agent, ask: scene.identity("relay-eu") }
    }
}

#[test]
fn st_22_hosts_of_a_tree_are_found_and_say_why_they_are_not_on_the_newest_release() {
    let scene = Scene::new();
    let Chain { address, relay, agent, ask, _origin } = Chain::of(&scene);
    let from = ["--identity", &ask, "--relay", &address];
    let hosts = |terms: &[&str]| json(0, &[&["hosts"], terms, &from[..]].concat());
    let found = until("the host", || hosts(&["web-*", "role=web", "state=active"]), |rows| rows.len() == 1);
    assert_eq!(found[0]["relays"], serde_json::json!(["origin", "eu"]));
    assert_eq!((&found[0]["release"], &found[0]["behind"]), (&1.into(), &0.into()));
    assert!(hosts(&["release!=1"]).is_empty());
    run(0, &[&["status", "--expect", "1"], &from[..]].concat());

    // A path that is a file in one layer and a directory in another is refused by the host (F-36), which says why.
    fs::write(scene.source().join("base/clash"), "2\n").unwrap();
    fs::create_dir_all(scene.source().join("role/web/clash")).unwrap();
    fs::write(scene.source().join("role/web/clash/file"), "2\n").unwrap();
    scene.publish(&address);
    let failed = until(
        "the failure",
        || hosts(&["release!=2"]),
        |rows| rows.len() == 1 && rows[0]["state"] == "failed",
    );
    assert!(failed[0]["reason"].as_str().unwrap().contains("clash"), "{failed:?}");
    let text = run(0, &[&["hosts", "release!=2"], &from[..]].concat());
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["HOST", "RELAY", "RELEASE", "STATE", "SINCE", "WHY"], "{text}");
    assert_eq!((words.len(), &words[1][..4]), (2, &["web-1", "eu", "1", "failed"][..]), "{text}");
    let behind = rootcast(&[&["status", "--expect", "2"], &from[..]].concat());
    assert_eq!(behind.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&behind.stderr).contains("next: `rootcast hosts 'release!=2'`"));
    for one in [&["host", "web-1"][..], &["host", "show", "web-1"]] {
        let text = run(0, &[one, &from[..]].concat());
        assert!(text.contains("state        failed") && text.contains("relays       origin > eu"), "{text}");
        assert!(text.contains("certificate  ends 2") && text.contains("labels       role=web"), "{text}");
    }
    run(3, &[&["host", "nobody"], &from[..]].concat());
    run(2, &[&["hosts", "state=broken"], &from[..]].concat());
    run(2, &["host"]);

    // Offline, and through a restart of its relay too (ST-9).
    agent.stop();
    until("the host offline", || hosts(&["state=offline"]), |rows| rows.len() == 1);
    relay.stop();
    let (_relay, _) = scene.relay("eu", &[&address]);
    // Until it is back, the answer is a part, which is told (7).
    let again = || rootcast(&[&["hosts", "state=offline", "--json"], &from[..]].concat());
    let answer = until("the relay's memory", again, |answer| {
        answer.status.code() == Some(0) && !answer.stdout.is_empty()
    });
    let offline = [serde_json::from_slice::<Value>(&answer.stdout).unwrap()];
    assert_eq!((&offline[0]["name"], &offline[0]["release"]), (&"web-1".into(), &1.into()));
}

#[test]
fn st_24_hosts_below_a_relay_that_does_not_answer_are_told_of() {
    let scene = Scene::new();
    let Chain { address, relay, agent, ask, _origin } = Chain::of(&scene);
    let from = ["--identity", &ask, "--relay", &address];
    let all = [&["hosts"], &from[..]].concat();
    until("the host", || json(0, &all), |rows| rows.len() == 1);
    // It would go to the origin when its relay is gone.
    agent.stop();
    relay.stop();
    let partial = until("the loss", || rootcast(&all), |output| output.status.code() != Some(0));
    assert_eq!(partial.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&partial.stderr).contains("eu did not answer"), "{partial:?}");
    let answer = json(0, &[&["status"], &from[..]].concat());
    assert_eq!(answer[0]["hosts"][1]["state"], "offline");
}

#[test]
fn st_42_probes_and_measurements_of_relay_and_agent() {
    let scene = Scene::new();
    scene.extra("operations = '127.0.0.1:0'\n");
    let (origin, ready) = scene.relay_ready("origin", &[], "");
    let (address, origin_at) = (ready["address"].as_str().unwrap().to_owned(), operations(&ready));
    let (_relay, ready) = scene.relay_ready("eu", &[&address], "");
    let (below, relay_at) = (ready["address"].as_str().unwrap().to_owned(), operations(&ready));
    assert_eq!(get(&relay_at, "/healthz"), (200, "alive\n".into()));
    let (status, body) = get(&relay_at, "/readyz");
    assert_eq!(status, 503);
    assert!(body.starts_with("not ready\nblocked: channel prod: there is no release yet\n"), "{body}");
    assert_eq!(get(&relay_at, "/other").0, 404);
    scene.publish(&address);
    let agent = scene.agent(&below);
    let agent_at = operations(&agent.wait_for("ready"));
    agent.wait_for("active");
    for at in [&relay_at, &agent_at] {
        until(
            "the head, which comes after the release",
            || get(at, "/readyz"),
            |answer| *answer == (200, "ready\n".into()),
        );
    }

    let of_relay = until(
        "a host in the count",
        || parse(&get(&relay_at, "/metrics").1),
        |samples| samples.get("rootcast_hosts{channel=\"prod\",state=\"active\"}") == Some(&1.0),
    );
    let channel = "{channel=\"prod\"}";
    for (name, at_least) in [
        (format!("rootcast_release_number{channel}"), 1.0),
        (format!("rootcast_pushes_total{channel}"), 1.0),
        (format!("rootcast_update_sent_bytes_total{channel}"), 100.0),
        (format!("rootcast_update_received_bytes_total{channel}"), 100.0),
        (format!("rootcast_store_bytes{channel}"), 100.0),
        (format!("rootcast_head_expires_timestamp_seconds{channel}"), 1e9),
        (format!("rootcast_parent_connected{channel}"), 1.0),
        ("rootcast_children{role=\"agent\"}".into(), 1.0),
        ("rootcast_handshakes_total{outcome=\"admitted\"}".into(), 1.0),
        ("rootcast_trust_version".into(), 1.0),
        ("rootcast_certificate_expires_timestamp_seconds".into(), 1e9),
        ("process_resident_memory_bytes".into(), 1e6),
        ("process_open_fds".into(), 5.0),
        ("process_cpu_seconds_total".into(), 0.001),
    ] {
        let value = of_relay.get(&name).unwrap_or_else(|| panic!("no {name} in {of_relay:?}"));
        assert!(*value >= at_least, "{name} is {value}");
    }
    assert_eq!(of_relay[&format!("rootcast_release_lag_seconds{channel}")], 0.0);
    assert!(of_relay.keys().all(|sample| !sample.contains("web-1")), "no host is named");
    let of_agent = parse(&get(&agent_at, "/metrics").1);
    assert_eq!(of_agent[&format!("rootcast_active_release_number{channel}")], 1.0);
    assert_eq!(of_agent["rootcast_state{channel=\"prod\",state=\"active\"}"], 1.0);
    let of_origin = parse(&get(&origin_at, "/metrics").1);
    assert!(!of_origin.contains_key(&format!("rootcast_parent_connected{channel}")));

    // Without its parent it serves on, and says so.
    origin.stop();
    let (status, body) =
        until("the loss", || get(&relay_at, "/readyz"), |(_, body)| body.contains("no parent"));
    assert!(status == 200 && body.starts_with("degraded\n"), "{body}");
    drop(agent);
}

/// Sends SIGHUP, and waits for the line of the log that it leads to.
fn hang_up(daemon: &Daemon, logged: &str) -> Value {
    daemon.signal("HUP");
    daemon.wait_for_log(logged)
}

#[test]
fn st_44_a_wrong_configuration_is_not_taken_and_a_right_one_is() {
    let scene = Scene::new();
    scene.extra("operations = '127.0.0.1:0'\nlog = 'json'\n");
    let (_first, first) = scene.relay("origin", &[]);
    scene.publish(&first);
    let (relay, ready) = scene.relay_ready("eu", &["127.0.0.1:1"], "");
    let at = operations(&ready);
    let config = scene.path("eu.toml");
    let right = fs::read_to_string(&config).unwrap();
    fs::write(&config, right.replace("parents", "parent")).unwrap();
    let line = hang_up(&relay, "the configuration is wrong");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("eu.toml:") && error.contains("`parents`"), "file, line and suggestion: {error}");
    assert_eq!(get(&at, "/healthz").0, 200, "it goes on as it was");

    // Another parent, at once; another state takes a restart, and that is said.
    let other = right.replace("127.0.0.1:1", &first).replace("state-eu", "state-other");
    fs::write(&config, other.replacen("listen", "log_level = 'debug'\nlisten", 1)).unwrap();
    let line = hang_up(&relay, "takes a restart");
    assert_eq!(line["key"], "state");
    relay.wait_for("held");
    assert!(!fs::exists(scene.path("state-other")).unwrap());
    // The level of the log too: what is told at `debug` alone.
    let below = ready["address"].as_str().unwrap();
    run(0, &["status", "--identity", &scene.identity("agent-web-1"), "--relay", below]);
    relay.wait_for_log("connection ended");
}

#[test]
fn st_45_a_service_manager_is_told() {
    let scene = Scene::new();
    let path = scene.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let wait = |wanted: &str| until(wanted, hear, |heard| heard.starts_with(wanted));
    scene.environment(&[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "200000")]);
    let (origin, _) = scene.relay("origin", &[]);
    wait("READY=1");
    wait("WATCHDOG=1");
    wait("WATCHDOG=1");
    origin.signal("HUP");
    let reloading = wait("RELOADING=1\nMONOTONIC_USEC=");
    assert!(reloading.rsplit_once('=').unwrap().1.parse::<u64>().unwrap() > 0);
    wait("READY=1");
    origin.signal("TERM");
    wait("STOPPING=1");
}

#[test]
fn st_45_the_units_are_what_systemd_takes() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/systemd");
    for (name, verb) in [("rootcast-relay.service", "relay"), ("rootcast-agent.service", "agent")] {
        let unit = fs::read_to_string(directory.join(name)).unwrap();
        let command = format!("/usr/bin/rootcast {verb} /etc/rootcast/{verb}.toml");
        for line in
            [&*format!("ExecStart={command}"), "Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict"]
        {
            assert!(unit.lines().any(|have| have == line), "{name} without {line}");
        }
        // systemd's own opinion, where it is installed.
        let scene = tempfile::tempdir().unwrap();
        let path = scene.path().join(name);
        fs::write(&path, unit.replace(&command, "/bin/true")).unwrap();
        if let Ok(verified) = std::process::Command::new("systemd-analyze").arg("verify").arg(&path).output()
        {
            let said = String::from_utf8_lossy(&verified.stderr);
            assert!(verified.status.success() && !said.contains(name), "{said}");
        }
    }
}
