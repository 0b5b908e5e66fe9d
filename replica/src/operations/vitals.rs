//! What is measured, and judged, of every member that follows parents.

use super::Readiness;
use crate::{FollowEvent, Replica};
use rootcast::exposition::{Exposition, Kind};
use rootcast::head::Freshness;
use rootcast::limits::{DEGRADED_SHARE, READY_WITHOUT_PARENT};
use rootcast::path::ChannelName;
use rootcast_transport::Identity;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;
use tokio::time::Instant;

/// A member's replicas, its certificate, and how it stands with its parents.
pub struct Vitals {
    replicas: BTreeMap<ChannelName, Arc<Replica>>,
    identity: PathBuf,
    /// None for the origin, which has no parents.
    links: Option<Mutex<BTreeMap<ChannelName, Link>>>,
}

struct Link {
    connected: bool,
    /// Since when.
    since: Instant,
    /// Connections that were lost since the start.
    lost: u64,
    /// Why the last one was.
    reason: String,
}

impl Vitals {
    /// Those of a member; `follows`: all but the origin do.
    pub fn new(replicas: BTreeMap<ChannelName, Arc<Replica>>, identity: PathBuf, follows: bool) -> Self {
        let link = || Link { connected: false, since: Instant::now(), lost: 0, reason: String::new() };
        let links = follows.then(|| replicas.keys().map(|channel| (channel.clone(), link())).collect());
        Self { replicas, identity, links: links.map(Mutex::new) }
    }

    fn links(&self) -> Option<MutexGuard<'_, BTreeMap<ChannelName, Link>>> {
        Some(self.links.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of what happens with the parents of a channel.
    pub fn hear(&self, channel: &ChannelName, event: &FollowEvent) {
        let Some(mut links) = self.links() else { return };
        let Some(link) = links.get_mut(channel) else { return };
        match event {
            FollowEvent::Connected { .. } => (link.connected, link.since) = (true, Instant::now()),
            FollowEvent::Lost { reason, .. } => {
                if link.connected {
                    (link.connected, link.since) = (false, Instant::now());
                    link.lost += 1;
                }
                link.reason.clone_from(reason);
            }
            _ => {}
        }
    }

    /// Whether releases can be had and served: `ready` says what else is needed.
    pub fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::default();
        for (channel, replica) in &self.replicas {
            if replica.held().is_none() && self.links.is_some() {
                readiness.blocked.push(format!("channel {channel}: there is no release yet"));
            }
            if replica.freshness() == Freshness::Stale {
                let text = "no good head: it cannot be known whether there is a newer release";
                readiness.degraded.push(format!("channel {channel}: {text}"));
            }
        }
        for (channel, link) in self.links().iter().flat_map(|links| links.iter()) {
            let cut_off = link.since.elapsed();
            if !link.connected {
                let text = format!(
                    "channel {channel}: no parent for {} s: {}",
                    cut_off.as_secs(),
                    link.reason.escape_debug()
                );
                let beyond = cut_off >= READY_WITHOUT_PARENT;
                if beyond { &mut readiness.blocked } else { &mut readiness.degraded }.push(text);
            }
        }
        self.judge_certificate(&mut readiness);
        readiness
    }

    fn judge_certificate(&self, readiness: &mut Readiness) {
        let Some(machine) = self.replicas.values().next().map(|replica| replica.machine()) else { return };
        match Identity::load(&self.identity) {
            Ok(identity) => {
                let life = identity.expires().duration_since(identity.begins()).unwrap_or_default();
                match identity.expires().duration_since(machine.now()) {
                    Err(_) => readiness.degraded.push("the certificate has ended".into()),
                    Ok(left) if left < life / DEGRADED_SHARE => {
                        readiness.degraded.push(format!(
                            "the certificate ends in {} s and was not renewed",
                            left.as_secs()
                        ));
                    }
                    Ok(_) => {}
                }
            }
            Err(error) => readiness.degraded.push(format!("the identity cannot be read: {error}")),
        }
    }

    /// Adds what is measured of every member. `lag`: for how many seconds a channel has known of a
    /// release that it does not hold.
    pub fn measure(&self, page: &mut Exposition, role: &str, lag: impl Fn(&ChannelName) -> u64) {
        page.family("rootcast_build_info", Kind::Gauge, "Always 1; the version is a label.")
            .sample(&[("version", env!("CARGO_PKG_VERSION")), ("role", role)], 1);
        let mut each = |name, kind, help, value: &dyn Fn(&ChannelName, &Replica) -> Option<u64>| {
            let mut family = page.family(name, kind, help);
            for (channel, replica) in &self.replicas {
                if let Some(value) = value(channel, replica) {
                    family.sample(&[("channel", channel.as_str())], value);
                }
            }
        };
        let (counter, gauge) = (Kind::Counter, Kind::Gauge);
        each("rootcast_release_number", gauge, "The release that is held; 0 for none.", &|_, replica| {
            Some(replica.held().map_or(0, |held| held.accepted().number))
        });
        let help = "For how long a newer release has been known of than is held.";
        each("rootcast_release_lag_seconds", gauge, help, &|channel, _| Some(lag(channel)));
        let help = "Bytes of updates received.";
        each("rootcast_update_received_bytes_total", counter, help, &|_, replica| Some(replica.received()));
        let help = "Damaged objects that were healed.";
        each("rootcast_healed_objects_total", counter, help, &|_, replica| Some(replica.healed()));
        let help = "Offers of a parent that broke the acceptance rule: withheld, replayed or forked.";
        each("rootcast_offers_refused_total", counter, help, &|_, replica| Some(replica.refused()));
        let help = "Bytes that the store takes on the disk.";
        each("rootcast_store_bytes", gauge, help, &|_, replica| Some(replica.store().size()));
        let help = "When the head stops being good, in seconds since 1970.";
        each("rootcast_head_expires_timestamp_seconds", gauge, help, &|_, replica| {
            replica.head().map(|head| head.head().expires)
        });
        let help = "Whether there is a good head: 0 is STALE.";
        each("rootcast_head_fresh", gauge, help, &|_, replica| {
            Some(u64::from(replica.freshness() != Freshness::Stale))
        });
        self.measure_member(page);
    }

    fn measure_member(&self, page: &mut Exposition) {
        if let Some(links) = self.links() {
            let mut family =
                page.family("rootcast_parent_connected", Kind::Gauge, "Whether there is a parent.");
            for (channel, link) in links.iter() {
                family.sample(&[("channel", channel.as_str())], u64::from(link.connected));
            }
            let help = "Connections to a parent that were lost.";
            let mut family = page.family("rootcast_parent_lost_total", Kind::Counter, help);
            for (channel, link) in links.iter() {
                family.sample(&[("channel", channel.as_str())], link.lost);
            }
        }
        if let Some(replica) = self.replicas.values().next() {
            page.family("rootcast_trust_version", Kind::Gauge, "The version of trust in force.")
                .sample(&[], replica.trust().version());
        }
        if let Ok(identity) = Identity::load(&self.identity) {
            let help = "When our certificate ends, in seconds since 1970.";
            let name = "rootcast_certificate_expires_timestamp_seconds";
            let ends = identity.expires().duration_since(UNIX_EPOCH).unwrap_or_default();
            page.family(name, Kind::Gauge, help).sample(&[], ends.as_secs());
        }
    }
}
