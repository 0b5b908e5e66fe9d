//! What `rootcast agent noop` tells of an activation, and what the activation does then.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

mod scene;

use scene::{DEADLINE, Daemon, Scene};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Templates, and two services of which one waits for the other. `RUN` stands for the directory of what they install.
const SETTINGS: &str = "
[[template]]
files = ['t/*']
[services.early]
files = ['d/**']
install = [{ from = 'd', to = 'RUN/d', how = 'copy' }, { from = 'one', to = 'RUN/one' }]
validate = [{ command = ['/bin/true', 'early'] }]
activate = [{ command = ['/bin/true', 'early'] }]
[services.a-late]
files = ['t/*']
after = ['early']
validate = [{ command = ['/bin/true', 'late'] }]
activate = [{ command = ['/bin/true', 'late'] }]
";

/// An agent that stays at its first release, so that there is something to foresee.
struct Held {
    scene: Scene,
    origin: String,
    _relay: Daemon,
    agent: Daemon,
}

impl Held {
    fn at(files: &[(&str, &str)]) -> Self {
        let scene = Scene::new();
        fs::create_dir_all(scene.path("run")).unwrap();
        let (relay, origin) = scene.relay("origin", &[]);
        let allow = format!("[allow]\ninstall = ['{}']\ncommands = ['/bin/true']\n", scene.path("run"));
        let agent = scene.agent_with(&origin, &allow);
        agent.wait_for("ready");
        let held = Self { scene, origin, _relay: relay, agent };
        held.publish(SETTINGS, files);
        held.agent.wait_for("active");
        held.verb(0, "hold");
        held
    }

    fn run(&self, name: &str) -> String {
        format!("{}/{name}", self.scene.path("run"))
    }

    fn publish(&self, settings: &str, files: &[(&str, &str)]) {
        let source = self.scene.source();
        let _ = fs::remove_dir_all(&source);
        let settings = format!("channel = 'prod'\n{}", settings.replace("RUN", &self.scene.path("run")));
        for (name, text) in files.iter().copied().chain([("rootcast.toml", settings.as_str())]) {
            let path = source.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self.scene.publish(&self.origin);
    }

    fn arguments<'a>(verb: &'a str, config: &'a str) -> [&'a str; 4] {
        ["agent", verb, "--config", config]
    }

    fn verb(&self, code: i32, verb: &str) -> Vec<Value> {
        scene::json(code, &Self::arguments(verb, &self.scene.path("web-1.toml")))
    }

    /// What is told of a release once it is held.
    fn foreseen(&self, code: i32, release: u64) -> (Value, String) {
        let config = self.scene.path("web-1.toml");
        let end = Instant::now() + DEADLINE;
        loop {
            let output = scene::rootcast(&[&Self::arguments("noop", &config)[..], &["--json"]].concat());
            let told: Value =
                serde_json::from_slice(output.stdout.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
            if told["release"] == release {
                let errors = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(code), "{told}\n{errors}");
                return (told, errors);
            }
            assert!(Instant::now() < end, "{told}");
        }
    }
}

fn pairs(told: &Value, of: &str, what: &str, whose: &str) -> Vec<String> {
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or("-").to_owned();
    told[of]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", text(one, what), text(one, whose)))
        .collect()
}

fn hooks(told: &Value) -> Vec<String> {
    pairs(told, "hooks", "phase", "what")
}

const FIRST: [(&str, &str); 6] =
    [("t/x", "{{ host }}\n"), ("d/1", "1"), ("d/2", "2"), ("d/2+", "2"), ("one", "1"), ("other", "1")];

#[test]
fn a_60_what_is_foreseen_is_what_happens() {
    // A file of several chunks stays what it is.
    let big = "0123456789".repeat(200_000);
    let large = [("d/big", big.as_str())];
    let host = Held::at(&[&FIRST[..], &large].concat());
    let (told, _) = host.foreseen(0, 1);
    assert_eq!(
        (told["changed"].as_u64(), hooks(&told).len(), told["places"].as_array().unwrap().len()),
        (Some(0), 0, 0)
    );
    fs::write(host.run("two"), "theirs").unwrap();
    let settings = SETTINGS.replace("{ from = 'one', to = 'RUN/one' }", "{ from = 'one', to = 'RUN/two' }");
    // Of the template only the text is another, not what it makes.
    let second =
        [("t/x", "{# the host #}{{ host }}\n"), ("d/1", "9"), ("d/2+", "2"), ("d/3/a", "3"), ("one", "1")];
    host.publish(&settings, &[&second[..], &large].concat());
    let (told, _) = host.foreseen(0, 2);
    assert_eq!(
        pairs(&told, "files", "what", "path"),
        ["changed d/1", "removed d/2", "added d/3/a", "removed other"]
    );
    assert_eq!(hooks(&told), ["validate /bin/true early", "activate /bin/true early"]);
    let run = |what: &str, name: &str| format!("{what} {}", host.run(name));
    let places = [
        run("replaced", "d/1"),
        run("written", "d/3/a"),
        run("taken over", "two"),
        run("removed", "d/2"),
        run("removed", "one"),
    ];
    assert_eq!(pairs(&told, "places", "what", "place"), places);
    let shown = scene::run(0, &Held::arguments("noop", &host.scene.path("web-1.toml")));
    let order = [
        "release 2 would change 4 files",
        "validate of early",
        "make the new files live",
        "removed  ",
        "activate of early",
    ];
    let at: Vec<usize> =
        order.iter().map(|part| shown.rfind(part).unwrap_or_else(|| panic!("{part}: {shown}"))).collect();
    assert!(at.is_sorted(), "{shown}");
    // None of it is done yet; and then all of it is.
    assert_eq!(fs::read_to_string(host.run("two")).unwrap(), "theirs");
    assert_eq!(fs::read_to_string(host.run("d/1")).unwrap(), "1");
    host.verb(0, "release");
    host.agent.wait_for("active");
    assert_eq!(fs::read_to_string(host.run("two")).unwrap(), "1");
    assert_eq!(fs::read_to_string(host.run("two.before-rootcast")).unwrap(), "theirs");
    assert_eq!(fs::read_to_string(host.run("d/3/a")).unwrap(), "3");
    assert!(!Path::new(&host.run("d/2")).exists() && !Path::new(&host.run("one")).exists());
    let (told, _) = host.foreseen(0, 2);
    assert_eq!(
        (told["changed"].as_u64(), hooks(&told).len(), told["places"].as_array().unwrap().len()),
        (Some(0), 0, 0)
    );
}

#[test]
fn a_60_hooks_are_foreseen_in_their_order_and_what_was_there_before_comes_back() {
    fn kept(host: &Held) {
        fs::write(host.run("one.before-rootcast"), "theirs").unwrap();
    }
    let host = Held::at(&FIRST);
    kept(&host);
    let settings = SETTINGS.replace(", { from = 'one', to = 'RUN/one' }", "");
    host.publish(&settings, &[("t/x", "new {{ host }}\n"), ("d/1", "new")]);
    let (told, _) = host.foreseen(0, 2);
    let expected = [
        "validate /bin/true early",
        "validate /bin/true late",
        "activate /bin/true early",
        "activate /bin/true late",
    ];
    assert_eq!(hooks(&told), expected);
    let back = format!("put back {}", host.run("one"));
    assert!(pairs(&told, "places", "what", "place").contains(&back), "{told}");
}

#[test]
fn a_60_what_would_be_refused_is_named() {
    let host = Held::at(&FIRST);
    // Files that this host cannot make: all of them are named.
    host.publish(SETTINGS, &[("t/x", "a\n{{ facts.none }}\n"), ("t/y", "{{ nothing }}"), ("d/1", "1")]);
    let (told, errors) = host.foreseen(1, 2);
    let wrong = told["wrong"].as_array().unwrap();
    assert_eq!(wrong.len(), 2, "{told}");
    for part in [
        "2 files cannot be made",
        "t/x:2:4: template: `facts.none` is not defined",
        "t/y:1:4: template: `nothing`",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
    // What is not permitted, with lines that can be pasted.
    let settings = SETTINGS.replace("'RUN/one'", "'/opt/one'").replace("'/bin/true', 'late'", "'/bin/false'");
    host.publish(&settings, &[("t/x", "new"), ("d/1", "1"), ("one", "1")]);
    let (told, errors) = host.foreseen(5, 3);
    let lines = format!(
        "[allow]\ncommands = [\"/bin/true\", \"/bin/false\"]\ninstall = [\"{}\", \"/opt/one\"]",
        host.scene.path("run")
    );
    assert_eq!(told["permitting"], lines);
    assert!(errors.contains(&format!("\n\n{lines}\n")), "{errors}");
    // A place that something else has.
    fs::create_dir(host.run("taken")).unwrap();
    host.publish(&SETTINGS.replace("RUN/one", "RUN/taken"), &[("t/x", "new"), ("d/1", "1"), ("one", "1")]);
    let (_, errors) = host.foreseen(5, 4);
    assert!(
        errors.contains("release 4 would be rolled back") && errors.contains("taken is a directory"),
        "{errors}"
    );
    // The agent refuses it in its own words; what would permit it is told beside them.
    host.publish(&settings, &[("t/x", "new"), ("d/1", "1"), ("one", "1")]);
    host.foreseen(5, 5);
    host.verb(0, "release");
    let failed = host.agent.wait_for("failed")["reason"].to_string();
    assert!(failed.contains("service `a-late` runs /bin/false"), "{failed}");
    let end = Instant::now() + DEADLINE;
    while host.verb(0, "history").pop().unwrap()["permitting"] != lines {
        assert!(Instant::now() < end, "{:?}", host.verb(0, "history"));
    }
    let shown = scene::run(0, &Held::arguments("history", &host.scene.path("web-1.toml")));
    assert!(shown.contains(&format!("\n\n{lines}\n")), "{shown}");
}
