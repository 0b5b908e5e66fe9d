//! Seeds of what is done with a release on a host, and of what the host keeps about that.

use super::Seeds;
use rootcast::acceptance::Accepted;
use rootcast::activation::{Cause, Event, Failure, Generation, History, Journal, Orders, State};
use rootcast::id::{BlobId, NodeId, ReleaseHash};
use rootcast::path::BundleName;
use rootcast::service::ServiceName;
use rootcast_bundler::config::Rootcast;
use std::collections::BTreeSet;

/// What a host keeps of an activation that was rolled back.
pub(super) fn journals(seeds: &mut Seeds) {
    let release = Accepted { epoch: 1, number: 2, hash: ReleaseHash::from_bytes([7; 32]) };
    let layers = vec![(BundleName::new("base").unwrap(), NodeId::of(b"base"))];
    let (plan, rules) = (Some(NodeId::of(b"plan")), vec![BlobId::of(b"services")]);
    let new = Generation { number: 0, release, plan, rules, layers, since: 7, replaced: 6 };
    let touched = BTreeSet::from([ServiceName::new("nginx").unwrap()]);
    let cause = Cause { reason: "check of nginx failed".into(), output: "bad".into() };
    let journal = Journal::default().begin(None, new.clone(), touched);
    let mut history = History::default();
    history.made_live(&new);
    let reason = "not permitted".into();
    history.failed(Failure { release, state: State::Idle, since: 9, reason });
    seeds.message("journal", "none", &Journal::default());
    seeds.message("journal", "under-way", &journal);
    seeds.message("journal", "rolled-back", &journal.next(Event::Done).next(Event::Failed(cause)));
    seeds.add("journal", "truncated", [0x88, 0x00]);
    seeds.message("history", "one", &history);
    seeds.message("history", "none", &History::default());
    seeds.message("installed", "two", &["/etc/a", "/etc/b/c"]);
    seeds.message("installed", "relative", &["etc/a"]);
    seeds.message("orders", "hold", &Orders { hold: Some(7), lifted: 2 });
    seeds.message("orders", "none", &Orders::default());
}

/// Services of every kind of hook, and one alone.
pub(super) fn services(seeds: &mut Seeds) {
    let parse = |text: &str| Rootcast::parse(text).unwrap().services.encode();
    let text = r#"
        [services.nginx]
        files = ["nginx/**"]
        after = ["resolver"]
        install = [
          { from = "nginx", to = "/etc/nginx" },
          { from = "tls", to = "/etc/tls", how = "copy", owner = "web", group = "web", mode = "0640" },
        ]
        validate = [{ command = ["/usr/sbin/nginx", "-t", "-p", "{staged}/nginx"], timeout = 10 }]
        activate = [{ signal = "HUP", pid_file = "/run/nginx.pid" }]
        check = [{ http = "http://127.0.0.1/", status = 204, retries = 5, interval = 0.25, stable = 3 }]
        test = [{ tcp = "127.0.0.1:80" }]
        [services.resolver]
        files = ["resolver.conf"]
        activate = [{ unit = "unbound.service", action = "reload" }]
        post = [{ command = ["true"], shell = true, user = "nobody", environment = { A = "1" }, output = 7 }]
    "#;
    seeds.add("services", "many", parse(text));
    seeds.add("services", "one", parse("[services.a]\nfiles = ['a']"));
    seeds.add("services", "not-canonical", [0x98, 0x00]);
    seeds.add("settings", "services", text);
}
