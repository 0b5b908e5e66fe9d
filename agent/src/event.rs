//! What an agent tells whoever runs it.

use crate::drift::Found;
use crate::services::HookRun;
use crate::slots::Report;
use rootcast::activation::State;
use rootcast::head::Freshness;
use rootcast_replica::FollowEvent;
use std::net::SocketAddr;

/// What happens in an agent, for whoever runs it.
#[derive(Debug, Clone)]
pub enum AgentEvent {
    /// It follows its relays.
    Ready {
        /// The host's name.
        name: String,
        /// Where operators are served, if they are.
        operations: Option<SocketAddr>,
    },
    /// Something about following a relay.
    Follow(FollowEvent),
    /// A release is live on disk.
    Active {
        /// Its number.
        number: u64,
        /// Files of the view.
        files: u64,
        /// What staging took.
        report: Report,
        /// Whether `current` flipped; not where the view did not change.
        flipped: bool,
        /// Damaged objects healed since the start.
        healed: u64,
        /// Secrets of the view, which are counted in its files.
        secrets: u64,
        /// Secrets of other hosts, which the view has not.
        left_out: u64,
    },
    /// The live tree was not as its release has it.
    Drift(Found),
    /// Whether the host knows that it is up to date has changed.
    Freshness(Freshness),
    /// An activation with services has come to a state.
    Activation {
        /// The release.
        release: u64,
        /// The state.
        state: State,
    },
    /// A hook was run.
    Hook(HookRun),
    /// Whether this host shows what it should has changed: the newest release that a good head names, or what
    /// the operator holds.
    Converged(bool),
    /// A release is quarantined: its activation was rolled back, or is inconsistent.
    RolledBack {
        /// Its number.
        number: u64,
        /// What is live instead; 0 for nothing good.
        live: u64,
        /// How it ended.
        state: State,
        /// Why.
        reason: String,
        /// The last that the hook wrote which failed.
        output: String,
    },
    /// A release could not be made live; what was live stays.
    Failed {
        /// Its number.
        number: u64,
        /// Why.
        reason: String,
    },
}
