//! `rootcast inspect` on what a real origin and publisher wrote.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

mod scene;

use scene::{Scene, json, rootcast, run};
use std::fs;

fn published() -> (Scene, scene::Daemon) {
    let scene = Scene::new();
    let hostile = scene.source().join("base/\u{202e}txt.exe");
    fs::write(hostile, "x").unwrap();
    let (origin, address) = scene.relay("origin", &[]);
    scene.publish(&address);
    fs::write(scene.source().join("base/motd"), "a new message\n").unwrap();
    fs::write(scene.source().join("base/new.bin"), [0, 159, 146, 150]).unwrap();
    scene.publish(&address);
    (scene, origin)
}

#[test]
fn a_state_directory_level_by_level_while_its_daemon_runs() {
    let (scene, _origin) = published();
    let (state, platform) = (scene.path("state-origin"), scene.path("platform"));

    let overview = &json(0, &["inspect", &state])[0]["channels"][0];
    assert_eq!(overview["channel"], "prod");
    assert_eq!(overview["floor"]["release"], 2);
    assert_eq!(overview["releases"][1]["signatures"], "not checked");
    let text = run(0, &["inspect", &state]);
    assert!(text.contains("signatures: not checked (give --identity)"), "{text}");
    let text = run(0, &["inspect", &state, "--identity", &platform]);
    assert!(text.contains("  release 2  ") && text.contains("verified"), "{text}");

    let release = &json(0, &["inspect", &state, "--release", "2", "--identity", &platform])[0];
    assert_eq!((&release["release"], &release["signatures"]), (&2.into(), &"verified".into()));
    let leaves = release["leaves"].as_array().unwrap();
    let base = leaves.iter().find(|leaf| leaf["name"] == "base").unwrap();
    assert_eq!(base["sequence"], 2);
    assert_eq!(release["bundles"].as_u64().unwrap(), leaves.len() as u64);

    let files = json(0, &["inspect", &state, "--bundle", "base"]);
    assert_eq!(files.len() as u64, base["files"].as_u64().unwrap());
    let motd = files.iter().find(|file| file["path"] == "motd").unwrap();
    assert_eq!(motd["size"], "a new message\n".len());
    let old = json(0, &["inspect", &state, "--bundle", "base", "--release", "1"]);
    assert_eq!(old.len() + 1, files.len());
    assert!(files.iter().any(|file| file["path"] == "bin/check-app" && file["mode"] == "0755"));

    let edit = &json(0, &["inspect", &state, "--edit", "base:2"])[0];
    assert_eq!((&edit["added"], &edit["replaced"], &edit["deleted"]), (&1.into(), &1.into(), &0.into()));

    let file = rootcast(&["inspect", &state, "--file", "base:new.bin"]);
    assert_eq!(file.stdout, [0, 159, 146, 150]);
    assert_eq!(run(0, &["inspect", &state, "--file", "base:motd"]), "a new message\n");
    let sample =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/sample/base/motd")).unwrap();
    assert_eq!(run(0, &["inspect", &state, "--release", "1", "--file", "base:motd"]), sample);
    assert_eq!(json(0, &["inspect", &state, "--file", "base:new.bin"])[0]["hex"], "009f9296");

    // Names that could drive a terminal are shown, not sent.
    let text = run(0, &["inspect", &state, "--bundle", "base"]);
    assert!(text.contains("\\u{202e}txt.exe") && !text.contains('\u{202e}'), "{text}");

    for (arguments, words) in [
        (vec!["--release", "9"], "releases from 1 to 2"),
        (vec!["--bundle", "nothing"], "bundles held: base"),
        (vec!["--edit", "base:7"], "relays keep the edits"),
        (vec!["--file", "base:no/such"], "has no no/such"),
    ] {
        let all: Vec<&str> = ["inspect", state.as_str()].into_iter().chain(arguments).collect();
        let output = rootcast(&all);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && errors.contains(words), "{all:?}: {errors}");
    }
}

#[test]
fn documents_with_and_without_trust() {
    let (scene, other) = (Scene::new(), Scene::new());
    let trust = scene.path("platform/trust.cose");
    let fingerprint = fs::read_to_string(scene.path("platform/fingerprint")).unwrap();

    let shown = &json(0, &["inspect", &trust])[0];
    assert_eq!((&shown["kind"], &shown["signatures"]), (&"trust".into(), &"not checked".into()));
    assert_eq!(shown["fingerprint"], fingerprint.trim());
    assert_eq!(shown["grants"][0]["prefix"], "prod");
    assert_eq!(shown["signed_by"], shown["roots"]["keys"]);
    let text = run(0, &["inspect", &trust]);
    assert!(text.contains("signatures   not checked (give --identity)"), "{text}");
    for option in [["--identity", &scene.path("platform")], ["--trust", &trust]] {
        let shown = &json(0, &["inspect", &trust, option[0], option[1]])[0];
        assert_eq!(shown["signatures"], "verified");
    }
    // Another platform's trust document says nothing for this one.
    let lines = json(8, &["inspect", &trust, "--identity", &other.path("platform")]);
    assert!(lines[0]["signatures"]["refused"].as_str().unwrap().contains("pinned"), "{lines:?}");

    // One bit of the signature.
    let mut bytes = fs::read(&trust).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let changed = scene.path("changed.cose");
    fs::write(&changed, bytes).unwrap();
    json(0, &["inspect", &changed]);
    json(8, &["inspect", &changed, "--identity", &scene.path("platform")]);

    let rubbish = scene.path("rubbish");
    fs::write(&rubbish, b"\x1b[2Jnothing").unwrap();
    let output = rootcast(&["inspect", &rubbish]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!output.stderr.contains(&0x1b));
}

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/vectors");

#[test]
fn golden_documents_and_edits() {
    let index: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(format!("{VECTORS}/index.json")).unwrap()).unwrap();
    let trust = format!("{VECTORS}/trust.cose");
    assert_eq!(json(0, &["inspect", &trust])[0]["fingerprint"], index["trust"]["fingerprint"]);
    let releases = index["releases"].as_array().unwrap();
    assert!(!releases.is_empty());
    for release in releases {
        let file = format!("{VECTORS}/{}", release["file"].as_str().unwrap());
        let shown = &json(0, &["inspect", &file, "--trust", &trust])[0];
        assert_eq!((&shown["kind"], &shown["signatures"]), (&"release".into(), &"verified".into()));
        assert_eq!(shown["hash"], release["hash"]);
        assert_eq!(shown["bundles_root"], release["bundles_root"]);
        assert!(run(0, &["inspect", &file]).contains("not checked (give --identity)"));
    }
    let edit = &json(0, &["inspect", &format!("{VECTORS}/edits/empty-wide.edit")])[0];
    assert_eq!((&edit["kind"], &edit["deleted"]), (&"edit".into(), &0.into()));
    let wide = index["edits"]
        .as_array()
        .unwrap()
        .iter()
        .find(|edit| edit["file"] == "edits/empty-wide.edit")
        .unwrap();
    assert_eq!(
        edit["added"].as_u64().unwrap() + edit["copied"].as_u64().unwrap(),
        wide["files"].as_u64().unwrap()
    );

    // Its signatures are good; what is wrong with it is only the channel it is offered for.
    let sound = "refuse/release-other-channel";
    let refused = index["refuse"].as_array().unwrap().iter().filter(|case| case["what"] == "release");
    let mut count = 0;
    for file in refused.map(|case| case["file"].as_str().unwrap()).filter(|file| *file != sound) {
        let output = rootcast(&["inspect", &format!("{VECTORS}/{file}"), "--trust", &trust]);
        assert!(matches!(output.status.code(), Some(1 | 8)), "{file}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("verified"), "{file}");
        count += 1;
    }
    assert!(count > 5);
}
