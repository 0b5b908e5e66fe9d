//! What goes wrong, when, and for how long: all of it from the seed. Only what the
//! system promises to survive, so that each failure is a bug.

use crate::error::SimError;
use crate::liar::{HABITS, Habit};
use crate::network::Link;
use crate::random::Random;
use crate::world::{Kind, Node, ORIGIN, World};
use std::collections::BTreeMap;
use std::time::Duration;

/// A fault of one node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// The process is killed.
    Kill,
    /// The process is asked to end.
    Stop,
    /// The machine loses its power in the middle of a commit.
    Crash,
    /// The node, or with `subtree` all that follow it too, is cut off from the rest.
    Cut {
        /// Whether its children are on its side.
        subtree: bool,
    },
    /// The link is slow.
    Slow,
    /// The link loses and reorders.
    Lossy,
    /// Bits of the store flip.
    Corrupt,
    /// The disk is full.
    Full,
    /// A lying relay is in its place.
    Lies(Habit),
    /// Its clock is wrong by so many seconds.
    Skew(i64),
    /// The gateway before it forgets it.
    Rebind,
}

/// A fault, from when, and how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// Of which node.
    pub node: usize,
    /// What.
    pub fault: Fault,
}

/// Draws the faults of a run: on average one in each `every`, between two times, each
/// node with one at a time.
pub fn plan(
    world: &World,
    random: &mut Random,
    from: Duration,
    to: Duration,
    every: Duration,
) -> Vec<Planned> {
    let mut all = Vec::new();
    let mut busy: BTreeMap<usize, Duration> = BTreeMap::new();
    let (relays, hosts) = (world.of(Kind::Relay), world.of(Kind::Agent));
    let mut at = from;
    loop {
        at += random.between(Duration::ZERO, every * 2);
        if at >= to {
            return all;
        }
        // Relays matter most, and there are few.
        let node = match random.below(10) {
            0 => Some(ORIGIN),
            1..=5 => random.pick(&relays).copied(),
            _ => random.pick(&hosts).copied(),
        };
        let Some(node) = node else { continue };
        if busy.get(&node).is_some_and(|until| *until > at) {
            continue;
        }
        let kind = world.nodes.get(node).map_or(Kind::Agent, |node| node.kind);
        let Some(fault) = draw(kind, random) else { continue };
        let lasts = random.between(Duration::from_secs(2), Duration::from_secs(90)).min(to - at);
        busy.insert(node, at + lasts + Duration::from_secs(5));
        all.push(Planned { at, lasts, node, fault });
    }
}

/// A fault that a node of this kind may have. The origin has nobody to be healed by, and is not lied for.
fn draw(kind: Kind, random: &mut Random) -> Option<Fault> {
    let skew = random.between(Duration::ZERO, Duration::from_secs(600)).as_secs() as i64;
    let signed = if random.chance(0.5) { skew } else { -skew };
    Some(match random.below(12) {
        0 | 1 => Fault::Kill,
        2 => Fault::Stop,
        3 | 4 => Fault::Crash,
        5 => Fault::Cut { subtree: random.chance(0.5) },
        6 => Fault::Slow,
        7 => Fault::Lossy,
        8 if kind != Kind::Origin => Fault::Corrupt,
        9 => Fault::Full,
        10 if kind == Kind::Relay => Fault::Lies(*random.pick(&HABITS)?),
        10 if kind == Kind::Agent => Fault::Rebind,
        11 => Fault::Skew(signed),
        _ => return None,
    })
}

/// The nodes on one side of a cut: with `subtree` the whole datacenter or region that the node serves.
fn side(world: &World, node: usize, subtree: bool) -> Vec<usize> {
    let Some(own) = world.nodes.get(node).filter(|own| subtree && own.kind != Kind::Agent) else {
        return vec![node];
    };
    let is_in = |other: &Node| match (other.kind, own.kind) {
        (Kind::Publisher, _) => false,
        (_, Kind::Origin) => true,
        (Kind::Origin, _) => false,
        _ if own.is_local => other.place == own.place,
        _ => other.place.region == own.place.region,
    };
    let all = world.nodes.iter().enumerate().filter(|(_, other)| is_in(other));
    all.map(|(index, _)| index).collect()
}

/// Lets it begin.
///
/// # Errors
/// When a bit cannot be flipped.
pub fn begin(world: &mut World, planned: &Planned) -> Result<(), SimError> {
    let Planned { node, fault, .. } = *planned;
    let name = world.name(node).to_owned();
    world.checks.set_troubled(node, node, true);
    world.trace.add("fault", format!("{name}: {fault:?} for {} s", planned.lasts.as_secs()));
    let Some(machine) = world.nodes.get(node).map(|node| node.machine.clone()) else { return Ok(()) };
    match fault {
        Fault::Kill => world.kill(node),
        Fault::Stop => world.stop(node),
        Fault::Crash => machine.disk.crash_at_next_commit(),
        Fault::Cut { subtree } => {
            for node in side(world, node, subtree) {
                world.checks.set_troubled(node, planned.node, true);
                world.network.set_group(node, planned.node as u32 + 1);
            }
        }
        Fault::Slow => {
            let link = Link { extra: Duration::from_millis(700), rate: 4000.0, ..Link::GOOD };
            world.network.set_link(node, link);
        }
        Fault::Lossy => world.network.set_link(node, Link { loss: 0.2, reordered: 0.3, ..Link::GOOD }),
        Fault::Corrupt => {
            if let Some(store) = world.store(node).filter(|store| store.is_dir()) {
                let bits = machine.disk.flip_bits(&store)?;
                world.trace.add("fault", format!("{name}: {bits} bits flipped"));
            }
        }
        Fault::Full => machine.disk.set_full(true),
        Fault::Lies(habit) => world.lie(node, habit),
        Fault::Skew(seconds) => machine.set_skew(seconds),
        Fault::Rebind => world.network.rebind(node),
    }
    Ok(())
}

/// Puts it right.
///
/// # Errors
/// As [`World::start`].
pub fn end(world: &mut World, planned: &Planned) -> Result<(), SimError> {
    let Planned { node, fault, .. } = *planned;
    let Some(machine) = world.nodes.get(node).map(|node| node.machine.clone()) else { return Ok(()) };
    match fault {
        Fault::Kill => {}
        // The process that lies, or that ended, gives its place to a new one; so does one whose
        // store is damaged: damage is looked for at the start.
        Fault::Stop | Fault::Lies(_) | Fault::Corrupt => world.kill(node),
        Fault::Crash => machine.disk.disarm(),
        Fault::Cut { subtree } => {
            for node in side(world, node, subtree) {
                world.checks.set_troubled(node, planned.node, false);
                world.network.set_group(node, 0);
            }
        }
        Fault::Slow | Fault::Lossy => world.network.set_link(node, Link::GOOD),
        Fault::Full => machine.disk.set_full(false),
        Fault::Skew(_) => machine.set_skew(0),
        Fault::Rebind => {}
    }
    world.checks.set_troubled(node, node, false);
    Ok(())
}
