//! `rootcast verify` on stores and a live directory that real daemons wrote.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

mod scene;

use scene::{Scene, json, run};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn lines(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

/// Flips one bit of the first place where a file holds `needle`.
fn flip(path: &Path, needle: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at + needle.len() / 2] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn stores_and_live_files_clean_and_damaged() {
    let scene = Scene::new();
    // Random bytes stay as they are in a pack, whatever it does to its records.
    let marker: Vec<u8> = (0u64..64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    fs::write(scene.source().join("base/marker"), &marker).unwrap();
    let (origin, address) = scene.relay("origin", &[]);
    scene.publish(&address);
    let agent = scene.agent(&address);
    agent.wait_for("active");

    // Clean, while the daemons run; by configuration and by directory.
    let (relay_config, agent_config) = (scene.path("origin.toml"), scene.path("web-1.toml"));
    let (state, platform) = (scene.path("state-origin"), scene.path("platform"));
    for arguments in [
        vec!["verify", relay_config.as_str()],
        vec!["verify", state.as_str(), "--identity", platform.as_str()],
        vec!["verify", &scene.path("publish.toml")],
    ] {
        let report = &json(0, &arguments)[0];
        let channel = &report["channels"][0];
        assert_eq!((&channel["channel"], &channel["newest"]), (&"prod".into(), &1.into()));
        assert!(channel["objects"].as_u64().unwrap() > 5 && channel["bytes"].as_u64().unwrap() > 500);
        assert_eq!((&report["damaged"], &report["current"]), (&0.into(), &Value::Null));
    }
    let report = &json(0, &["verify", &agent_config])[0];
    assert_eq!((&report["current"]["release"], &report["current"]["found"]), (&1.into(), &0.into()));
    assert!(report["current"]["files"].as_u64().unwrap() > 5);
    assert!(run(0, &["verify", &agent_config]).contains("against release 1: good"));
    run(2, &["verify", &state]);

    // Another platform's trust document: nothing verifies.
    let other = Scene::new();
    let report = &json(3, &["verify", &state, "--identity", &other.path("platform")])[0];
    let damage = lines(&report["channels"][0]["damage"]);
    assert!(damage.iter().any(|line| line.starts_with("release 1 does not verify")), "{damage:?}");

    // What was changed on the host, file by file.
    drop(agent);
    let slot = fs::canonicalize(scene.path("live/current")).unwrap();
    let motd = slot.join("motd");
    let mut changed = fs::read(&motd).unwrap();
    changed[0] ^= 1;
    fs::write(&motd, changed).unwrap();
    fs::set_permissions(slot.join("bin/check-app"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(slot.join("marker")).unwrap();
    fs::write(slot.join("extra\x1b[2J"), "").unwrap();
    let report = &json(3, &["verify", &agent_config])[0];
    let mut differences = lines(&report["current"]["differences"]);
    differences.sort_unstable();
    assert_eq!(
        differences,
        [
            "bin/check-app: has mode 0644 instead of 0755",
            "extra\\u{1b}[2J: does not belong here",
            "marker: is missing",
            "motd: has other content",
        ]
    );

    // One bit of a pack.
    drop(origin);
    flip(&scene.pack("state-origin"), &marker);
    let report = &json(3, &["verify", &relay_config])[0];
    let damage = lines(&report["channels"][0]["damage"]);
    assert!(
        damage.iter().any(|line| line.starts_with("blob ") && line.ends_with(" is damaged")),
        "{damage:?}"
    );
    let named = damage.iter().find(|line| line.starts_with("release 1, bundle base: marker: blob "));
    assert!(named.is_some(), "{damage:?}");
    assert_eq!(report["damaged"], damage.len());
}
