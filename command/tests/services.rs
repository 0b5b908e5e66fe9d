//! Programs that are configured, reloaded, broken by a bad release and put right by themselves.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

mod scene;

use scene::{DEADLINE, Daemon, Scene};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

/// A host with services: the platform, and the place of what they write.
struct Host {
    scene: Scene,
    origin: String,
    _relay: Daemon,
}

impl Host {
    fn new() -> Self {
        let scene = Scene::new();
        fs::remove_dir_all(scene.source()).unwrap();
        fs::create_dir_all(scene.path("run")).unwrap();
        let (relay, origin) = scene.relay("origin", &[]);
        Self { scene, origin, _relay: relay }
    }

    /// Settings and files of the next release. `RUN` stands for the directory of what services write.
    fn publish(&self, settings: &str, files: &[(&str, &str)]) {
        let source = self.scene.source();
        let _ = fs::remove_dir_all(&source);
        let run = self.scene.path("run");
        let write = |name: &str, text: &str| {
            let path = source.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("RUN", &run)).unwrap();
        };
        write("rootcast.toml", &format!("channel = 'prod'\n{settings}"));
        files.iter().for_each(|(name, text)| write(name, text));
        self.scene.publish(&self.origin);
    }

    fn agent(&self, allow: &str) -> Daemon {
        let agent = self
            .scene
            .agent_with(&self.origin, &format!("[allow]\n{}", allow.replace("RUN", &self.scene.path("run"))));
        agent.wait_for("ready");
        agent
    }

    fn run(&self, name: &str) -> PathBuf {
        Path::new(&self.scene.path("run")).join(name)
    }

    fn live(&self, name: &str) -> String {
        fs::read_to_string(Path::new(&self.scene.path("live/current")).join(name)).unwrap()
    }
}

/// Waits for what comes to be.
fn until<T: PartialEq + std::fmt::Debug>(wanted: T, ask: impl Fn() -> T) {
    let end = Instant::now() + DEADLINE;
    loop {
        let found = ask();
        if found == wanted {
            return;
        }
        assert!(Instant::now() < end, "{found:?}, not {wanted:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Waits until a release is live, and gives the hooks that ran before.
fn active(agent: &Daemon, release: u64) -> Vec<String> {
    hooks_until(agent, |event| event["event"] == "active" && event["release"] == release).0
}

/// Waits until a release was rolled back, and gives the hooks that ran before, and how it is told.
fn rolled_back(agent: &Daemon, release: u64) -> (Vec<String>, Value) {
    hooks_until(agent, |event| event["event"] == "rolled-back" && event["release"] == release)
}

fn hooks_until(agent: &Daemon, wanted: impl Fn(&Value) -> bool) -> (Vec<String>, Value) {
    let mut hooks = Vec::new();
    loop {
        let event = agent.next();
        if event["event"] == "hook" {
            let verdict = if event["failure"].is_null() { "good" } else { "bad" };
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            hooks.push(format!("{} {} {verdict}", text("service"), text("phase")));
        }
        if wanted(&event) {
            return (hooks, event);
        }
    }
}

/// A daemon that reads its configuration when it starts and on HUP, and says how it likes it.
struct Hup(Child);

impl Hup {
    fn start(host: &Host) -> Self {
        let script = "
            load() { cat RUN/live.conf >> RUN/loaded; if grep -q bad RUN/live.conf; then echo broken; else echo well; fi > RUN/new; mv RUN/new RUN/health; }
            trap load HUP
            load
            echo $$ > RUN/new; mv RUN/new RUN/hup.pid
            while :; do sleep 0.02; done"
            .replace("RUN", &host.scene.path("run"));
        fs::write(host.run("live.conf"), "from before\n").unwrap();
        // A shell cannot hear a signal that whoever started the tests has ignored, as nohup does.
        let shell = ["--default-signal=HUP", "/bin/sh", "-c", &script];
        let daemon = Self(Command::new("/usr/bin/env").args(shell).spawn().unwrap());
        until(true, || host.run("hup.pid").exists());
        daemon
    }
}

impl Drop for Hup {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const HUP: &str = "
[services.hup]
files = ['hup/*']
install = [{ from = 'hup/app.conf', to = 'RUN/live.conf' }]
validate = [{ command = ['/bin/grep', '-q', 'valid', '{staged}/hup/app.conf'] }]
activate = [{ signal = 'HUP', pid_file = 'RUN/hup.pid' }]
check = [{ command = ['/bin/grep', '-q', 'well', 'RUN/health'], retries = 20, interval = 0.05, stable = 0.3 }]
";

const ALLOW_HUP: &str = "install = ['RUN']\ncommands = ['/bin/grep']\npid_files = ['RUN/hup.pid']\n";

#[test]
fn s1_11_s0_5_a_hup_daemon_is_configured_broken_and_put_right() {
    let host = Host::new();
    let _daemon = Hup::start(&host);
    let loaded = || fs::read_to_string(host.run("loaded")).unwrap();
    fs::create_dir(host.run("data")).unwrap();
    fs::write(host.run("data/db"), "S4.6: nobody's but the program's").unwrap();
    let data = || fs::metadata(host.run("data/db")).unwrap().modified().unwrap();
    let made = data();
    let agent = host.agent(ALLOW_HUP);
    host.publish(HUP, &[("hup/app.conf", "valid 1\n"), ("other", "1")]);
    assert_eq!(active(&agent, 1), ["hup validate good", "hup activate good", "hup check good"]);
    assert_eq!(loaded(), "from before\nvalid 1\n");
    // What does not touch it runs nothing.
    host.publish(HUP, &[("hup/app.conf", "valid 1\n"), ("other", "2")]);
    assert!(active(&agent, 2).is_empty());
    // Refused by validate: nothing changes.
    host.publish(HUP, &[("hup/app.conf", "wrong\n"), ("other", "3")]);
    let (hooks, event) = rolled_back(&agent, 3);
    assert_eq!(hooks, ["hup validate bad"]);
    assert_eq!((event["live"].as_u64(), host.live("other").as_str()), (Some(2), "2"));
    // Refused by check: all that changed goes back, and the daemon with it.
    host.publish(HUP, &[("hup/app.conf", "valid but bad\n"), ("other", "4")]);
    let (hooks, event) = rolled_back(&agent, 4);
    let expected =
        ["hup validate good", "hup activate good", "hup check bad", "hup activate good", "hup check good"];
    assert_eq!(hooks, expected);
    assert!(event["reason"].as_str().unwrap().contains("release 4 was rolled back: check of hup"), "{event}");
    assert_eq!((host.live("other").as_str(), host.live("hup/app.conf").as_str()), ("2", "valid 1\n"));
    assert_eq!(loaded(), "from before\nvalid 1\nvalid but bad\nvalid 1\n");
    // Nobody tries it again, also after a restart; a newer one is.
    agent.stop();
    let agent = host.agent(ALLOW_HUP);
    let (hooks, said) = rolled_back(&agent, 4);
    assert!(
        hooks.is_empty() && said["reason"].as_str().unwrap().contains("release 4 was rolled back"),
        "{said}"
    );
    host.publish(HUP, &[("hup/app.conf", "valid 5\n"), ("other", "5")]);
    assert_eq!(active(&agent, 5), ["hup validate good", "hup activate good", "hup check good"]);
    assert!(loaded().ends_with("valid 1\nvalid 5\n"));
    assert_eq!((data(), fs::read_to_string(host.run("data/db")).unwrap().starts_with("S4.6")), (made, true));
}

#[test]
fn a_45_what_a_host_does_not_permit_is_refused_before_anything_changes() {
    let host = Host::new();
    let agent = host.agent("install = ['RUN']\n");
    host.publish("", &[("other", "1")]);
    active(&agent, 1);
    host.publish(HUP, &[("hup/app.conf", "valid 1\n"), ("other", "2")]);
    let said = agent.wait_for("failed");
    let reason = said["reason"].as_str().unwrap();
    let line = format!("commands = [\"/bin/grep\"]; pid_files = [\"{}\"]", host.run("hup.pid").display());
    assert!(reason.contains("service `hup` runs /bin/grep") && reason.ends_with(&line), "{reason}");
    assert_eq!(host.live("other"), "1");
    assert!(!host.run("live.conf").exists());
    let failed = verb(&host, 0, &["history"]).into_iter().find(|line| line["failed"] == 2).unwrap();
    assert_eq!(failed["state"], "not begun");
    // Started anew it still cannot begin with that release, and keeps what is live.
    agent.stop();
    let agent = host.agent("install = ['RUN']\n");
    active(&agent, 1);
    agent.wait_for("failed");
    fs::write(Path::new(&host.scene.path("live/current")).join("other"), "by hand").unwrap();
    until("1".to_owned(), || host.live("other"));
}

/// An nginx of the test's own, ended with it.
struct Nginx(PathBuf);

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.0) {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
    }
}

fn get(port: u16, path: &str) -> String {
    let mut answer = String::new();
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return answer };
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let _ = stream.read_to_string(&mut answer);
    answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn s0_5_nginx_is_configured_broken_and_put_right() {
    let nginx = "/usr/sbin/nginx";
    if !Path::new(nginx).exists() {
        assert!(std::env::var_os("CI").is_none(), "nginx is not installed");
        return eprintln!("skipped: nginx is not installed");
    }
    let host = Host::new();
    let _nginx = Nginx(host.run("nginx.pid"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = format!(
        "test -s RUN/nginx.pid && kill -HUP $(cat RUN/nginx.pid) || {nginx} -p RUN -c {}/nginx/nginx.conf",
        host.scene.path("live/current")
    );
    let settings = format!(
        "[services.nginx]
         files = ['nginx/**']
         validate = [{{ command = ['{nginx}', '-t', '-p', 'RUN', '-c', '{{staged}}/nginx/nginx.conf'] }}]
         activate = [{{ command = ['{start}'], shell = true, environment = {{ PATH = '/usr/bin:/bin' }} }}]
         check = [{{ http = 'http://127.0.0.1:{port}/health', retries = 20, interval = 0.1, stable = 0.5 }}]
         "
    );
    let files = |version: u64, site: &str| {
        let main = format!(
            "pid RUN/nginx.pid; error_log RUN/error.log; events {{}} http {{ access_log off;
             client_body_temp_path RUN/t1; proxy_temp_path RUN/t2; fastcgi_temp_path RUN/t3; uwsgi_temp_path RUN/t4; scgi_temp_path RUN/t5;
             server {{ listen 127.0.0.1:{port}; location / {{ return 200 'v{version}'; }} include site/*.conf; }} }}"
        );
        [("nginx/nginx.conf", main), ("nginx/site/health.conf", site.to_owned())]
    };
    let publish = |version: u64, site: &str| {
        let files = files(version, site);
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        host.publish(&settings, &files);
    };
    let good = "location /health { return 200 'good'; }";
    let agent = host.agent(&format!("commands = ['{nginx}', '/bin/sh']\n"));
    publish(1, good);
    assert_eq!(active(&agent, 1), ["nginx validate good", "nginx activate good", "nginx check good"]);
    assert_eq!(get(port, "/"), "v1");
    publish(2, good);
    active(&agent, 2);
    until("v2".to_owned(), || get(port, "/"));
    // nginx itself says that this is no configuration.
    publish(3, "location /health { retrun 200; }");
    let (hooks, event) = rolled_back(&agent, 3);
    assert_eq!(hooks, ["nginx validate bad"]);
    assert!(event["output"].as_str().unwrap().contains("unknown directive \"retrun\""), "{event}");
    assert_eq!(get(port, "/"), "v2");
    // This is one, but it does not work.
    publish(4, "location /health { return 500; }");
    let (_, event) = rolled_back(&agent, 4);
    assert!(event["reason"].as_str().unwrap().contains("answered 500, where 200 is wanted"), "{event}");
    until("v2".to_owned(), || get(port, "/"));
    assert!(host.live("nginx/nginx.conf").contains("'v2'"));
    publish(5, good);
    active(&agent, 5);
    until("v5".to_owned(), || get(port, "/"));
}

/// Runs a verb of this host's agent, which must end with this code, and gives the lines of its answer.
fn verb(host: &Host, code: i32, arguments: &[&str]) -> Vec<Value> {
    let config = host.scene.path("web-1.toml");
    scene::json(code, &[&["agent"], arguments, &["--config", &config]].concat())
}

#[test]
fn a_37_an_operator_goes_back_holds_and_releases() {
    let host = Host::new();
    let _daemon = Hup::start(&host);
    let agent = host.agent(ALLOW_HUP);
    for release in 1..=3 {
        host.publish(HUP, &[("hup/app.conf", &format!("valid {release}\n"))]);
        active(&agent, release);
    }
    let shown = |count: usize| {
        let lines = verb(&host, 0, &["history"]);
        let kept = lines.iter().filter(|line| line["generation"].is_u64()).count();
        assert_eq!(kept, count, "{lines:?}");
        let live: Vec<u64> = lines
            .iter()
            .filter(|line| line["live"] == true)
            .map(|line| line["release"].as_u64().unwrap())
            .collect();
        (live, lines.last().unwrap().clone())
    };
    assert_eq!(shown(3).0, [3]);
    // Back to the one before, by the same hooks; and it stays.
    verb(&host, 0, &["rollback"]);
    assert_eq!(active(&agent, 2), ["hup validate good", "hup activate good", "hup check good"]);
    assert_eq!(host.live("hup/app.conf"), "valid 2\n");
    let (live, state) = shown(3);
    assert_eq!((live, state["hold"].as_u64()), (vec![2], Some(2)));
    host.publish(HUP, &[("hup/app.conf", "valid 4\n")]);
    let waits = verb(&host, 0, &["noop"]);
    until(Some(4), || verb(&host, 0, &["noop"])[0]["release"].as_u64());
    assert_eq!(waits[0]["live"], 2, "{waits:?}");
    let plan = &verb(&host, 0, &["noop"])[0];
    assert_eq!((plan["changed"].as_u64(), plan["hooks"].as_array().unwrap().len()), (Some(1), 3), "{plan}");
    assert_eq!(host.live("hup/app.conf"), "valid 2\n", "held");
    verb(&host, 0, &["release"]);
    active(&agent, 4);
    // A bad one is tried again when a person says so, and only then.
    host.publish(HUP, &[("hup/app.conf", "valid but bad\n")]);
    rolled_back(&agent, 5);
    assert_eq!(shown(4).1["quarantined"], 5);
    verb(&host, 0, &["release"]);
    let (hooks, _) = rolled_back(&agent, 5);
    assert_eq!(hooks.len(), 5, "{hooks:?}");
    verb(&host, 0, &["hold"]);
    assert_eq!(shown(4).1["hold"], 4);
    verb(&host, 2, &["rollback", "77"]);
    // Orders outlast the agent, and are taken while there is none.
    agent.stop();
    verb(&host, 0, &["rollback", "1"]);
    let agent = host.agent(ALLOW_HUP);
    active(&agent, 1);
    assert_eq!(host.live("hup/app.conf"), "valid 1\n");
    agent.stop();
    let sizes = verb(&host, 0, &["gc"]);
    assert!(sizes[0]["after"].as_u64() <= sizes[0]["before"].as_u64(), "{sizes:?}");
    let agent = host.agent(ALLOW_HUP);
    verb(&host, 0, &["rollback", "2"]);
    active(&agent, 2);
}

/// A service with a file that a program checks in its own time.
const SLOW: &str = "
[services.slow]
files = ['slow']
check = [{ command = ['RUN/check', '{current}/slow'], timeout = 600, retries = 1000, interval = 60 }]
";

/// A host whose first release is live, with the program that checks.
fn slow() -> (Host, Daemon) {
    let host = Host::new();
    fs::write(host.run("check"), "#!/bin/sh\nread what < $1\n$what\n").unwrap();
    fs::set_permissions(host.run("check"), fs::Permissions::from_mode(0o755)).unwrap();
    let agent = host.agent("commands = ['RUN/check']\n");
    host.publish(SLOW, &[("slow", "true\n")]);
    assert_eq!(active(&agent, 1), ["slow check good"]);
    (host, agent)
}

/// Waits until the check of a release runs, and gives what the status says.
fn checking(host: &Host, release: u64) {
    let said = format!("release {release}: checking");
    until(said, || {
        let lines = verb(host, 0, &["history"]);
        lines.last().unwrap()["now"]["reason"].as_str().unwrap_or_default().to_owned()
    });
}

#[test]
fn a_33_an_order_cuts_a_check_short() {
    let (host, agent) = slow();
    host.publish(SLOW, &[("slow", "sleep 1000\n")]);
    checking(&host, 2);
    assert_eq!(host.live("slow"), "sleep 1000\n");
    // Without a number: what is being replaced.
    verb(&host, 0, &["rollback"]);
    assert_eq!(host.live("slow"), "true\n");
    let (hooks, event) = rolled_back(&agent, 2);
    assert_eq!(hooks, ["slow check good"], "that of release 1, again");
    assert_eq!(event["live"], 1);
    let reason = "release 2 was rolled back: meanwhile the operator ordered generation 1";
    assert_eq!(event["reason"], reason);
    let failed = verb(&host, 0, &["history"]).into_iter().find(|line| line["failed"] == 2).unwrap();
    assert_eq!(failed["state"], "rolled back");
    // Whoever follows again tries it again; and holding what is good cuts it short as well.
    verb(&host, 0, &["release"]);
    checking(&host, 2);
    verb(&host, 0, &["hold"]);
    assert_eq!(rolled_back(&agent, 2).1["live"], 1);
    until(true, || {
        !Command::new("pgrep")
            .args(["-f", &format!("{}.*slow", host.scene.path("run"))])
            .output()
            .unwrap()
            .status
            .success()
    });
}

#[test]
fn f_96_a_check_that_fails_does_not_keep_a_newer_release_waiting() {
    let (host, agent) = slow();
    host.publish(SLOW, &[("slow", "false\n")]);
    checking(&host, 2);
    host.publish(SLOW, &[("slow", "echo\n")]);
    let (_, event) = rolled_back(&agent, 2);
    let said = event["reason"].as_str().unwrap();
    assert!(said.contains("ended with code 1; it is not tried again, as a newer release waits"), "{said}");
    assert_eq!(active(&agent, 3), ["slow check good"]);
}

#[test]
fn s3_3_an_agent_ends_when_it_has_converged_and_a_second_time_changes_nothing() {
    let host = Host::new();
    let _daemon = Hup::start(&host);
    // It writes the configuration file; nobody is to run meanwhile.
    drop(host.agent(ALLOW_HUP));
    host.publish(HUP, &[("hup/app.conf", "valid 1\n"), ("data", "1")]);
    let of = |lines: &[Value], name: &str| {
        lines.iter().filter(|line| line["event"] == name).cloned().collect::<Vec<_>>()
    };
    let first = verb(&host, 0, &["once", "--converged-timeout", "1"]);
    assert_eq!((of(&first, "hook").len(), of(&first, "active").len()), (3, 1));
    let written = |name: &str| fs::metadata(host.scene.path(name)).unwrap().modified().unwrap();
    let books = ["journal", "history", "installed"].map(|name| format!("state-web-1/activation/{name}"));
    let before = books.each_ref().map(|name| written(name));
    // S3.6: a second time.
    let second = verb(&host, 0, &["once"]);
    let again = &of(&second, "active")[0];
    assert_eq!(
        (again["written"].as_u64(), again["syncs"].as_u64(), again["flipped"].as_bool()),
        (Some(0), Some(0), Some(false))
    );
    assert!(of(&second, "hook").is_empty() && of(&second, "activation").is_empty(), "{second:?}");
    assert_eq!(before, books.each_ref().map(|name| written(name)));
    host.publish(HUP, &[("hup/app.conf", "valid but bad\n"), ("data", "1")]);
    let bad = verb(&host, 5, &["once"]);
    assert!(of(&bad, "error")[0]["message"].as_str().unwrap().contains("check of hup"), "{bad:?}");
    host.publish(HUP, &[("hup/app.conf", "valid 3\n"), ("data", "1")]);
    let never = verb(&host, 6, &["once", "--converged-timeout", "100", "--timeout", "3"]);
    assert!(
        of(&never, "error")[0]["message"].as_str().unwrap().starts_with("not converged after 3 s"),
        "{never:?}"
    );
}

#[test]
fn s3_6_the_graph_is_drawn() {
    let source = tempfile::tempdir().unwrap();
    let settings = "[services.a]\nfiles = ['a']\nactivate = [{ command = ['/bin/true'] }]\n\
                    [services.b]\nfiles = ['b']\nafter = ['a']\n";
    fs::write(source.path().join("rootcast.toml"), settings).unwrap();
    let drawn = scene::run(0, &["graph", "--dot", source.path().to_str().unwrap()]);
    let wanted = "digraph services {\n  rankdir=LR;\n  node [shape=box];\n  \"a\" [label=\"a\\nactivate\"];\n  \
                  \"b\" [label=\"b\\n\"];\n  \"a\" -> \"b\";\n}\n";
    assert_eq!(drawn, wanted);
    fs::write(
        source.path().join("rootcast.toml"),
        settings.replace("['a']\nact", "['a']\nafter = ['b']\nact"),
    )
    .unwrap();
    let output = scene::rootcast(&["graph", source.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("rootcast.toml:1:1: service `a` waits for itself: a -> b -> a")
    );
}

/// A hook that writes down that it ran, and does once what a file of its phase says: fails, or never ends.
const HOOK: &str = "#!/bin/sh
echo $1 >> RUN/ran
if [ -e RUN/fail-$1 ]; then mv RUN/fail-$1 RUN/failed; exit 1; fi
hang() { rm $1; echo $$ > RUN/hung.new; mv RUN/hung.new RUN/hung; exec sleep 600; }
if [ -e RUN/hang-$1 ]; then hang RUN/hang-$1; fi
if [ -e RUN/failed ] && [ -e RUN/hang-back-$1 ]; then hang RUN/hang-back-$1; fi
";

const PHASES: [&str; 8] = ["validate", "drain", "pre", "activate", "check", "undrain", "test", "post"];

/// Kills the agent while a hook hangs, and what it leaves of the hook.
fn killed_in_hook(host: &Host, agent: Daemon) {
    until(true, || host.run("hung").exists());
    drop(agent);
    let hung = fs::read_to_string(host.run("hung")).unwrap();
    assert!(Command::new("kill").args(["-KILL", hung.trim()]).status().unwrap().success());
    fs::remove_file(host.run("hung")).unwrap();
}

#[test]
fn a_33_an_agent_that_is_killed_in_any_phase_ends_with_old_or_new() {
    let host = Host::new();
    let hook = host.run("hook");
    fs::write(&hook, HOOK.replace("RUN", &host.scene.path("run"))).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let mut settings =
        "[services.s]\nfiles = ['a']\ninstall = [{ from = 'a', to = 'RUN/installed', how = 'copy' }]\n"
            .to_owned();
    for phase in PHASES {
        settings += &format!("{phase} = [{{ command = ['RUN/hook', '{phase}'], timeout = 600 }}]\n");
    }
    let allow = "install = ['RUN']\ncommands = ['RUN/hook']\n";
    let publish = |release: u64| host.publish(&settings, &[("a", &format!("{release}"))]);
    let shown = || (host.live("a"), fs::read_to_string(host.run("installed")).unwrap());
    let mut agent = host.agent(allow);
    publish(1);
    active(&agent, 1);
    let (mut release, mut live) = (1, 1);
    for phase in PHASES {
        // It goes on to the new one; or that fails after the restart, and it goes back.
        for fails in [false, true] {
            release += 1;
            fs::write(host.run(&format!("hang-{phase}")), "").unwrap();
            publish(release);
            killed_in_hook(&host, agent);
            // A state is done again from its start, so of its own phases any may fail still.
            let failing = if ["validate", "drain", "pre"].contains(&phase) { phase } else { "check" };
            if fails {
                fs::write(host.run(&format!("fail-{failing}")), "").unwrap();
            }
            agent = host.agent(allow);
            if fails {
                rolled_back(&agent, release);
            } else {
                active(&agent, release);
                live = release;
            }
            assert_eq!(shown(), (live.to_string(), live.to_string()), "{phase}, fails: {fails}");
        }
    }
    for phase in ["activate", "check", "undrain"] {
        release += 1;
        fs::write(host.run("fail-test"), "").unwrap();
        fs::write(host.run(&format!("hang-back-{phase}")), "").unwrap();
        let _ = fs::remove_file(host.run("failed"));
        publish(release);
        killed_in_hook(&host, agent);
        agent = host.agent(allow);
        rolled_back(&agent, release);
        assert_eq!(shown(), (live.to_string(), live.to_string()), "on the way back, {phase}");
    }
}
