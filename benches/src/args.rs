//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What Rootcast and its peers cost on a real history.
#[derive(Parser)]
#[command(
    name = "rootcast-benches",
    version,
    about = "What Rootcast and its peers cost on a real history",
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Bytes, round trips and CPU time of delivering the steps of a git history
    Bandwidth(Bandwidth),
    /// Cost of publishing and applying as trees grow
    Scale(crate::scale::Arguments),
    /// CPU time of handshakes: ours, and the same by bare QUIC, full and resumed
    Handshake(crate::handshake::Handshake),
    /// CPU time of a relay that starts again below its children
    Herd(crate::herd::Herd),
    /// How long a live file stays as somebody else wrote it
    Drift(crate::drift::Drift),
    /// CPU time, memory and time to the last of many connected children when something new is pushed
    Push(crate::push::Push),
    /// A process that pushes over bare QUIC
    #[command(hide = true)]
    Bare(crate::push::Bare),
    /// A process of the platform under measurement
    #[command(hide = true)]
    Member(Member),
}

const ABOUT_BANDWIDTH: &str = "\
Samples first-parent steps of a git repository, sends each through the real bundler, relay (as
origin) and agent, as processes that talk QUIC over loopback, and has every installed peer do the
same step with its own program. Nothing is written to the repository.

Modes:
  step    a host that is up to date and connected gets one commit
  jump    a host that was stopped J commits ago starts again and catches up
  cold    an empty host joins (at three of the sampled commits at most)
  fanout  the same steps through relays to many hosts: bytes on every link, delays";

const MORE_BANDWIDTH: &str = "\
How Rootcast's bytes are counted, from the inside out:
  edit      the edits alone: what the content of the change takes
  protocol  all bytes that both ends write to QUIC streams: edits, signed release, proofs,
            subscription, status reports. `× ours` is bytes down relative to this row
  UDP       the payload of every datagram, both ways, acknowledgements and (where there is one)
            the handshake included; keep-alives do not fall into the windows that are measured

Floors, no protocol: the smallest of several content coders over the changed files of each step,
and that with 64 bytes for one signature.

Round trips of Rootcast are measured: how much longer one more sample takes when every datagram is
held back on its way, the handshake included, whole ones counted.

CPU time: that of whole processes. Server = publisher + origin, client = agent.

Examples:
  rootcast-benches bandwidth --repo ~/config
  rootcast-benches bandwidth --repo ~/config --mode step --steps 100 --every 3 --peers git,rsync
  rootcast-benches bandwidth --repo ~/config --json figures.json --plot figures.svg > table.md

Exit status: 0 measured, 1 failed, 2 wrong usage.";

/// What to measure.
#[derive(Args)]
#[command(about, long_about = ABOUT_BANDWIDTH, after_long_help = MORE_BANDWIDTH)]
pub(crate) struct Bandwidth {
    /// The git repository, bare or not; its history ends at HEAD
    #[arg(long, value_name = "DIR")]
    pub(crate) repo: PathBuf,
    /// Steps to sample
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) steps: u32,
    /// Commits between two samples
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) every: u32,
    /// Commits that a stopped host is behind in mode jump
    #[arg(long, value_name = "J", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) jump: u32,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    pub(crate) mode: Vec<ModeArgument>,
    /// Tools to compare with: git, rsync, casync, ostree, zstd; '' for none
    #[arg(long, value_name = "LIST", default_value = "git,rsync,casync,ostree,zstd")]
    pub(crate) peers: String,
    /// Relays between origin and hosts in mode fanout; with 0 all hosts follow the origin
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) relays: u32,
    /// Hosts in mode fanout
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) agents: u32,
    /// Write every figure of every step to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the medians to this file, as SVG
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Where to work and to leave everything, logs included [default: a temporary directory,
    /// removed at the end]
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// A mode as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArgument {
    /// One commit to a host that is up to date
    Step,
    /// A host that was stopped catches up
    Jump,
    /// An empty host joins
    Cold,
    /// One commit through relays to many hosts
    Fanout,
    /// All of them
    All,
}

/// The names of all peers.
pub(crate) const PEERS: [&str; 5] = ["git", "rsync", "casync", "ostree", "zstd"];

impl Bandwidth {
    /// The peers that are asked for.
    ///
    /// # Errors
    /// The first name that is none, and those that are.
    pub(crate) fn peers(&self) -> Result<Vec<String>, String> {
        let names = self.peers.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<String> = names.map(str::to_owned).collect();
        match names.iter().find(|name| !PEERS.contains(&name.as_str())) {
            Some(other) => Err(format!(
                "--peers: there is no peer `{}`; choose from {}, or '' for none",
                other.escape_debug(),
                PEERS.join(", ")
            )),
            None => Ok(names),
        }
    }
}

/// A process of the platform: what it is, and where its configuration is.
#[derive(Args)]
pub(crate) struct Member {
    /// What it is
    #[arg(value_enum)]
    pub(crate) role: MemberRole,
    /// Its configuration file
    pub(crate) config: PathBuf,
    /// The repository (publisher only)
    pub(crate) repository: Option<PathBuf>,
}

/// What a process of the platform is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MemberRole {
    /// A relay, or the origin
    Relay,
    /// A host's agent
    Agent,
    /// Publishes the commits named on its standard input
    Publisher,
}

impl MemberRole {
    /// As it stands on the command line.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Agent => "agent",
            Self::Publisher => "publisher",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(arguments: &[&str]) -> Bandwidth {
        let all = ["rootcast-benches", "bandwidth", "--repo", "r"].iter().chain(arguments);
        match Arguments::try_parse_from(all).unwrap().command {
            Command::Bandwidth(bandwidth) => bandwidth,
            _ => unreachable!("nothing else was asked for"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_peers_some_and_unknown_ones() {
        assert!(parsed(&["--peers", ""]).peers().unwrap().is_empty());
        assert_eq!(parsed(&["--peers", "git, zstd"]).peers().unwrap(), ["git", "zstd"]);
        assert_eq!(parsed(&[]).peers().unwrap(), PEERS);
        assert!(parsed(&["--peers", "git,svn"]).peers().unwrap_err().contains("svn"));
    }

    #[test]
    fn modes_add_up() {
        assert_eq!(parsed(&["--mode", "step,cold"]).mode, [ModeArgument::Step, ModeArgument::Cold]);
        assert_eq!(parsed(&[]).mode, [ModeArgument::All]);
    }
}
