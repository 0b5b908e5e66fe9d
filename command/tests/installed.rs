//! What services installed outside the live tree is kept as the live generation has it.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

#[allow(unused)]
mod scene;

use scene::{DEADLINE, Daemon, Scene};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A host with one service, and its agent.
struct Host {
    scene: Scene,
    origin: String,
    _relay: Daemon,
    agent: Daemon,
}

/// `ETC` is the directory that it may install into.
const SERVICE: &str = "
[services.s]
files = ['app/*']
install = [
  { from = 'app/copied', to = 'ETC/deep/copied', how = 'copy', mode = '0640' },
  { from = 'app/linked', to = 'ETC/linked' },
]
";

impl Host {
    fn new(mode: &str, hooks: &str) -> Self {
        let scene = Scene::new();
        fs::remove_dir_all(scene.source()).unwrap();
        fs::create_dir(scene.path("etc")).unwrap();
        let (relay, origin) = scene.relay("origin", &[]);
        scene.extra(&format!("drift = '{mode}'\n"));
        let agent = scene.agent_with(&origin, &allow(&scene));
        let host = Self { scene, origin, _relay: relay, agent };
        host.publish(1, hooks);
        host
    }

    fn publish(&self, release: u64, hooks: &str) {
        let source = self.scene.source();
        fs::create_dir_all(source.join("app")).unwrap();
        let settings = format!("channel = 'prod'\n{SERVICE}{hooks}").replace("ETC", &self.scene.path("etc"));
        fs::write(source.join("rootcast.toml"), settings).unwrap();
        for name in ["app/copied", "app/linked", "other"] {
            fs::write(source.join(name), format!("{name} {release}")).unwrap();
        }
        self.scene.publish(&self.origin);
    }

    fn active(&self, release: u64) {
        while self.agent.wait_for("active")["release"] != release {}
    }

    fn etc(&self, name: &str) -> PathBuf {
        Path::new(&self.scene.path("etc")).join(name)
    }

    fn live(&self, name: &str) -> PathBuf {
        Path::new(&self.scene.path("live/current")).join(name)
    }

    /// Whether both are as a release has them.
    fn is_right(&self, release: u64) -> bool {
        let copied = self.etc("deep/copied");
        let mode = fs::symlink_metadata(&copied)
            .ok()
            .filter(fs::Metadata::is_file)
            .map(|at| at.permissions().mode());
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        mode.is_some_and(|mode| mode & 0o7777 == 0o640)
            && text(&copied) == format!("app/copied {release}")
            && fs::read_link(self.etc("linked")).is_ok_and(|target| target == self.live("app/linked"))
            && text(&self.etc("linked")) == format!("app/linked {release}")
    }

    /// What the host says of its drift.
    fn drift(&self) -> serde_json::Value {
        let mut stream = UnixStream::connect(self.scene.path("state-web-1/agent.sock")).unwrap();
        stream.write_all(b"GET /v1/status HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str::<serde_json::Value>(body).unwrap()["drift"].clone()
    }

    fn alarm(&self) -> String {
        self.drift()["alarm"].as_str().unwrap_or_default().to_owned()
    }
}

fn allow(scene: &Scene) -> String {
    format!("[allow]\ninstall = ['{}']\ncommands = ['/bin/sh']\n", scene.path("etc"))
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[test]
fn a_52_s3_2_what_is_installed_is_put_right_whatever_is_done_to_it() {
    let host = Host::new("repair", "");
    host.active(1);
    until("installed", || host.is_right(1));
    let (copied, linked) = (host.etc("deep/copied"), host.etc("linked"));
    let right = |what: &str| until(what, || host.is_right(1));
    for (what, place) in [("the copy", &copied), ("the link", &linked)] {
        fs::remove_file(place).unwrap();
        right(&format!("{what} removed"));
        fs::write(host.etc("new"), "theirs").and_then(|()| fs::rename(host.etc("new"), place)).unwrap();
        right(&format!("another file for {what}"));
        symlink("/etc/hostname", host.etc("new")).and_then(|()| fs::rename(host.etc("new"), place)).unwrap();
        right(&format!("another link for {what}"));
    }
    fs::write(&copied, "theirs").unwrap();
    right("the copy edited");
    let found = host.agent.wait_for("drift");
    assert!(found["repaired"] == true && found["paths"][0].as_str().unwrap().contains("/etc/"), "{found}");
    // By the link it is the tree that is edited.
    fs::write(&linked, "theirs").unwrap();
    right("edited by the link");
    fs::set_permissions(&copied, Permissions::from_mode(0o666)).unwrap();
    right("the mode of the copy");
    fs::rename(host.etc("deep"), host.etc("gone")).unwrap();
    right("its directory moved away");
    fs::write(&copied, "theirs").unwrap();
    right("in a directory made anew");
    // Both at once: what the copy is of, first.
    fs::write(host.live("app/copied"), "theirs").unwrap();
    fs::write(&copied, "theirs").unwrap();
    right("the copy and what it is of");
    assert_eq!(fs::read_to_string(host.live("app/copied")).unwrap(), "app/copied 1");
    // A directory may hold somebody's data.
    fs::remove_file(&linked).unwrap();
    until("a directory is faster", || fs::create_dir(&linked).is_ok() || fs::remove_file(&linked).is_err());
    until("an alarm", || host.alarm().contains("etc/linked is a directory, which rootcast did not make"));
    fs::remove_file(&copied).unwrap();
    until("the other one", || fs::read_to_string(&copied).is_ok());
    assert!(host.alarm().contains("etc/linked is a directory"), "it is one still");
    fs::remove_dir(&linked).unwrap();
    right("the directory went");
    until("no alarm", || host.alarm().is_empty());
    // The next release comes as ever.
    host.publish(2, "");
    host.active(2);
    until("the next release", || host.is_right(2));
    fs::write(&copied, "theirs").unwrap();
    until("as in the next release", || host.is_right(2));
}

#[test]
fn a_55_what_was_done_while_there_was_no_agent_is_put_right_at_its_start() {
    let host = Host::new("repair", "");
    host.active(1);
    until("installed", || host.is_right(1));
    let Host { scene, origin, _relay, agent } = host;
    agent.stop();
    fs::write(scene.path("etc/deep/copied"), "theirs").unwrap();
    fs::remove_file(scene.path("etc/linked")).unwrap();
    let agent = scene.agent_with(&origin, &allow(&scene));
    let host = Host { scene, origin, _relay, agent };
    until("put right", || host.is_right(1));
}

#[test]
fn a_50_report_names_what_differs_and_off_says_nothing() {
    let host = Host::new("report", "");
    host.active(1);
    until("installed", || host.is_right(1));
    fs::write(host.etc("deep/copied"), "theirs").unwrap();
    fs::remove_file(host.etc("linked")).unwrap();
    let named = format!("{}, {} differ", host.etc("deep/copied").display(), host.etc("linked").display());
    until("both are named", || host.alarm().contains(&named));
    assert_eq!(host.drift()["differing"], 2);
    assert_eq!(fs::read_to_string(host.etc("deep/copied")).unwrap(), "theirs");
    // A release that installs both again ends it.
    host.publish(2, "");
    host.active(2);
    until("as released", || host.is_right(2));
    until("nothing differs", || host.alarm().is_empty() && host.drift()["differing"] == 0);
    let host = Host::new("off", "");
    host.active(1);
    fs::write(host.etc("deep/copied"), "theirs").unwrap();
    host.publish(2, "");
    host.active(2);
    assert!(host.is_right(2) && host.drift()["repaired"] == 0);
}

#[test]
fn a_52_what_hooks_of_an_activation_do_is_not_undone_before_it_ends() {
    let hook = "activate = [{ command = ['echo hook > ETC/deep/copied; touch ETC/waits; while ! test -e ETC/go; do /bin/sleep 0.01; done'], shell = true }]\n";
    let host = Host::new("repair", hook);
    fs::write(host.etc("go"), "").unwrap();
    host.active(1);
    until("installed", || host.is_right(1));
    for name in ["go", "waits"] {
        fs::remove_file(host.etc(name)).unwrap();
    }
    host.publish(2, hook);
    until("the hook runs", || host.etc("waits").exists());
    // What is done to the tree is told after what is done to the copy, and put right at any time.
    fs::write(host.live("other"), "theirs").unwrap();
    until("the tree", || fs::read_to_string(host.live("other")).unwrap() == "other 2");
    assert_eq!(fs::read_to_string(host.etc("deep/copied")).unwrap(), "hook\n");
    fs::write(host.etc("go"), "").unwrap();
    host.active(2);
    until("installed again", || host.is_right(2));
}

#[test]
fn a_54_an_alarm_about_a_generation_ends_with_it() {
    let host = Host::new("repair", "");
    host.active(1);
    let file = host.live("other");
    until("it is said", || {
        fs::write(&file, "theirs").unwrap();
        host.alarm().contains("other are rewritten again and again")
    });
    host.publish(2, "");
    host.active(2);
    let end = Instant::now() + DEADLINE;
    while !host.alarm().is_empty() {
        assert!(Instant::now() < end, "{}", host.alarm());
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "other 2");
}
