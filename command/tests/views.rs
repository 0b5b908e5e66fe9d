//! Merges and templates from a repository to a host: what is refused before it is signed, what is
//! shown before it is published, and what a host makes of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // tests
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O

mod common;

use common::{Deployment, Repository, Running, run};
use serde_json::json;
use std::fs;
use std::path::Path;

const SETTINGS: &str = "layers = ['base', 'host/{host}']\n[[merge]]\nfiles = ['*.toml']\n[[template]]\nfiles = ['motd']\n\
                        [hosts.web-1]\nfacts = { cores = 8 }\n[hosts.web-2]\nfacts = { cores = 4 }\n";

fn set_up() -> (Deployment, Repository) {
    let deployment = Deployment::new("main");
    let source = Repository::init(Path::new(&deployment.path("source")));
    source.write("rootcast.toml", SETTINGS);
    source.write("base/app.toml", "# the service\nport = 80 # plain\n[log]\nlevel = 'info'\n");
    source.write("host/web-1/app.toml", "port = 8080\n");
    source.write("base/motd", "{{ host }} has {{ facts.cores }}\n");
    source.commit("first");
    (deployment, source)
}

#[test]
fn a_host_merges_and_renders_and_refuses_what_it_cannot_make() {
    let (deployment, source) = set_up();
    let (origin, address) = deployment.relay("origin", "127.0.0.1:0", &[]);
    let publisher = deployment.publisher("publisher", &address);
    let path = source.path.to_str().unwrap();
    let publish = |code| run(code, &["publish", path, "--config", &publisher]).0;
    publish(0);
    // Its configuration is written; what it is told of itself comes after.
    drop(deployment.agent(&address));
    let config = deployment.path("web-1.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[facts]\ncores = 16\n")).unwrap();
    let agent = Running::start(&["agent", &config]);
    let active = |number: u64| {
        agent.wait_for("release", |event| event["event"] == "active" && event["release"] == number);
    };
    let live =
        |name: &str| fs::read_to_string(deployment.home.path().join("live/current").join(name)).unwrap();
    active(1);
    let merged = "# the service\nport = 8080 # plain\n[log]\nlevel = 'info'\n";
    assert_eq!((live("app.toml").as_str(), live("motd").as_str()), (merged, "web-1 has 16\n"));
    let (lines, _) = run(0, &["verify", &config]);
    assert!(lines.iter().all(|line| line["event"] != "error"), "{lines:?}");

    // A layer below that shows through; and one that does not.
    source.write("base/app.toml", "# the service\nport = 81 # plain\n[log]\nlevel = 'debug'\n");
    source.commit("second");
    publish(0);
    active(2);
    assert_eq!(live("app.toml"), merged.replace("info", "debug"));

    // What the known hosts have but this one has not: it refuses, and what is live stays.
    source.write("rootcast.toml", &SETTINGS.replace("cores = ", "racks = 1, cores = "));
    source.write("base/motd", "{{ facts.racks }}\n");
    source.commit("third");
    publish(0);
    let failed = agent.wait_for("failure", |event| event["event"] == "failed");
    let reason = failed.to_string();
    assert!(
        reason.contains("base") && reason.contains("motd:1:4: template: `facts.racks` is not defined"),
        "{reason}"
    );
    assert_eq!(live("motd"), "web-1 has 16\n");

    // What they have not either is refused before it is signed.
    source.write("base/motd", "{{ facts.other }}\n");
    source.commit("fourth");
    let refused = publish(4)[0]["message"].to_string();
    assert!(
        refused.contains("base/motd:1:4: template: `facts.other` is not defined (host web-1 and 1 more)"),
        "{refused}"
    );
    drop(origin);
}

#[test]
fn s4_5_explain_shows_which_layer_gave_each_value() {
    let (_deployment, source) = set_up();
    let path = source.path.to_str().unwrap();
    let explain =
        |code, what: &str, host: &str| run(code, &["explain", what, "--host", host, "--source", path]).0;
    let told = explain(0, "app.toml", "web-1");
    assert_eq!(told[0]["how"], "merged");
    let values = &told[0]["values"];
    let value = |key: &str, value: &str, file: &str, line: u64, column: u64| json!({ "key": key, "value": value, "file": file, "line": line, "column": column, "rendered": false });
    assert_eq!(values[0], value("port", "8080", "host/web-1/app.toml", 1, 8));
    assert_eq!(values[1], value("log.level", "\"info\"", "base/app.toml", 4, 9));
    let told = explain(0, "app.toml:log", "web-2");
    assert_eq!((told[0]["how"].as_str(), told[0]["values"].as_array().unwrap().len()), (Some("taken"), 1));
    assert_eq!(explain(0, "motd", "web-1")[0]["how"], "rendered");
    explain(3, "app.toml:none", "web-1");
    explain(3, "none", "web-1");
    explain(3, "app.toml", "web-9");
    run(0, &["explain", "app.toml", "--host", "web-9", "--label", "role=web", "--source", path]);
    run(2, &["explain", "app.toml", "--source", path]);
    source.write("host/web-2/app.toml", "port = 1\n");
    let now = run(0, &["explain", "app.toml:port", "--host", "web-2", "--source", path, "--work-tree"]).0;
    assert_eq!(now[0]["values"][0]["value"], "1", "committed or not");
}

#[test]
fn explain_says_what_is_a_link_and_where_it_leads() {
    let source = tempfile::tempdir().unwrap();
    let path = source.path().to_str().unwrap();
    let at = |name: &str| source.path().join(name);
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, at(name)).unwrap();
    for directory in ["base/app/conf", "host/web-1/app"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    fs::write(at("rootcast.toml"), SETTINGS).unwrap();
    fs::write(at("base/app/a.toml"), "a = 1\n").unwrap();
    fs::write(at("base/app/over.toml"), "a = 2\n").unwrap();
    fs::write(at("host/web-1/app/link.toml"), "a = 3\n").unwrap();
    link("a.toml", "base/app/link.toml");
    link("../app", "base/app/dir");
    link("a.toml", "host/web-1/app/over.toml");
    let explain = |code, what: &str, host: &str| {
        run(code, &["explain", what, "--host", host, "--source", path]).0.pop().unwrap()
    };
    let told = explain(0, "app/link.toml", "web-2");
    assert_eq!((&told["how"], &told["layers"][0]["link"]), (&"linked".into(), &"a.toml".into()));
    // Above a link a file begins anew; below one it is hidden.
    let told = explain(0, "app/link.toml", "web-1");
    assert_eq!((&told["how"], &told["values"][0]["value"]), (&"taken".into(), &"3".into()));
    let told = explain(0, "app/over.toml", "web-1");
    assert_eq!((&told["how"], told["values"].as_array().unwrap().len()), (&"linked".into(), 0));
    let output = common::rootcast(&["explain", "app/over.toml", "--host", "web-1", "--source", path]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("base/app/over.toml  hidden by") && shown.contains("over.toml  a link to a.toml\n"),
        "{shown}"
    );
    let error = |what, message: &str, next: &str| {
        let error = explain(3, what, "web-1");
        assert_eq!((error["message"].as_str(), error["next"].as_str()), (Some(message), Some(next)));
    };
    let to = "app/over.toml of host web-1 is a link to a.toml";
    error("app/over.toml:a", to, "rootcast explain app/a.toml:a");
    let beneath = "host web-1 has no file app/dir/a.toml: base/app/dir is a link to ../app";
    error("app/dir/a.toml", beneath, "rootcast explain app/a.toml");
    error("app/conf", "host web-1 has no file app/conf: base/app/conf is a directory", "name a file in it");
}

#[test]
fn f_75_diff_shows_what_publishing_would_change() {
    let (deployment, source) = set_up();
    let (_origin, address) = deployment.relay("origin", "127.0.0.1:0", &[]);
    let publisher = deployment.publisher("publisher", &address);
    let path = source.path.to_str().unwrap();
    let diff = |code, more: &[&str]| {
        run(code, &[&["diff", "--source", path, "--config", &publisher], more].concat()).0
    };
    let first = diff(3, &[]);
    assert_eq!(first.last().unwrap()["event"], "error");
    assert_eq!(
        first.iter().filter(|line| line["what"] == "added").count(),
        4,
        "two files, different on each host"
    );
    run(0, &["publish", path, "--config", &publisher]);
    assert_eq!(diff(0, &["--all"])[0]["changes"], 0);
    source.write("base/app.toml", "# the service\nport = 80 # plain\n[log]\nlevel = 'debug'\n");
    source.commit("second");
    let changed = diff(3, &[]);
    let web_1 = changed.iter().find(|line| line["hosts"] == json!(["web-1"])).unwrap();
    let lines = " # the service\n port = 8080 # plain\n [log]\n-level = 'info'\n+level = 'debug'";
    assert_eq!(web_1["diff"], format!("@@ -1,4 +1,4 @@\n{lines}"));
    source.write("base/both", "x\n");
    source.commit("third");
    let both = diff(3, &[]);
    let both = both.iter().find(|line| line["path"] == "both").unwrap();
    assert_eq!(both["hosts"], json!(["web-1", "web-2"]), "alike on both: told once");
    assert_eq!(diff(3, &["--host", "web-2"])[0]["hosts"], json!(["web-2"]));
    let templates = SETTINGS.replace("'motd'", "'motd', 'both'");
    source.write("rootcast.toml", &templates);
    source.write("base/both", "{{ host }}\n");
    source.commit("fourth");
    let each = diff(3, &[]);
    assert_eq!(each.iter().filter(|line| line["path"] == "both").count(), 2, "each its own");
}

#[test]
fn s4_8_one_repository_makes_a_single_node_and_a_cluster() {
    let deployment = Deployment::new("main");
    let source = Repository::init(Path::new(&deployment.path("source")));
    source.write(
        "rootcast.toml",
        "layers = ['base', 'web/{web}', 'db/{db}']\n[[merge]]\nfiles = ['app.toml']\n\
         [hosts.alone.labels]\nweb = 'on'\ndb = 'on'\n\
         [hosts.web-1.labels]\nweb = 'on'\n[hosts.db-1.labels]\ndb = 'on'\n",
    );
    source.write("base/app.toml", "domain = 'example.net'\n");
    source.write("web/on/app.toml", "[web]\nport = 443\n");
    source.write("db/on/app.toml", "[db]\nport = 5432\n");
    source.commit("first");
    let path = source.path.to_str().unwrap();
    let keys = |host: &str| -> Vec<String> {
        let told = run(0, &["explain", "app.toml", "--host", host, "--source", path]).0;
        let values = told[0]["values"].as_array().unwrap().clone();
        values.iter().map(|value| value["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys("alone"), ["domain", "web.port", "db.port"]);
    assert_eq!(keys("web-1"), ["domain", "web.port"]);
    assert_eq!(keys("db-1"), ["domain", "db.port"]);
}

#[test]
fn f_99_what_has_no_effect_is_told_before_and_when_it_is_published() {
    let (deployment, source) = set_up();
    let (_origin, address) = deployment.relay("origin", "127.0.0.1:0", &[]);
    let publisher = deployment.publisher("publisher", &address);
    let path = source.path.to_str().unwrap();
    let settings = format!("{SETTINGS}[services.app]\nfiles = ['base/app.toml']\n");
    source.write("rootcast.toml", &settings);
    source.commit("second");
    let warning = "rootcast.toml:11:10: no host of [hosts] has a file under `base/app.toml`, so service `app` never \
                   runs for one; did you mean `app.toml`?";
    let told = |lines: &[serde_json::Value], errors: &str| {
        let warnings = lines.iter().filter_map(|line| line["warnings"].as_array()).flatten();
        assert_eq!(warnings.collect::<Vec<_>>(), [warning]);
        assert!(errors.contains(&format!("warning: {warning}\n")), "{errors}");
    };
    let (lines, errors) = run(3, &["diff", "--source", path, "--config", &publisher]);
    told(&lines, &errors);
    let draft = deployment.path("draft");
    let (lines, errors) = run(0, &["publish", path, "--config", &publisher, "--unsigned", &draft]);
    told(&lines, &errors);
    let (lines, errors) = run(0, &["publish", path, "--config", &publisher]);
    told(&lines, &errors);
}
