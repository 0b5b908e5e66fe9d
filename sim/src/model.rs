//! A model beyond what can be simulated: one release down a tree to a million hosts.
//!
//! Discrete events, one for each node of one path at each level: a parent sends to its
//! children one after the other, so the last child of the last child is the last host. The costs of a
//! hop were measured, but for the one marked as an allowance; the delays are the targets'.

use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// What a push to one child costs its parent: a push of a small release to a QUIC child, measured.
const PUSH: Duration = Duration::from_micros(28);
/// What a relay takes from the first datagram to the first of its own: a signature (53 us, measured), and an allowance to apply.
const FORWARD: Duration = Duration::from_micros(400);
/// What a host takes until the release is live, syncs included: the median of `rootcast dev` in README.md.
const ACTIVATE: Duration = Duration::from_millis(9);
/// Bytes of a small release with signature, proof and framing (README.md), and of its datagram's headers.
const BYTES: u64 = 188 + 60;

/// A level of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// What its nodes are.
    pub name: &'static str,
    /// How many there are.
    pub nodes: u64,
    /// Children of one parent, at most.
    pub fan: u64,
    /// One-way delay from the level above.
    pub way: Duration,
    /// When the first of them has the release.
    pub first: Duration,
    /// When the last of them has it.
    pub last: Duration,
    /// Bytes that one parent sends.
    pub bytes_each: u64,
    /// Bytes that the level above sends in all.
    pub bytes: u64,
    /// Processor time of one parent.
    pub work: Duration,
}

/// A tree: origin, regions, datacenters, racks where a datacenter has too many, hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    levels: Vec<Level>,
}

/// Hosts that one relay serves: its core is busy for 0.28 s with a release then.
const MOST_CHILDREN: u64 = 10_000;

impl Tree {
    /// The tree for so many hosts: 4 regions, 25 datacenters each, and as many relays as they need.
    pub fn of_hosts(hosts: u64) -> Self {
        let (regions, datacenters) = (4, 100);
        let relays = hosts.div_ceil(MOST_CHILDREN / 10).max(datacenters);
        let widths = [
            ("region", regions, 110),
            ("datacenter", datacenters, 15),
            ("rack", relays, 1),
            ("host", hosts, 1),
        ];
        let mut levels: Vec<Level> = Vec::new();
        let (mut above, mut first, mut last) = (1u64, Duration::ZERO, Duration::ZERO);
        for (name, nodes, milliseconds) in widths {
            // A level that would have one node below each is none.
            if nodes <= above && name != "host" {
                continue;
            }
            let fan = nodes.div_ceil(above);
            let way = Duration::from_millis(milliseconds);
            let arrives = if name == "host" { ACTIVATE } else { FORWARD };
            first += PUSH + way + arrives;
            last += PUSH * u32::try_from(fan).unwrap_or(u32::MAX) + way + arrives;
            let (bytes_each, bytes) = (fan * BYTES, nodes * BYTES);
            let work = PUSH * u32::try_from(fan).unwrap_or(u32::MAX);
            levels.push(Level { name, nodes, fan, way, first, last, bytes_each, bytes, work });
            above = nodes;
        }
        Self { levels }
    }

    /// Its levels, the one below the origin first.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The same for programs.
    pub fn to_json(&self) -> Value {
        let level = |level: &Level| {
            json!({
                "level": level.name, "nodes": level.nodes, "children_per_parent": level.fan,
                "first_ms": level.first.as_secs_f64() * 1e3, "last_ms": level.last.as_secs_f64() * 1e3,
                "bytes_per_parent": level.bytes_each, "bytes": level.bytes,
                "parent_cpu_ms": level.work.as_secs_f64() * 1e3,
            })
        };
        json!({ "levels": self.levels.iter().map(level).collect::<Vec<_>>() })
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<11} {:>9} {:>9} {:>10} {:>10} {:>14} {:>14} {:>14}",
            "level", "nodes", "children", "first ms", "last ms", "B per parent", "B in all", "parent CPU ms"
        )?;
        for level in &self.levels {
            writeln!(
                f,
                "{:<11} {:>9} {:>9} {:>10.1} {:>10.1} {:>14} {:>14} {:>14.1}",
                level.name,
                level.nodes,
                level.fan,
                level.first.as_secs_f64() * 1e3,
                level.last.as_secs_f64() * 1e3,
                level.bytes_each,
                level.bytes,
                level.work.as_secs_f64() * 1e3
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_sends_the_same_to_ten_thousand_hosts_and_to_a_million() {
        let origin = |hosts| Tree::of_hosts(hosts).levels().first().map(|level| level.bytes_each);
        assert_eq!(origin(10_000), origin(1_000_000));
        assert_eq!(origin(10_000), Some(4 * BYTES));
    }

    #[test]
    fn a_level_is_never_before_the_one_above_and_all_hosts_are_reached() {
        for hosts in [10, 1000, 1_000_000] {
            let tree = Tree::of_hosts(hosts);
            assert!(
                tree.levels()
                    .is_sorted_by(|above, below| above.last < below.last && above.first < below.first)
            );
            let last = tree.levels().last().unwrap();
            assert_eq!((last.name, last.nodes), ("host", hosts));
            assert!(last.fan <= MOST_CHILDREN);
        }
    }
}
