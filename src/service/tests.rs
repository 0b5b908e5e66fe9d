use super::*;
use crate::settings::{self, SettingsError};
use proptest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    services: WrittenServices,
}

fn parse(text: &str) -> Result<Services, SettingsError> {
    Services::of(text, &settings::parse::<File>(text)?.services)
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

const NGINX: &str = r#"
[services.nginx]
files = ["nginx/**"]
after = ["resolver"]
install = [
  { from = "nginx/conf.d", to = "/etc/nginx/conf.d" },
  { from = "nginx/tls.pem", to = "/etc/ssl/tls.pem", how = "copy", owner = "www-data", mode = "0640" },
]
[[services.nginx.validate]]
command = ["/usr/sbin/nginx", "-t", "-p", "{staged}/nginx"]
timeout = 10
[[services.nginx.activate]]
signal = "HUP"
pid_file = "/run/nginx.pid"
[[services.nginx.check]]
http = "http://127.0.0.1:8080/health"
status = 204
retries = 5
interval = 0.25
stable = 3

[services.resolver]
files = ["resolver.conf"]
activate = [{ unit = "unbound.service", action = "reload" }]
post = [{ command = ["echo done > /tmp/x"], shell = true, user = "nobody", environment = { A = "1" } }]
"#;

#[test]
fn f_90_services_are_read_and_travel_as_they_were_read() {
    let services = parse(NGINX).unwrap();
    let nginx = services.get(&name("nginx")).unwrap();
    assert_eq!(nginx.after, BTreeSet::from([name("resolver")]));
    let hooks: Vec<Phase> = nginx.hooks.iter().map(|hook| hook.phase).collect();
    assert_eq!(hooks, [Phase::Validate, Phase::Activate, Phase::Check]);
    let validate = nginx.hooks(Phase::Validate).next().unwrap();
    assert_eq!((validate.timeout, validate.arguments("/s", "/c")[3].as_str()), (10_000, "/s/nginx"));
    let check = nginx.hooks(Phase::Check).next().unwrap();
    assert_eq!(check.patience, Patience { retries: 5, interval: 250, stable: 3000 });
    let post = services.get(&name("resolver")).unwrap().hooks(Phase::Post).next().unwrap();
    assert_eq!(post.work, Work::Command(["/bin/sh", "-c", "echo done > /tmp/x"].map(String::from).into()));
    let encoded = services.encode();
    assert_eq!(Services::decode(&encoded).unwrap(), services);
    assert!(parse("").unwrap().is_empty());
}

#[test]
fn f_4_every_mistake_is_named_with_its_place() {
    let service = |rest: &str| format!("[services.a]\nfiles = ['x']\n{rest}");
    let cases = [
        ("[services.a]\n".to_owned(), "1:1: missing key `files`"),
        ("[services.a]\nfiles = []\n".to_owned(), "2:9: service `a` has no `files`"),
        ("[services.a]\nfile = ['x']\n".to_owned(), "2:1: unknown key `file`; did you mean `files`?"),
        ("[services.A]\nfiles = ['x']\n".to_owned(), "1:1: `A` is no name of a service"),
        ("[services.a]\nfiles = ['x/[']\n".to_owned(), "2:10: `[` without its `]`"),
        (service("after = ['b']\n"), "3:10: service `a` is after `b`, which is no service"),
        (service("after = ['a']\n"), "1:1: service `a` waits for itself: a -> a"),
        (service("[[services.a.chek]]\n"), "3:14: unknown key `chek`; did you mean `check`?"),
        (service("[[services.a.check]]\ntcp = ':1'\n"), "3:1: check: `tcp` is HOST:PORT"),
        (service("[[services.a.check]]\nhtpp = ''\n"), "4:1: unknown key `htpp`; did you mean `http`?"),
        (service("check = [{ http = 'https://a/' }]\n"), "3:19: `https://a/` is no URL"),
        (service("check = [{ timeout = 1 }]\n"), "3:10: a hook is one of"),
        (service("check = [{ tcp = 'a:1', signal = 'HUP' }]\n"), "3:10: a hook is one of"),
        (service("activate = [{ tcp = 'a:1' }]\n"), "3:13: activate: `http` and `tcp` are for"),
        (service("activate = [{ signal = 'HUP' }]\n"), "3:13: `signal` and `pid_file` go together"),
        (service("activate = [{ signal = 'KILL', pid_file = '/x' }]\n"), "3:24: `signal` is one of HUP"),
        (service("activate = [{ unit = 'x' }]\n"), "3:13: `unit` needs `action`"),
        (service("activate = [{ unit = 'x', action = 'mask' }]\n"), "3:36: `action` is one of reload"),
        (service("activate = [{ command = ['sh'] }]\n"), "3:13: activate: the program `sh` is no absolute"),
        (service("activate = [{ command = ['/{staged}/x'] }]\n"), "3:13: activate: the program"),
        (service("activate = [{ command = [] }]\n"), "3:13: activate: `command` is empty"),
        (
            service("activate = [{ command = ['{current}/x'] }]\n"),
            "3:13: activate: the program `{current}/x` is no",
        ),
        (
            service("activate = [{ command = ['/x', '{staged}', 'a{stage}b'] }]\n"),
            "3:44: activate: `{stage}` stands for nothing; {staged} and {current} do, and `{{stage}}` is the \
             text `{stage}` itself; did you mean `{staged}`?",
        ),
        (service("activate = [{ command = ['a {curent}'], shell = true }]\n"), "3:26: activate: `{curent}`"),
        (
            service("activate = [{ command = ['/x'], environment = { A = '{staged}/a' } }]\n"),
            "3:13: activate: `{staged}` stands for a directory in the arguments of a command only",
        ),
        (
            service("activate = [{ signal = 'HUP', pid_file = '/{current}/p' }]\n"),
            "3:13: activate: `{current}`",
        ),
        (service("check = [{ http = 'http://127.0.0.1/{staged}' }]\n"), "3:10: check: `{staged}` stands for"),
        (service("activate = [{ command = ['/x'], timeout = 0 }]\n"), "3:13: activate: `timeout` is out"),
        (service("activate = [{ command = ['/x'], timeout = -1 }]\n"), "3:43: "),
        (service("activate = [{ command = ['/x'], retries = 1 }]\n"), "3:13: activate: `retries`"),
        (service("activate = [{ command = ['/x'], user = 'a b' }]\n"), "3:40: `a b` is no name of a user"),
        (service("install = [{ from = '../x', to = '/x' }]\n"), "3:21: `../x`: has a `.` or `..`"),
        (service("install = [{ from = 'x', to = 'x' }]\n"), "3:31: `x` is no absolute path"),
        (service("install = [{ from = 'x', to = '/x', mode = '0600' }]\n"), "3:12: `owner`, `group` and"),
        (service("install = [{ from = 'x', to = '/x', how = 'copy', mode = '4755' }]\n"), "3:58: `mode` is"),
        (service("install = [{ from = 'x', to = '/x', how = 'move' }]\n"), "3:43: `how` is \"link\" or"),
        (
            service("install = [{ from = 'x', to = '/x' }, { from = 'y', to = '/x/y' }]\n"),
            "1:1: service `a` installs `/x/y`, where the service `a`",
        ),
    ];
    for (text, start) in cases {
        let message = parse(&text).expect_err(&text).to_string();
        assert!(message.starts_with(start), "{text}: {message}");
    }
    let near = "[services.nginx]\nfiles = ['x']\n[services.b]\nfiles = ['x']\nafter = ['ngnix']\n";
    let message = parse(near).unwrap_err().to_string();
    assert!(message.ends_with("which is no service; did you mean `nginx`?"), "{message}");
}

#[test]
fn f_92_a_cycle_is_named_all_round() {
    let text = |after: &[(&str, &str)]| {
        let service =
            |(name, after): &(&str, &str)| format!("[services.{name}]\nfiles = ['x']\nafter = [{after}]\n");
        after.iter().map(service).collect::<String>()
    };
    let message =
        parse(&text(&[("a", "'b'"), ("b", "'c'"), ("c", "'b'"), ("d", "")])).unwrap_err().to_string();
    assert!(message.ends_with("service `b` waits for itself: b -> c -> b"), "{message}");
    assert!(parse(&text(&[("a", "'b', 'c'"), ("b", "'d'"), ("c", "'d'"), ("d", "")])).is_ok(), "a diamond");
}

#[test]
fn what_is_decoded_is_judged_as_what_is_read() {
    let services = parse(NGINX).unwrap();
    let all: Vec<Service> = services.iter().cloned().collect();
    let refused = |change: &dyn Fn(&mut Vec<Service>)| {
        let mut changed = all.clone();
        change(&mut changed);
        Services::decode(&codec::encode(&changed)).unwrap_err().to_string()
    };
    assert!(refused(&|all| all.reverse()).contains("out of order"));
    assert!(refused(&|all| all.truncate(1)).contains("is after `resolver`"));
    assert!(refused(&|all| all[0].hooks.reverse()).contains("order of the phases"));
    assert!(refused(&|all| all[0].hooks[0].timeout = 0).contains("`timeout`"));
    assert!(refused(&|all| all[0].files.clear()).contains("no `files`"));
    let command = Work::Command(vec!["/x".into(), "{stagd}".into()]);
    assert!(refused(&|all| all[0].hooks[0].work = command.clone()).contains("`{stagd}` stands for nothing"));
    assert!(refused(&|all| all[0].install[1].to = all[0].install[0].to.clone()).contains("installs"));
    let mode = How::Copy { owner: None, group: None, mode: Some(0o4755) };
    assert!(refused(&|all| all[0].install[1].how = mode.clone()).contains("0777"));
}

#[test]
fn f_91_files_are_owned_by_pattern_or_as_they_are_installed() {
    let installs = "[services.site]\nfiles = ['x']\ninstall = [{ from = 'site/a', to = '/srv/a' }]\n";
    let owners = parse(&format!("{NGINX}\n{installs}")).unwrap().owners();
    let path = |text: &str| ConfigPath::new(text).unwrap();
    let owning = |text: &str| {
        let mut found = BTreeSet::new();
        owners.add([&path(text)], &mut found);
        found.into_iter().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(owning("nginx/a/b.conf"), ["nginx"]);
    assert_eq!(owning("resolver.conf"), ["resolver"]);
    assert!(owning("x/resolver.conf").is_empty() && owning("nginxx").is_empty());
    assert_eq!((owning("site/a"), owning("site/a/b")), (vec!["site".to_owned()], vec!["site".to_owned()]));
    assert!(owning("site/ab").is_empty() && owning("site").is_empty());
}

#[test]
fn urls_have_a_host_a_port_and_a_path() {
    let parts = |text: &str| {
        let url = Url::new(text).unwrap();
        let (host, port) = url.address();
        (host.to_owned(), port, url.path().to_owned(), url.is_loopback())
    };
    assert_eq!(parts("http://127.0.0.1:8080/a?b"), ("127.0.0.1".into(), 8080, "/a?b".into(), true));
    assert_eq!(parts("http://[::1]:81"), ("::1".into(), 81, "/".into(), true));
    assert_eq!(parts("http://localhost"), ("localhost".into(), 80, "/".into(), true));
    assert_eq!(parts("http://10.0.0.1/"), ("10.0.0.1".into(), 80, "/".into(), false));
    assert!(!parts("http://localhost.evil/").3);
    for wrong in [
        "http://",
        "http:///x",
        "http://a@127.0.0.1/",
        "http://a:0/",
        "ftp://a/",
        "http://a b/",
        "http://[::1/",
    ] {
        assert!(Url::new(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn f_96_a_check_is_tried_again_and_has_to_stay_good() {
    let patience = Patience { retries: 2, interval: 100, stable: 250 };
    let mut probe = Probe::new(patience);
    assert_eq!(probe.tried(0, false), Verdict::Again(100));
    assert_eq!(probe.tried(100, true), Verdict::Again(100));
    assert_eq!(probe.tried(200, false), Verdict::Again(100), "the window begins anew");
    assert_eq!(probe.tried(300, true), Verdict::Again(100));
    assert_eq!(probe.tried(400, true), Verdict::Again(100));
    assert_eq!(probe.tried(500, true), Verdict::Again(50), "the last try is at its end");
    assert_eq!(probe.tried(550, true), Verdict::Good);
    let mut probe = Probe::new(patience);
    let tries: Vec<Verdict> = (0..3).map(|at| probe.tried(at * 100, false)).collect();
    assert_eq!(tries, [Verdict::Again(100), Verdict::Again(100), Verdict::Bad]);
    assert_eq!(Probe::new(Patience::default()).tried(7, true), Verdict::Good);
}

fn service(name: usize, after: impl Iterator<Item = usize>) -> Service {
    let called = |number: usize| ServiceName::new(&format!("s{number:02}")).unwrap();
    Service {
        name: called(name),
        files: vec!["x".to_owned()],
        install: Vec::new(),
        after: after.map(called).collect(),
        hooks: Vec::new(),
    }
}

/// Everything that a service waits for, at whatever remove.
fn before(services: &Services, of: &ServiceName) -> BTreeSet<ServiceName> {
    let mut found = BTreeSet::new();
    let mut pending = vec![of.clone()];
    while let Some(next) = pending.pop() {
        for after in &services.get(&next).unwrap().after {
            if found.insert(after.clone()) {
                pending.push(after.clone());
            }
        }
    }
    found
}

proptest! {
    /// F-92, for any graph, any part of it, any failures and any order in which services end: each begins
    /// once and after all before it, no more than allowed run at once, a failure skips exactly
    /// what waits for it, and all comes to an end.
    #[test]
    fn f_92_any_graph_runs_in_order_and_a_failure_skips_only_what_waits_for_it(
        edges in proptest::collection::vec((0usize..12, 0usize..12), 0..40),
        touched in proptest::collection::btree_set(0usize..12, 1..12),
        bad in proptest::collection::btree_set(0usize..12, 0..4),
        most in 1usize..5,
        picks in proptest::collection::vec(any::<usize>(), 40),
    ) {
        let after = |of: usize| edges.iter().filter(move |(one, other)| one.max(other) == &of && one != other);
        let services = Services::new((0..12).map(|of| service(of, after(of).map(|(a, b)| *a.min(b))))).unwrap();
        let called = |number: &usize| ServiceName::new(&format!("s{number:02}")).unwrap();
        let touched: BTreeSet<ServiceName> = touched.iter().map(called).collect();
        let bad: BTreeSet<ServiceName> = bad.iter().map(called).collect();
        let mut schedule = Schedule::new(&services, &touched, most);
        let (mut running, mut begun, mut good) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut picks = picks.into_iter();
        while !schedule.is_over() {
            while let Some(name) = schedule.begin() {
                prop_assert!(before(&services, &name).intersection(&touched).all(|before| good.contains(before)));
                prop_assert!(touched.contains(&name) && begun.insert(name.clone()));
                running.push(name);
            }
            prop_assert!(!running.is_empty() && running.len() <= most, "something runs, and not too much");
            let ended: ServiceName = running.remove(picks.next().unwrap_or(0) % running.len());
            if !bad.contains(&ended) {
                good.insert(ended.clone());
            }
            schedule.end(&ended, !bad.contains(&ended));
        }
        prop_assert_eq!(schedule.ended().keys().cloned().collect::<BTreeSet<_>>(), touched);
        for (name, ended) in schedule.ended() {
            let blocked = before(&services, name).iter().any(|before| schedule.ended().get(before) == Some(&Ended::Failed));
            match ended {
                Ended::Done => prop_assert!(!blocked && !bad.contains(name)),
                Ended::Failed => prop_assert!(!blocked && bad.contains(name)),
                Ended::Skipped(_) => prop_assert!(blocked && !begun.contains(name)),
            }
        }
    }
}

#[test]
fn s3_1_three_chained_and_one_apart_take_the_time_of_three() {
    let after = |of: usize| (1..3).contains(&of).then(|| of - 1).into_iter();
    let services = Services::new((0..4).map(|of| service(of, after(of)))).unwrap();
    let touched: BTreeSet<ServiceName> = services.iter().map(|service| service.name.clone()).collect();
    let mut schedule = Schedule::new(&services, &touched, 8);
    let mut rounds = Vec::new();
    while !schedule.is_over() {
        let round: Vec<ServiceName> = std::iter::from_fn(|| schedule.begin()).collect();
        round.iter().for_each(|name| schedule.end(name, true));
        rounds.push(round.len());
    }
    assert_eq!(rounds, [2, 1, 1]);
}

#[test]
fn f_93_what_is_installed_has_its_place() {
    let install =
        |how| Install { from: ConfigPath::new("a/b").unwrap(), to: HostPath::new("/etc/x").unwrap(), how };
    let copy = install(How::Copy { owner: None, group: None, mode: None });
    let link = install(How::Link);
    for (path, copied, linked) in [
        ("a/b", Some(("/etc/x", "a/b")), Some(("/etc/x", "a/b"))),
        ("a/b/c/d", Some(("/etc/x/c/d", "a/b/c/d")), Some(("/etc/x", "a/b"))),
        ("a/bc", None, None),
        ("a", None, None),
    ] {
        let path = ConfigPath::new(path).unwrap();
        let told = |install: &Install| {
            install.place_of(&path).map(|(place, from)| (place, from.as_str().to_owned()))
        };
        let wanted =
            |place: Option<(&str, &str)>| place.map(|(place, from)| (place.to_owned(), from.to_owned()));
        assert_eq!((told(&copy), told(&link)), (wanted(copied), wanted(linked)), "{path}");
    }
}
