//! S3.2: what others do to the live files of a real agent is put right at once.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

#[allow(unused)]
mod scene;

use scene::{Daemon, Scene, json, rootcast};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What an agent must need at most to put something right, the machine being busy with other tests.
const SOON: Duration = Duration::from_secs(10);

struct Live {
    scene: Scene,
    _origin: Daemon,
    address: String,
    agent: Daemon,
}

impl Live {
    fn new(extra: &str, more: &[(&str, &str)]) -> Self {
        let scene = Scene::new();
        let (origin, address) = scene.relay("origin", &[]);
        for (name, text) in more {
            let path = scene.source().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        scene.publish(&address);
        scene.extra(extra);
        let agent = scene.agent(&address);
        agent.wait_for("active");
        Self { scene, _origin: origin, address, agent }
    }

    fn at(&self, name: &str) -> PathBuf {
        PathBuf::from(self.scene.path("live")).join("current").join(name)
    }

    fn config(&self) -> String {
        self.scene.path("web-1.toml")
    }

    /// Waits until this holds, looking often.
    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < end, "not within {SOON:?}: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn s3_2_what_is_edited_removed_added_or_replaced_is_put_right() {
    let live = Live::new("", &[]);
    let file = "app/app.yaml";
    let wanted = fs::read(live.at(file)).unwrap();
    let right = || fs::read(live.at(file)).is_ok_and(|found| found == wanted);
    fs::write(live.at(file), "other").unwrap();
    live.until("edited", right);
    let found = live.agent.wait_for("drift");
    assert_eq!((found["paths"][0].as_str(), found["repaired"].as_bool()), (Some(file), Some(true)));
    fs::remove_file(live.at(file)).unwrap();
    live.until("removed", right);
    fs::write(live.at("app/added"), "?").unwrap();
    live.until("added", || !live.at("app/added").exists());
    fs::set_permissions(live.at(file), Permissions::from_mode(0o666)).unwrap();
    live.until("mode", || fs::metadata(live.at(file)).unwrap().permissions().mode() & 0o777 == 0o644);
    fs::remove_file(live.at(file)).and_then(|()| fs::create_dir_all(live.at(file).join("deep"))).unwrap();
    live.until("a directory in its place", right);
    fs::rename(live.at("app"), live.scene.path("elsewhere")).unwrap();
    symlink(live.scene.path("elsewhere"), live.at("app")).unwrap();
    live.until("a link for a directory", || {
        right() && !fs::symlink_metadata(live.at("app")).unwrap().is_symlink()
    });
    // What was made anew is watched again.
    fs::write(live.at(file), "once more").unwrap();
    live.until("in a directory made anew", right);
    // Neither need come to its end: what is removed is put back meanwhile.
    let _ = fs::remove_dir_all(fs::canonicalize(live.at("")).unwrap());
    live.until("all of it", right);
    fs::rename(live.scene.path("live/slots"), live.scene.path("gone")).unwrap();
    live.until("both slots", right);
    // File by file.
    live.until("each file", || rootcast(&["verify", &live.config()]).status.success());
}

#[test]
fn a_58_current_is_put_back_and_what_took_its_place_is_kept() {
    let live = Live::new("", &[]);
    let current = live.scene.path("live/current");
    let is_ours = || {
        let target = fs::read_link(&current).unwrap_or_default();
        target.starts_with("slots") && fs::read(live.at("app/app.yaml")).is_ok()
    };
    fs::remove_file(&current).unwrap();
    live.until("removed", is_ours);
    symlink("/etc", live.scene.path("live/link")).unwrap();
    fs::rename(live.scene.path("live/link"), &current).unwrap();
    live.until("another link", is_ours);
    // It is back before we are, at times.
    live.until("our directory is first", || {
        let _ = fs::remove_file(&current);
        fs::create_dir(&current).is_ok()
    });
    live.until("a directory", is_ours);
    let aside = live.agent.wait_within("drift", SOON);
    assert_eq!(aside["paths"][0], "current");
    assert!(fs::metadata(live.scene.path("live/current.found-1")).unwrap().is_dir());
}

#[test]
fn a_54_what_another_tool_keeps_rewriting_is_left_and_said_upward() {
    let live = Live::new("", &[]);
    let file = live.at("app/app.yaml");
    let config = live.scene.path("publish.toml");
    let hosts = || json(0, &["hosts", "--config", &config]).into_iter().map(|row| row.to_string());
    let said = || hosts().any(|row| row.contains("rewritten again and again"));
    let end = Instant::now() + SOON * 3;
    while !said() {
        assert!(Instant::now() < end, "nothing is said");
        fs::write(&file, "theirs").unwrap();
    }
    // Another release is another tree, and it is whole.
    fs::write(live.scene.source().join("base/app/other"), "2").unwrap();
    live.scene.publish(&live.address);
    live.agent.wait_for("active");
    live.until("the release's", || fs::read(&file).unwrap() != b"theirs");
}

#[test]
fn a_56_a_57_report_names_and_leaves_and_what_is_ignored_is_left_alone() {
    let live = Live::new("drift = 'report'\nignore = ['data/']\n", &[]);
    fs::create_dir(live.at("data")).unwrap();
    fs::write(live.at("data/db"), "theirs").unwrap();
    fs::write(live.at("app/app.yaml"), "other").unwrap();
    let found = live.agent.wait_for("drift");
    assert_eq!(
        (found["paths"][0].as_str(), found["repaired"].as_bool()),
        (Some("app/app.yaml"), Some(false))
    );
    assert_eq!(fs::read(live.at("app/app.yaml")).unwrap(), b"other");
    assert_eq!(fs::read(live.at("data/db")).unwrap(), b"theirs");
}

/// Ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_51_where_watches_are_refused_the_state_names_it_and_the_sysctl_is_said() {
    // A user namespace has a limit of its own, and takes nothing from anybody else.
    let limited = |command: &str| {
        let script = format!("echo 4 > /proc/sys/user/max_inotify_watches && {command}");
        let mut unshare = Command::new("unshare");
        unshare.args(["-Ur", "sh", "-c", &script]);
        unshare
    };
    if !limited("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return;
    }
    let scene = Scene::new();
    let (_origin, address) = scene.relay("origin", &[]);
    scene.publish(&address);
    let text = format!(
        "identity = 'platform/identities/agent-web-1'\nstate = 'state'\nlive = 'live'\n\
         relays = ['{address}']\nchannel = 'prod'\n"
    );
    fs::write(scene.path("limited.toml"), text).unwrap();
    let log = fs::File::create(scene.path("log")).unwrap();
    let agent = limited("exec \"$0\" \"$@\"")
        .args([env!("CARGO_BIN_EXE_rootcast"), "agent", &scene.path("limited.toml")])
        .stderr(log)
        .spawn();
    let _agent = Ended(agent.unwrap());
    let status = || {
        let mut stream = UnixStream::connect(scene.path("state/agent.sock")).ok()?;
        stream.write_all(b"GET /v1/status HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.contains(r#""limit":"watches""#).then_some(text)
    };
    let end = Instant::now() + SOON * 2;
    let said = loop {
        assert!(Instant::now() < end, "{}", fs::read_to_string(scene.path("log")).unwrap());
        if let Some(said) = status() {
            break said;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(said.contains(r#""state":"limited""#), "{said}");
    assert!(fs::read_to_string(scene.path("log")).unwrap().contains("fs.inotify.max_user_watches"));
}
