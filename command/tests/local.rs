//! Programs of a host and their agent: the local API, `get`, `watch`, `exec`, and the examples of the documentation.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

#[allow(unused)]
mod scene;

use rootcast::limits::MAX_LOCAL_WATCHERS;
use scene::{DEADLINE, Daemon, Scene, json, rootcast, run};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

struct Host {
    scene: Scene,
    origin: Option<Daemon>,
    address: String,
    agent: Option<Daemon>,
}

impl Host {
    fn new() -> Self {
        let scene = Scene::new();
        let (origin, address) = scene.relay("origin", &[]);
        let mut host = Self { scene, origin: Some(origin), address, agent: None };
        host.write("app/app.json", r#"{"server": {"port": 1}}"#);
        host.write("app/limits.toml", "[limits]\nrates = [1, 2]\n");
        host.publish();
        host.start();
        host
    }

    fn start(&mut self) {
        let agent = self.scene.agent(&self.address);
        agent.wait_for("active");
        self.agent = Some(agent);
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.scene.source().join("base").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn publish(&self) {
        self.scene.publish(&self.address);
    }

    /// Publishes this text as `app/app.json` and waits until it is live.
    fn release(&self, text: &str) {
        self.write("app/app.json", text);
        self.publish();
        self.agent.as_ref().unwrap().wait_for("active");
    }

    fn socket(&self) -> String {
        self.scene.path("state-web-1/agent.sock")
    }

    fn config(&self) -> String {
        self.scene.path("web-1.toml")
    }

    fn current(&self, name: &str) -> String {
        self.scene.path(&format!("live/current/{name}"))
    }

    /// Sends a request; the status, the fields of the head, and the rest.
    fn ask(&self, request: &str) -> (u16, String, BufReader<UnixStream>) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "{request}\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), reader)
    }

    fn get(&self, target: &str) -> (u16, String, String) {
        let (status, head, mut rest) = self.ask(&format!("GET {target} HTTP/1.0"));
        let mut body = String::new();
        rest.read_to_string(&mut body).unwrap();
        (status, head, body)
    }
}

/// A process whose lines are read; killed when dropped.
struct Lines {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Lines {
    fn drop(&mut self) {
        // Asked first: `exec` then ends its program too.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let end = Instant::now() + DEADLINE;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line)).unwrap_or_default()
        });
        Self { child, lines: receiver }
    }

    fn rootcast(arguments: &[&str]) -> Self {
        Self::start(env!("CARGO_BIN_EXE_rootcast"), arguments)
    }

    #[track_caller]
    fn expect(&self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|error| panic!("no `{text}`: {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

fn has(program: &str) -> bool {
    Command::new("which").arg(program).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name).to_str().unwrap().to_owned()
}

#[test]
fn s1_9_a_socket_gives_status_files_and_values_with_their_generation() {
    let host = Host::new();
    let mode = fs::metadata(host.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    let (status, head, body) = host.get("/v1/values/app/app.json?key=server");
    assert_eq!((status, body.trim()), (200, r#"{"port":1}"#));
    assert!(head.contains("x-rootcast-generation: 1\r\n"), "{head}");
    let (status, head, body) = host.get("/v1/files/app/app.json");
    assert_eq!((status, &*body), (200, r#"{"server": {"port": 1}}"#));
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let id = rootcast::id::BlobId::of(body.as_bytes());
    assert_eq!(tag, format!("\"{id}\""));
    let (status, ..) = host.ask(&format!("GET /v1/files/app/app.json HTTP/1.0\r\nIf-None-Match: {tag}"));
    assert_eq!(status, 304);
    let (_, _, body) = host.get("/v1/status");
    let said: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((said["release"].as_u64(), said["name"].as_str()), (Some(1), Some("web-1")), "{said}");
    assert_eq!(
        (&said["drift"]["mode"], &said["relay"]["connected"]),
        (&"repair".into(), &true.into()),
        "{said}"
    );
    for (target, wanted) in [
        ("/v1/files/app", 404),
        ("/v1/files/../../etc/passwd", 400),
        ("/v1/files/%2e%2e/x", 400),
        ("/v1/values/app/app.json?key=server.ports", 404),
        ("/v1/values/motd?key=a", 415),
        ("/v1/values/app/app.json?kye=a", 400),
        ("/v1/other", 404),
        ("/metrics", 404),
    ] {
        let (status, _, body) = host.get(target);
        assert!(status == wanted && body.contains("error"), "{target}: {status} {body}");
    }
    assert_eq!(host.ask("POST /v1/none HTTP/1.0\r\nContent-Length: 0").0, 405);
    if has("curl") {
        let url = "http://agent/v1/values/app/app.json?key=server.port";
        let output =
            Command::new("curl").args(["-si", "--unix-socket", &host.socket(), url]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap().to_lowercase();
        assert!(text.contains("x-rootcast-generation: 1") && text.trim_end().ends_with('1'), "{text}");
    }
}

#[test]
fn la_8_watchers_are_told_of_each_generation_go_on_where_they_were_and_are_bounded() {
    let host = Host::new();
    let (_, _, mut events) = host.ask("GET /v1/watch HTTP/1.0");
    let mut next = || {
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(events.read_line(&mut line).unwrap() > 0);
        }
        serde_json::from_str::<Value>(&line[6..]).unwrap()
    };
    let first = next();
    assert_eq!((first["generation"].as_u64(), &first["changed"]), (Some(1), &Value::Null));
    host.release(r#"{"server": {"port": 2}}"#);
    let second = next();
    assert_eq!(second["generation"], 2);
    assert_eq!(second["changed"], serde_json::json!(["app/app.json"]));
    let (_, _, mut resumed) = host.ask("GET /v1/watch HTTP/1.0\r\nLast-Event-ID: 1");
    let mut line = String::new();
    resumed.read_line(&mut line).unwrap();
    assert_eq!(line, "id: 2\n");
    // Two watch already, of which one is gone by the next request or is not.
    let mut held = Vec::new();
    let refused = loop {
        let (status, _, stream) = host.ask("GET /v1/watch HTTP/1.0");
        if status != 200 {
            break status;
        }
        held.push(stream);
        assert!(held.len() < MAX_LOCAL_WATCHERS);
    };
    assert_eq!((refused, held.len()), (503, MAX_LOCAL_WATCHERS - 2));
    assert_eq!(host.get("/v1/status").0, 200, "who asks once finds room");
    // And one that leaves makes room.
    drop(held);
    let end = Instant::now() + DEADLINE;
    while host.ask("GET /v1/watch HTTP/1.0").0 != 200 {
        assert!(Instant::now() < end);
    }
}

#[test]
fn get_prints_files_and_values_and_says_what_is_wrong() {
    let mut host = Host::new();
    let config = host.config();
    assert_eq!(run(0, &["get", "app/app.json", "--config", &config]), r#"{"server": {"port": 1}}"#);
    assert_eq!(run(0, &["get", "app/app.json:server.port", "--config", &config]), "1\n");
    assert_eq!(run(0, &["get", "app/limits.toml:limits.rates.1", "--socket", &host.socket()]), "2\n");
    let value = &json(0, &["get", "app/app.json:server", "--config", &config])[0];
    assert_eq!((&value["value"]["port"], &value["generation"]), (&1.into(), &1.into()));
    run(1, &["get", "app/none", "--config", &config]);
    run(1, &["get", "app/app.json:server.none", "--config", &config]);
    // No relay: it boots from its store, says how old that is, and serves.
    host.agent.take().unwrap().stop();
    drop(host.origin.take());
    run(7, &["get", "app/app.json", "--config", &config]);
    let began = fs::read(host.current("app/app.json")).unwrap();
    host.start();
    assert_eq!(fs::read(host.current("app/app.json")).unwrap(), began);
    let (_, _, body) = host.get("/v1/status");
    let said: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&said["release"], &said["relay"]["connected"]), (&1.into(), &false.into()), "{said}");
    assert!(said["release_age"].is_u64() && said["active_age"].is_u64(), "{said}");
}

#[test]
fn offline_with_its_live_tree_gone_an_agent_makes_it_again_from_its_store() {
    let mut host = Host::new();
    host.agent.take().unwrap().stop();
    drop(host.origin.take());
    fs::remove_dir_all(host.scene.path("live")).unwrap();
    host.start();
    assert_eq!(run(0, &["get", "app/app.json:server.port", "--config", &host.config()]), "1\n");
    let file = host.current("app/app.json");
    fs::remove_file(&file).unwrap();
    let end = Instant::now() + DEADLINE;
    while !Path::new(&file).exists() {
        assert!(Instant::now() < end, "repaired with no relay");
    }
}

#[test]
fn s1_11_a_program_is_restarted_with_new_values_and_its_code_is_ours() {
    let host = Host::new();
    let config = host.config();
    let script = "trap 'exit 3' TERM; echo port $PORT; while :; do sleep 0.05; done";
    let mut exec = Lines::rootcast(&[
        "exec",
        "--config",
        &config,
        "--env",
        "PORT=app/app.json:server.port",
        "--",
        "sh",
        "-c",
        script,
    ]);
    exec.expect("port 1");
    // What it does not use restarts nothing.
    host.write("app/other", "x");
    host.publish();
    host.agent.as_ref().unwrap().wait_for("active");
    host.release(r#"{"server": {"port": 7}}"#);
    assert_eq!(exec.expect("port"), "port 7");
    exec.signal("TERM");
    assert_eq!(exec.code(), Some(3));
    let ended = rootcast(&["exec", "--config", &config, "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(ended.status.code(), Some(128 + 9));
    let missing = rootcast(&["exec", "--config", &config, "--env", "A=app/none", "--", "true"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn s1_11_s4_10_a_daemon_gets_hup_and_reloads_without_a_restart() {
    if !has("python3") {
        return;
    }
    let host = Host::new();
    let daemon = Lines::rootcast(&[
        "exec",
        "--config",
        &host.config(),
        "--signal",
        "HUP",
        "--on",
        "app/",
        "--",
        "python3",
        &example("hup_daemon.py"),
        &host.current("app/app.json"),
    ]);
    daemon.expect(r#"configured: {"server": {"port": 1}}"#);
    host.release(r#"{"server": {"port": 2}}"#);
    daemon.expect(r#"configured: {"server": {"port": 2}}"#);
}

#[test]
fn s1_11_s4_10_a_client_in_python_or_go_subscribes_and_outlives_the_agent() {
    let mut clients: Vec<Vec<String>> = Vec::new();
    if has("python3") {
        clients.push(vec!["python3".into(), example("client.py")]);
    }
    if has("go") {
        clients.push(vec!["go".into(), "run".into(), example("client.go")]);
    }
    for command in clients {
        let mut host = Host::new();
        let socket = host.socket();
        let (program, rest) = command.split_first().unwrap();
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let client = Lines::start(program, &[&rest[..], &[&socket, "app/app.json", "server.port"]].concat());
        client.expect("1 1");
        host.agent.take().unwrap().stop();
        host.start();
        host.release(r#"{"server": {"port": 5}}"#);
        client.expect("5 2");
    }
}

#[test]
fn watch_prints_the_generations_that_a_pattern_means() {
    let host = Host::new();
    let config = host.config();
    let mut watch = Lines::rootcast(&["watch", "app/*.json", "--config", &config, "--once"]);
    // Once it is connected; it takes one of the watchers' places.
    let patience = Instant::now() + DEADLINE;
    let mut port = 1;
    while watch.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < patience);
        port += 1;
        host.release(&format!(r#"{{"server": {{"port": {port}}}}}"#));
    }
    assert!(watch.expect("generation").contains("app/app.json"));
    assert_eq!(watch.code(), Some(0));
}

#[test]
fn nginx_serves_what_is_released_and_is_reloaded_without_a_restart() {
    if !has("nginx") {
        return;
    }
    let host = Host::new();
    let prefix = host.scene.path("nginx");
    fs::create_dir(&prefix).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let site = |text: &str| format!("server {{ listen 127.0.0.1:{port}; return 200 '{text}'; }}\n");
    host.write("nginx/nginx.conf", &fs::read_to_string(example("nginx/nginx.conf")).unwrap());
    host.write("nginx/sites/site.conf", &site("one"));
    host.release(r#"{"server": {"port": 2}}"#);
    let config = host.current("nginx/nginx.conf");
    let nginx = Lines::rootcast(&[
        "exec",
        "--config",
        &host.config(),
        "--signal",
        "HUP",
        "--on",
        "nginx/",
        "--",
        "nginx",
        "-p",
        &prefix,
        "-c",
        &config,
        "-g",
        "daemon off;",
    ]);
    let ask = || -> Option<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        write!(stream, "GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    };
    let until = |wanted: &str| {
        let end = Instant::now() + DEADLINE;
        while !ask().is_some_and(|text| text.ends_with(wanted)) {
            assert!(Instant::now() < end, "no {wanted}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    until("one");
    host.write("nginx/sites/site.conf", &site("two"));
    host.release(r#"{"server": {"port": 2}}"#);
    until("two");
    nginx.signal("TERM");
}
