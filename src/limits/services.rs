//! Bounds of services and activations.

use super::{KIB, MIB};
use core::time::Duration;

/// Most services of a repository.
pub const MAX_SERVICES: usize = 256;
/// Most patterns of files of one service.
pub const MAX_SERVICE_PATTERNS: usize = 64;
/// Most things that one service installs.
pub const MAX_INSTALLS: usize = 64;
/// Most hooks of one service.
pub const MAX_SERVICE_HOOKS: usize = 64;
/// Most arguments of a command, its program included.
pub const MAX_ARGUMENTS: usize = 64;
/// Longest argument of a command, and name or value of its environment, in bytes.
pub const MAX_ARGUMENT: usize = 4096;
/// Most variables in the environment of a command.
pub const MAX_HOOK_VARIABLES: usize = 64;
/// How long a hook may take unless it says otherwise.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that it may say.
pub const HOOK_TIMEOUT_MOST: Duration = Duration::from_secs(3600);
/// How many bytes a hook may write unless it says otherwise.
pub const HOOK_OUTPUT: u64 = 64 * KIB;
/// The most that it may say.
pub const HOOK_OUTPUT_MOST: u64 = MIB;
/// Most tries of a check after the first.
pub const HOOK_RETRIES_MOST: u64 = 1000;
/// Time between two tries of a check unless it says otherwise.
pub const HOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The longest that it may say.
pub const HOOK_INTERVAL_MOST: Duration = Duration::from_secs(60);
/// The longest for which a check may have to stay good.
pub const HOOK_STABLE_MOST: Duration = Duration::from_secs(3600);

/// Most hooks of different services that run at once.
pub const MAX_RUNNING_SERVICES: usize = 8;
/// How much of the output of a hook that failed is kept: its end, in bytes.
pub const KEPT_OUTPUT: usize = 4096;
/// Longest file that holds the number of a process, as much of it as is read.
pub const PID_FILE_MOST: u64 = 64;
/// Most files and links that a host has installed at fixed places.
pub const MAX_INSTALLED: usize = 10_000;
/// Largest file that names those places.
pub const MAX_INSTALLED_FILE: u64 = 12 * MIB;
/// For how long an agent that is to end by itself waits for a release newer than one that failed.
pub const NEWER_WAIT: Duration = Duration::from_secs(2);
/// How often an activation is gone on with after the agent ended in its midst.
pub const MAX_RESUMES: u64 = 3;
/// Generations that a host can go back to, with the one that is live.
pub const KEPT_GENERATIONS: usize = 10;
/// Releases that a host did not make live and of which it remembers why.
pub const KEPT_FAILURES: usize = 10;
/// Largest file in which a host keeps what it knows of its activations.
pub const MAX_JOURNAL: u64 = 256 * KIB;
