//! HTTPS in a running tree: what is served to whom, falling back and returning, and
//! what stands between: caches, good and bad (specs/http.md).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

mod house;
mod middle;
#[path = "../../replica/tests/support/network.rs"]
mod network;
#[path = "../../replica/tests/support/mod.rs"]
mod support;

use bytes::Bytes;
use house::*;
use middle::{Habit, Middle};
use network::Following;
use rootcast::acceptance::Accepted;
use rootcast::codec;
use rootcast::denials::Denied;
use rootcast::http::{After, EditBody, LeafAnswer, NewsAnswer, Resource, Target, Url};
use rootcast::id::ObjectId;
use rootcast::join::JoinAnswer;
use rootcast::limits::{DIALS_IN_VAIN, HTTP_GAP, HTTP_RETRY, MAX_FRAME, MIB};
use rootcast::member::Role;
use rootcast::protocol::{EditBase, Interest, Opening, PublishAnswer};
use rootcast::reader::Reader;
use rootcast::tree::{Tree, TreeError};
use rootcast_relay::HttpCache;
use rootcast_replica::renewal::ask_over_https;
use rootcast_replica::{Fallback, FollowEvent, Offered, Replica, Rule, Update};
use rootcast_store::Retained;
use rootcast_transport::https::{Ask, Caches, HttpsConnection, HttpsDialer};
use rootcast_transport::{Code, Endpoint, Identity, TransportError};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use support::*;

const ASK: Ask = Ask { limit: 4 * MIB, wait: Duration::from_secs(20), caches: Caches::Welcome };

/// A publisher that is connected to the origin over QUIC.
struct Publishing {
    publisher: Publisher,
    connection: rootcast_transport::Connection,
    _endpoint: Endpoint,
}

impl Publishing {
    async fn at(house: &House, origin: &Running) -> Self {
        let endpoint = Endpoint::dial_only(&house.member(Role::Publisher, "ci")).unwrap();
        let connection = soon(endpoint.connect(&origin.address.to_string())).await.unwrap();
        Self { publisher: Publisher::new(), connection, _endpoint: endpoint }
    }

    async fn publish(&self, files: Edits<'_>) -> Accepted {
        let (publication, edits) = self.publisher.draft(files).publication();
        let (mut sender, mut receiver) = self.connection.open_bi().await.unwrap();
        sender.send_message(&Opening::Publish(publication.clone())).await.unwrap();
        for edit in edits.clone() {
            sender.send_bytes(edit).await.unwrap();
        }
        sender.finish().unwrap();
        let answer: Option<PublishAnswer> = soon(receiver.receive_message(MAX_FRAME)).await.unwrap();
        let update = Update::of_publication(publication, edits);
        self.publisher.replica.receive(&update, &Interest::All, Rule::Origin).unwrap();
        let accepted = self.publisher.replica.held().unwrap().accepted();
        assert_eq!(answer, Some(PublishAnswer::Accepted(accepted)));
        accepted
    }
}

fn target(resource: Resource) -> String {
    Url { platform: PLATFORM, target: Target::Channel(channel(), resource) }.to_string()
}

async fn https(identity: &Identity, at: SocketAddr) -> HttpsConnection {
    soon(HttpsDialer::new(identity).unwrap().connect(&at.to_string())).await.unwrap()
}

async fn get(connection: &mut HttpsConnection, resource: Resource) -> Option<Bytes> {
    soon(connection.get(&target(resource), ASK)).await.unwrap()
}

/// QUIC to which everything is blocked: every dial fails at once.
fn blocked(identity: &Identity) -> Endpoint {
    let endpoint = Endpoint::dial_only(identity).unwrap();
    endpoint.close(Code::DONE, "blocked");
    endpoint
}

fn fallback(identity: &Identity) -> Option<Fallback> {
    let fallback = Fallback::new(HttpsDialer::new(identity).unwrap());
    Some(fallback.with_times(Duration::ZERO, Duration::from_millis(200)))
}

fn web() -> Interest {
    named(&["base", "host/web-1", "plan", "role/web"])
}

/// A host behind a network that lets no UDP through.
fn host(identity: &Identity, parents: &[SocketAddr]) -> Following {
    Following::start_with(&blocked(identity), fallback(identity), replica(), parents, web())
}

fn has(replica: &Replica, number: u64) -> bool {
    replica.held().is_some_and(|held| held.accepted().number == number)
}

/// Every file of the host's bundles, the bytes of each looked at.
fn content(replica: &Replica) -> Vec<ObjectId> {
    needed(replica)
}

const FIRST: Edits<'_> =
    &[("base", "a", Some(b"one\n")), ("role/web", "w", Some(b"web\n")), ("role/db", "d", Some(b"db\n"))];

fn objects_of(publisher: &Publisher, name: &str) -> Vec<ObjectId> {
    let held = publisher.replica.held().unwrap();
    let mut all = Vec::new();
    let store = publisher.replica.store();
    let source: &dyn rootcast::object::ObjectSource = &**store;
    let tree = Tree::open(source, held.bundles.root(&bundle(name)).unwrap()).unwrap();
    tree.objects::<TreeError>(&mut |id| {
        all.push(id);
        Ok(true)
    })
    .unwrap();
    all
}

#[tokio::test]
async fn ht_6_every_part_of_a_release_has_a_name_and_says_what_it_must() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    let mut asking = https(&house.labelled(Role::Agent, "web-1", &["role=web"]), origin.https()).await;
    let news = |bytes: Bytes| codec::decode::<NewsAnswer>(&bytes, MIB).unwrap();
    let before = news(get(&mut asking, Resource::News(None)).await.unwrap());
    assert_eq!((before.trust, before.latest), (1, None));

    let first = publishing.publish(FIRST).await;
    let second = publishing.publish(&[("role/web", "w", Some(b"web, again\n"))]).await;
    // The head that names a release is signed after it is published, and only the newest is served.
    let naming_it = async {
        loop {
            let latest = news(get(&mut asking, Resource::News(None)).await.unwrap());
            assert_eq!(latest.latest, Some(second));
            if let Some(head) = get(&mut asking, Resource::Head(latest.head.0, latest.head.1)).await
                && house.trust.head(&channel(), &head).unwrap().head().release == second
            {
                break latest;
            }
        }
    };
    let latest = soon(naming_it).await;
    assert!(get(&mut asking, Resource::Head(latest.head.0, latest.head.1 + 1)).await.is_none());
    assert!(get(&mut asking, Resource::Trust(1)).await.is_some());
    for version in [0, 2] {
        assert!(get(&mut asking, Resource::Trust(version)).await.is_none(), "{version}");
    }
    // The one before is served as well; one that never was is not.
    for (release, is_there) in [(first, true), (second, true), (Accepted { number: 3, ..second }, false)] {
        let document = get(&mut asking, Resource::Release(release)).await;
        assert_eq!(document.is_some(), is_there);
        if let Some(document) = document {
            assert_eq!(house.trust.release(&channel(), &document).unwrap().accepted(), release);
        }
    }
    let other = Accepted { hash: first.hash, ..second };
    assert!(get(&mut asking, Resource::Release(other)).await.is_none(), "a name has the hash in it");

    let leaf = get(&mut asking, Resource::Leaf(second, bundle("role/web"))).await.unwrap();
    let leaf: LeafAnswer = codec::decode(&leaf, MIB).unwrap();
    let held = publishing.publisher.replica.held().unwrap();
    assert_eq!(Some(&leaf.leaf), held.bundles.leaf(&bundle("role/web")));
    let edit = |to, from| Resource::Edit { to, bundle: bundle("role/web"), from };
    let step = EditBody::read(&get(&mut asking, edit(second, Some(first))).await.unwrap()).unwrap();
    assert_eq!(step.head.base, EditBase::Logged, "the log's own");
    let whole = EditBody::read(&get(&mut asking, edit(second, None)).await.unwrap()).unwrap();
    assert_eq!(whole.head.base, EditBase::Empty);
    assert!(get(&mut asking, edit(second, Some(other))).await.is_none(), "from what nobody knows");
    let object = objects_of(&publishing.publisher, "role/web")[0];
    let bytes = get(&mut asking, Resource::Object(second, bundle("role/web"), object)).await.unwrap();
    assert!(object.matches(&bytes));
}

#[tokio::test]
async fn threat_21_absent_and_forbidden_look_the_same_over_https() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    let first = publishing.publish(FIRST).await;
    let mut asking = https(&house.labelled(Role::Agent, "web-1", &["role=web"]), origin.https()).await;
    let db = objects_of(&publishing.publisher, "role/db")[0];
    for name in ["role/db", "role/none"] {
        assert!(get(&mut asking, Resource::Leaf(first, bundle(name))).await.is_none(), "{name}");
        let edit = Resource::Edit { to: first, bundle: bundle(name), from: None };
        assert!(get(&mut asking, edit).await.is_none(), "{name}");
        assert!(get(&mut asking, Resource::Object(first, bundle(name), db)).await.is_none(), "{name}");
    }
    let object = Resource::Object(first, bundle("role/web"), db);
    assert!(get(&mut asking, object).await.is_none(), "never by bare hash");
    // The relay itself tells them apart: what is forbidden is counted.
    let reader = Reader::Host([("role".to_owned(), "web".to_owned())].into());
    let seen =
        async |name: &str| publishing.publisher.replica.leaf(&reader, first, &bundle(name)).await.unwrap();
    assert_eq!(seen("role/db").await, Offered::Forbidden);
    assert_eq!(seen("role/none").await, Offered::Absent);
    assert!(matches!(seen("role/web").await, Offered::Here(_)));
    // A relay may read all of it.
    let mut relay = https(&house.member(Role::Relay, "eu"), origin.https()).await;
    assert!(get(&mut relay, Resource::Object(first, bundle("role/db"), db)).await.is_some());
    for bad in ["/", "/v1/", "/v1/../../etc/passwd", "/v2/x", &format!("{}x", target(Resource::News(None)))] {
        assert!(soon(asking.get(bad, ASK)).await.unwrap().is_none(), "{bad}");
    }
    let elsewhere = Url { platform: rootcast::id::PlatformId::from_bytes([1; 16]), target: Target::Join };
    assert!(soon(asking.get(&elsewhere.to_string(), ASK)).await.unwrap().is_none());
    let posted = soon(asking.post(&target(Resource::News(None)), Bytes::new(), ASK)).await;
    assert!(posted.is_err(), "nothing is brought there");
}

#[tokio::test]
async fn ht_7_who_waits_for_news_hears_of_it_at_once() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    let first = publishing.publish(FIRST).await;
    let mut asking = https(&house.member(Role::Agent, "web-1"), origin.https()).await;
    let known = get(&mut asking, Resource::News(None)).await.unwrap();
    let known: NewsAnswer = codec::decode(&known, MIB).unwrap();
    // The head of release 1 may come after it.
    let head = (known.head.0, known.head.1 + 1);
    let after = After { trust: 1, release: first.rank(), head, wait: 50 };
    let waiting = tokio::spawn(async move { get(&mut asking, Resource::News(Some(after))).await });
    let second = publishing.publish(&[("base", "a", Some(b"two\n"))]).await;
    let news: NewsAnswer = codec::decode(&soon(waiting).await.unwrap().unwrap(), MIB).unwrap();
    assert_eq!(news.latest, Some(second));
    // Without any it is answered as well, when the wait is over.
    let mut asking = https(&house.member(Role::Agent, "web-2"), origin.https()).await;
    let after = After { trust: 1, release: second.rank(), head: (1, 1000), wait: 1 };
    assert!(get(&mut asking, Resource::News(Some(after))).await.is_some());
}

#[tokio::test]
async fn ht_30_a_host_falls_back_when_quic_reaches_nobody_and_returns() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    publishing.publish(FIRST).await;
    let identity = house.labelled(Role::Agent, "web-1", &["role=web"]);
    // Nobody answers on UDP at the address where HTTPS is.
    let address = middle::tcp_only(origin.https()).await;
    let endpoint = Endpoint::dial_only(&identity).unwrap();
    let mut host = Following::start_with(&endpoint, fallback(&identity), replica(), &[address], web());
    let event = host.event("a fallback", |event| matches!(event, FollowEvent::Fallback { .. })).await;
    let FollowEvent::Fallback { reason } = event else { unreachable!() };
    assert!(reason.contains("is UDP blocked?"), "{reason}");
    host.event(
        "https",
        |event| matches!(event, FollowEvent::Connected { address, .. } if address.starts_with("https://")),
    )
    .await;
    host.until("release 1", |host| has(host, 1)).await;
    publishing.publish(&[("role/web", "w", Some(b"web, again\n"))]).await;
    host.until("release 2 over HTTPS", |host| has(host, 2)).await;
    let names: Vec<_> = roots(&host.replica).into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["base", "plan", "role/web"]);
    host.head_is_fresh().await;

    // UDP is let through: back to QUIC, by itself.
    let _forwarding = middle::forward_udp(address, origin.address).await;
    host.event("the return", |event| matches!(event, FollowEvent::Returned { .. })).await;
    host.event(
        "QUIC",
        |event| matches!(event, FollowEvent::Connected { address, .. } if !address.starts_with("https://")),
    )
    .await;
    publishing.publish(&[("role/web", "w", Some(b"web, once more\n"))]).await;
    host.until("release 3 over QUIC", |host| has(host, 3)).await;
    assert_eq!(content(&host.replica).len(), needed(&host.replica).len());
}

/// Drops objects from a store, as a collection does that was told wrongly.
fn lose(replica: &Replica, lost: &[ObjectId]) {
    let leaves = replica.held().unwrap().bundles.leaves().clone();
    let edits = leaves.into_values().map(|leaf| (leaf.name, 0)).collect();
    let objects = needed(replica).into_iter().filter(|id| !lost.contains(id)).collect();
    replica.store().collect(&Retained { objects, oldest_release: 1, edits }).unwrap();
    assert!(lost.iter().all(|id| !replica.store().contains(id)));
}

#[tokio::test]
async fn ht_31_a_wider_interest_and_a_damaged_store_are_filled_over_https() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    publishing.publish(FIRST).await;
    let identity = house.labelled(Role::Agent, "web-1", &["role=web"]);
    let host = Following::start_with(
        &blocked(&identity),
        fallback(&identity),
        replica(),
        &[origin.https()],
        named(&["base", "plan"]),
    );
    host.until("release 1", |host| has(host, 1)).await;
    assert_eq!(roots(&host.replica).len(), 2);
    host.interest.send_replace(web());
    host.until("role/web", |host| roots(host).len() == 3).await;

    // Damage is found, and exactly what is missing is asked for, by name.
    let lost = objects_of(&publishing.publisher, "role/web");
    lose(&host.replica, &lost);
    host.replica.request_repair();
    host.until("healed", |host| host.healed() >= lost.len() as u64).await;
    assert!(!content(&host.replica).is_empty());
}

#[tokio::test]
async fn ht_11a_a_relay_fetches_what_is_asked_for_over_https_and_nothing_for_who_may_not_have_it() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    let first = publishing.publish(FIRST).await;
    let relay = house.member(Role::Relay, "eu");
    let eu = house.run("eu", &[&origin]).await;
    let identity = house.labelled(Role::Agent, "web-1", &["role=web"]);
    let mut asking = https(&identity, eu.https()).await;
    let arrives = async { while get(&mut asking, Resource::Leaf(first, bundle("plan"))).await.is_none() {} };
    soon(arrives).await;
    let leaf = |name: &str| target(Resource::Leaf(first, bundle(name)));
    let outcome = asking.get(&leaf("role/web"), ASK).await;
    let Err(TransportError::Later { wait, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(wait, HTTP_RETRY);
    for name in ["role/db", "role/none"] {
        assert_eq!(asking.get(&leaf(name), ASK).await.unwrap(), None, "{name}");
    }
    let host = host(&identity, &[eu.https()]);
    host.until("release 1", |host| has(host, 1) && roots(host).len() == 3).await;
    let mut relaying = https(&relay, eu.https()).await;
    let outcome = relaying.get(&leaf("role/db"), ASK).await;
    assert!(matches!(outcome, Err(TransportError::Later { .. })), "it was not fetched: {outcome:?}");
    // From then on the relay has what comes, and each of its leaves is proved out of those it has.
    publishing.publish(&[("role/web", "w", Some(b"web, again\n"))]).await;
    host.until("release 2", |host| has(host, 2)).await;
}

#[tokio::test]
async fn ht_30_a_host_that_knows_many_parents_does_not_dial_them_all_in_vain_first() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    publishing.publish(FIRST).await;
    let identity = house.labelled(Role::Agent, "web-1", &["role=web"]);
    let nobody = (1..=2 * DIALS_IN_VAIN as u8).map(|last| SocketAddr::from(([127, 0, 0, last], 9)));
    let parents: Vec<SocketAddr> = nobody.chain([origin.https()]).collect();
    let mut host = host(&identity, &parents);
    let mut lost = 0;
    let quic = |event: &FollowEvent| matches!(event, FollowEvent::Lost { address, .. } if !address.starts_with("https://"));
    host.event("a fallback", |event| {
        lost += usize::from(quic(event));
        matches!(event, FollowEvent::Fallback { .. })
    })
    .await;
    assert_eq!(lost, DIALS_IN_VAIN);
    host.until("release 1", |host| has(host, 1)).await;
}

#[tokio::test]
async fn threat_22_denied_members_are_shut_out_of_https() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    publishing.publish(FIRST).await;
    let denied = house.member(Role::Agent, "web-1");
    let mut by_certificate = https(&denied, origin.https()).await;
    let nameless = HttpsDialer::nameless(&denied).unwrap();
    let mut by_token = soon(nameless.connect(&origin.https().to_string())).await.unwrap();
    for connection in [&mut by_certificate, &mut by_token] {
        assert!(get(connection, Resource::News(None)).await.is_some());
    }
    let who = Denied { role: Role::Agent, name: name("web-1") };
    house.records().deny(&who).unwrap();
    let refused = async |connection: &mut HttpsConnection| {
        while connection.get(&target(Resource::News(None)), ASK).await.is_ok() {}
    };
    soon(refused(&mut by_certificate)).await;
    soon(refused(&mut by_token)).await;
    let mut kept = https(&house.member(Role::Agent, "web-2"), origin.https()).await;
    assert!(get(&mut kept, Resource::News(None)).await.is_some());
}

#[tokio::test]
async fn j_30_a_certificate_renews_over_https_also_when_it_has_ended() {
    let house = House::new();
    let origin = house.origin().await;
    for (member, begun) in [("web-1", SystemTime::now() - DAY), ("web-2", SystemTime::now() - 10 * DAY)] {
        let old = house.issue(Role::Agent, member, 2 * DAY, begun);
        let dialer = HttpsDialer::new(&old).unwrap();
        let parents = [origin.https().to_string()];
        let own = old.own_key().unwrap();
        let request = signed(Role::Agent, member, &own, &[&own]);
        let answer = soon(ask_over_https(&dialer, &parents, &old, SystemTime::now(), request)).await;
        assert!(matches!(answer.unwrap(), JoinAnswer::Issued(_)), "{member}");
    }
}

/// A host that follows a bad parent first, and then a good one.
async fn survives(habit: Habit, words: &str) {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    publishing.publish(FIRST).await;
    let bad = Middle::start(&house.member(Role::Relay, "cache"), origin.https(), habit).await;
    let identity = house.labelled(Role::Agent, "web-1", &["role=web"]);
    let mut host = host(&identity, &[bad.address, origin.https()]);
    let lost = format!("https://{}", bad.address);
    let event = host
        .event(
            "the bad parent to be left",
            |event| matches!(event, FollowEvent::Lost { address, .. } if *address == lost),
        )
        .await;
    let FollowEvent::Lost { reason, .. } = event else { unreachable!() };
    assert!(reason.contains(words), "{habit:?}: {reason}");
    host.until("release 1 from the good parent", |host| has(host, 1)).await;
    assert!(!content(&host.replica).is_empty());
    publishing.publish(&[("role/web", "w", Some(b"web, again\n"))]).await;
    host.until("release 2", |host| has(host, 2)).await;
}

#[tokio::test]
async fn threat_12_corrupted_edits_are_refused_and_the_next_parent_is_asked() {
    survives(Habit::Flips("/edit/"), "").await;
}

#[tokio::test]
async fn threat_12_corrupted_leaves_are_refused_and_the_next_parent_is_asked() {
    survives(Habit::Flips("/leaf/"), "").await;
}

#[tokio::test]
async fn threat_12_another_release_than_asked_for_is_refused() {
    survives(Habit::Flips("/releases/"), "").await;
}

#[tokio::test]
async fn threat_12_objects_with_other_bytes_are_dropped_and_healed_in_another_way() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    publishing.publish(FIRST).await;
    let bad =
        Middle::start(&house.member(Role::Relay, "cache"), origin.https(), Habit::Flips("/object/")).await;
    let identity = house.labelled(Role::Agent, "web-1", &["role=web"]);
    let host = host(&identity, &[bad.address]);
    host.until("release 1", |host| has(host, 1)).await;
    let lost = objects_of(&publishing.publisher, "role/web");
    lose(&host.replica, &lost);
    host.replica.request_repair();
    // Not one object by its name, so the bundle anew; what is in the store is whole.
    host.until("healed", |host| lost.iter().all(|id| host.store().contains(id))).await;
    assert_eq!(host.replica.healed(), 0);
    assert!(!content(&host.replica).is_empty());
}

#[tokio::test]
async fn threat_13_a_bomb_for_an_edit_is_refused() {
    survives(Habit::Bomb, "").await;
}

#[tokio::test]
async fn threat_13_an_answer_without_end_is_cut_off() {
    survives(Habit::Endless, "over the limit").await;
}

#[tokio::test]
async fn threat_6_what_is_withheld_leaves_the_parent() {
    survives(Habit::NotFound, "no channel").await;
}

#[tokio::test]
async fn ht_33_a_cache_that_holds_spoiled_bytes_is_asked_to_ask_anew() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    publishing.publish(FIRST).await;
    let spoiled =
        Middle::start(&house.member(Role::Relay, "cache"), origin.https(), Habit::FlipsUnlessAsked).await;
    let identity = house.labelled(Role::Agent, "web-1", &["role=web"]);
    let host = host(&identity, &[spoiled.address]);
    host.until("release 1 past the cache", |host| has(host, 1)).await;
    assert!(!content(&host.replica).is_empty());
}

#[tokio::test]
async fn tuf_freeze_a_cache_that_gives_out_old_news_does_no_harm_and_makes_the_host_stale_at_worst() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    publishing.publish(FIRST).await;
    let stale =
        Middle::start(&house.member(Role::Relay, "cache"), origin.https(), Habit::FirstNewsForEver).await;
    let identity = house.labelled(Role::Agent, "web-1", &["role=web"]);
    let host = host(&identity, &[stale.address]);
    host.until("release 1", |host| has(host, 1)).await;
    publishing.publish(&[("base", "a", Some(b"two\n"))]).await;
    // It is asked no more often than it should be, however fast it answers.
    let begun = std::time::Instant::now();
    stale.asked_again(3).await;
    assert!(begun.elapsed() >= HTTP_GAP * 2, "three questions took {:?}", begun.elapsed());
    assert!(
        has(&host.replica, 1) && host.replica.refused() == 0,
        "what is held stays, and old news is no attack"
    );
}

/// nginx as docs/nginx.conf has it, before an origin that lets caches keep what they see.
#[tokio::test]
async fn ht_14_a_plain_cache_serves_the_second_host_of_a_role() {
    if !middle::nginx_is_there() {
        eprintln!("SKIPPED: nginx is not installed; `apt-get install nginx-light` brings it");
        return;
    }
    let house = House::new();
    house.member(Role::Relay, "origin");
    let origin = house.run_with("origin", &[], |config| config.http_cache = HttpCache::Shared).await;
    let publishing = Publishing::at(&house, &origin).await;
    let text = Numbers::new(7).text(200_000);
    publishing.publish(&[("base", "a", Some(&text)), ("role/web", "w", Some(b"web\n"))]).await;
    house.member(Role::Relay, "cache");
    let nginx = middle::Nginx::start(&house.path("cache"), origin.https()).await;
    let one = host(&house.labelled(Role::Agent, "web-1", &["role=web"]), &[nginx.address]);
    one.until("release 1 through nginx", |host| has(host, 1)).await;
    // What is asked for last.
    let first = nginx.logged(0, "/edit/role~web/").await;
    assert!(first.iter().any(|line| line.contains("/edit/base/") && line.starts_with("MISS")), "{first:#?}");
    assert!(first.iter().any(|line| line.contains("/news") && line.contains(" 401 ")), "{first:#?}");

    let two = host(&house.labelled(Role::Agent, "web-2", &["role=web"]), &[nginx.address]);
    two.until("release 1 from the cache", |host| has(host, 1)).await;
    let both = nginx.logged(first.len(), "/edit/role~web/").await;
    let later = &both[first.len()..];
    for part in ["/releases/", "/leaf/base", "/leaf/role~web", "/edit/base/", "/edit/role~web/"] {
        assert!(
            later.iter().any(|line| line.contains(part) && line.starts_with("HIT")),
            "{part}: {later:#?}"
        );
        let asked =
            |line: &&String| line.contains(part) && line.starts_with("MISS") && !line.contains("host~");
        assert_eq!(later.iter().filter(asked).count(), 0, "{part}: {later:#?}");
    }
    assert_eq!(content(&one.replica), content(&two.replica));
    // News goes through, and is not kept.
    publishing.publish(&[("role/web", "w", Some(b"web, again\n"))]).await;
    one.until("release 2", |host| has(host, 2)).await;
    two.until("release 2", |host| has(host, 2)).await;
    assert!(!nginx.log().iter().any(|line| line.contains("/news") && line.starts_with("HIT")));
}

#[tokio::test]
async fn ht_14_unless_told_otherwise_no_cache_keeps_anything() {
    if !middle::nginx_is_there() {
        eprintln!("SKIPPED: nginx is not installed; `apt-get install nginx-light` brings it");
        return;
    }
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    publishing.publish(FIRST).await;
    house.member(Role::Relay, "cache");
    let nginx = middle::Nginx::start(&house.path("cache"), origin.https()).await;
    for name in ["web-1", "web-2"] {
        let host = host(&house.labelled(Role::Agent, name, &["role=web"]), &[nginx.address]);
        host.until("release 1 through nginx", |host| has(host, 1)).await;
    }
    assert!(!nginx.log().iter().any(|line| line.starts_with("HIT")), "{:#?}", nginx.log());
}
