//! `rootcast status` against a tree of real daemons.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

mod scene;

use scene::{DEADLINE, Scene, json, rootcast, run};
use serde_json::Value;
use std::time::Instant;

/// Asks until the answer is as wanted.
fn ask(arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = json(0, arguments).remove(0);
        if wanted(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "{answer:#}");
    }
}

fn host<'a>(answer: &'a Value, name: &str) -> &'a Value {
    answer["hosts"].as_array().unwrap().iter().find(|host| host["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn origin_relay_and_agent_as_a_tree() {
    let scene = Scene::new();
    let (_origin, address) = scene.relay("origin", &[]);
    scene.publish(&address);
    let (_relay, below) = scene.relay("eu", &[&address]);
    let agent = scene.agent(&below);
    agent.wait_for("active");

    let identity = scene.identity("agent-web-1");
    let arguments = ["status", "--identity", &identity, "--relay", &address];
    // A relay tells of those below it before it is told of itself.
    let answer = ask(&arguments, |answer| {
        host(answer, "web-1")["state"] == "active"
            && ["origin", "eu", "web-1"].iter().all(|name| host(answer, name)["parent"].is_string())
    });
    let places =
        ["origin", "eu", "web-1"].map(|name| host(&answer, name)["parent"].as_str().unwrap().to_owned());
    assert_eq!(places, ["", "origin", "eu"]);
    let web = host(&answer, "web-1");
    assert_eq!((&web["role"], &web["release"], &web["behind"]), (&"agent".into(), &1.into(), &0.into()));
    assert!(web["files"].as_u64().unwrap() > 5 && web["received"].as_u64().unwrap() > 0);
    assert_eq!((&answer["newest"], &answer["relay"]), (&1.into(), &"origin".into()));

    let text = run(0, &arguments);
    let rows: Vec<&str> = text.lines().filter(|line| line.contains("  release 1 ")).collect();
    assert!(rows[0].starts_with("origin     relay"), "{text}");
    assert!(rows[1].starts_with("  eu       relay"), "{text}");
    assert!(rows[2].starts_with("    web-1  agent"), "{text}");
    assert!(text.contains("1 host: 1 on release 1, 0 behind, 0 stale, 0 failed, 0 offline"), "{text}");
    assert!(!text.contains('\x1b'));

    // An agent's configuration names its relay and identity.
    let config = scene.path("web-1.toml");
    assert_eq!(json(0, &["status", "--config", &config])[0]["relay"], "eu");

    agent.stop();
    let answer = ask(&arguments, |answer| host(answer, "web-1")["state"] == "offline");
    assert_eq!(answer["channels"][0]["offline"], 1);
}

#[test]
fn a_stranger_and_an_address_that_is_none() {
    let (scene, other) = (Scene::new(), Scene::new());
    let (_origin, address) = scene.relay("origin", &[]);
    let stranger = rootcast(&["status", "--identity", &other.identity("agent-web-1"), "--relay", &address]);
    let errors = String::from_utf8_lossy(&stranger.stderr);
    assert_eq!(stranger.status.code(), Some(8), "{errors}");
    assert!(errors.contains("next: ask with an identity"), "{errors}");

    run(2, &["status", "--relay", &address]);
    // The relay's own configuration cannot tell the port that the system chose.
    run(2, &["status", "--config", &scene.path("origin.toml")]);

    let nobody = rootcast(&["status", "--identity", &scene.identity("agent-web-1"), "--relay", "no-port"]);
    let errors = String::from_utf8_lossy(&nobody.stderr);
    assert_eq!(nobody.status.code(), Some(7), "{errors}");
    assert!(errors.contains("next: start it with"), "{errors}");
}
