//! The tree of `rootcast dev`: regions with a relay each, datacenters with two, hosts in them.

use crate::failure::{Exit, Failure};
use rootcast::member::Labels;
use std::path::{Path, PathBuf};

/// A relay, whom it is told to follow, and where it is.
pub(super) struct RelayPlan {
    pub(super) name: String,
    /// None: the origin.
    pub(super) parents: Vec<String>,
    pub(super) labels: Labels,
}

/// A place for hosts.
pub(super) struct Datacenter {
    pub(super) relays: Vec<String>,
    labels: Vec<(&'static str, String)>,
}

fn labels(pairs: &[(&'static str, String)]) -> Result<Labels, Failure> {
    Labels::new(pairs.iter().cloned()).map_err(|error| Failure::new(Exit::Failure, error.to_string()))
}

fn region(number: usize) -> String {
    ["eu", "us", "ap"].get(number).map_or_else(|| format!("region-{}", number + 1), |name| (*name).to_owned())
}

/// The relays of a tree, parents before children, and the datacenters that hosts are in. Up to two
/// relays serve one datacenter below the origin. From three on, each three are a region's own relay and
/// the two of its datacenter; two more are another datacenter of the last region, one more a second
/// relay of that region.
pub(super) fn plan(count: usize) -> Result<(Vec<RelayPlan>, Vec<Datacenter>), Failure> {
    let origin = || "origin".to_owned();
    let mut relays = vec![RelayPlan { name: origin(), parents: Vec::new(), labels: Labels::default() }];
    let mut datacenters = Vec::new();
    let regions = (count / 3).max(1);
    for number in 1..=count {
        let name = format!("relay-{number}");
        let (at, role) = if count < 3 { (0, number) } else { ((number - 1) / 3, (number - 1) % 3) };
        let of = at.min(regions - 1);
        let left_over = at >= regions;
        let is_upper = count >= 3 && role == 0 && (!left_over || count % 3 == 1);
        let mut place = vec![("region", region(of))];
        let mut parents = vec![origin()];
        if !is_upper {
            let datacenter = format!("{}-{}", region(of), 1 + usize::from(left_over));
            place.insert(0, ("datacenter", datacenter));
            if count >= 3 {
                parents = vec![format!("relay-{}", of * 3 + 1)];
            }
            match datacenters.iter_mut().find(|known: &&mut Datacenter| known.labels == place) {
                Some(known) => known.relays.push(name.clone()),
                None => datacenters.push(Datacenter { relays: vec![name.clone()], labels: place.clone() }),
            }
        }
        relays.push(RelayPlan { name, parents, labels: labels(&place)? });
    }
    if datacenters.is_empty() {
        let place = vec![("datacenter", "eu-1".to_owned()), ("region", region(0))];
        datacenters.push(Datacenter { relays: vec![origin()], labels: place });
    }
    Ok((relays, datacenters))
}

/// Name and labels of an agent, from 1: roles take turns.
pub(super) fn host(number: usize, datacenter: &Datacenter) -> Result<(String, Labels), Failure> {
    let role = if number % 2 == 1 { "web" } else { "db" };
    let name = format!("{role}-{}", number.div_ceil(2));
    let mut pairs = datacenter.labels.clone();
    pairs.push(("role", role.to_owned()));
    Ok((name, labels(&pairs)?))
}

/// The sample repository of the project, beside the manifest or below the working directory.
pub(super) fn sample() -> Result<PathBuf, Failure> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/sample");
    let places = [PathBuf::from("testdata/sample"), built];
    places.into_iter().find(|place| place.is_dir()).ok_or_else(|| {
        Failure::new(Exit::Usage, "the sample repository is not here").next("rootcast dev REPOSITORY")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(count: usize) -> (Vec<String>, Vec<Vec<String>>) {
        let (relays, datacenters) = plan(count).unwrap();
        let relay = |plan: &RelayPlan| format!("{} < {} {}", plan.name, plan.parents.join(","), plan.labels);
        (
            relays.iter().skip(1).map(relay).collect(),
            datacenters.into_iter().map(|place| place.relays).collect(),
        )
    }

    #[test]
    fn two_relays_serve_each_datacenter_where_there_are_enough() {
        assert_eq!(shown(0), (vec![], vec![vec!["origin".to_owned()]]));
        let (relays, places) = shown(2);
        assert_eq!(relays[1], "relay-2 < origin datacenter=eu-1&region=eu");
        assert_eq!(places, [["relay-1", "relay-2"]]);
        let (relays, places) = shown(6);
        assert_eq!(relays[0], "relay-1 < origin region=eu");
        assert_eq!(relays[3], "relay-4 < origin region=us");
        assert_eq!(relays[5], "relay-6 < relay-4 datacenter=us-1&region=us");
        assert_eq!(places, [["relay-2", "relay-3"], ["relay-5", "relay-6"]]);
        let (relays, places) = shown(4);
        assert_eq!((relays[3].as_str(), places.len()), ("relay-4 < origin region=eu", 1));
        let (relays, places) = shown(5);
        assert_eq!(relays[4], "relay-5 < relay-1 datacenter=eu-2&region=eu");
        assert_eq!(places[1], ["relay-4", "relay-5"]);
    }

    #[test]
    fn every_tree_has_its_parents_before_its_children() {
        for count in 0..=64 {
            let (relays, datacenters) = plan(count).unwrap();
            assert_eq!(relays.len(), count + 1);
            for (at, relay) in relays.iter().enumerate() {
                assert!(
                    relay.parents.iter().all(|parent| relays[..at].iter().any(|known| known.name == *parent))
                );
            }
            assert!(datacenters.iter().all(|place| count < 2 || place.relays.len() == 2), "{count}");
            assert!(host(1, &datacenters[0]).is_ok());
        }
    }
}
