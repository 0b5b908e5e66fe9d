//! What keeping and telling of a host's live tree may cost.

use super::{KIB, MAX_DIFFERENCES, MAX_SEGMENT, MIB};
use core::time::Duration;

/// Paths of the live tree that wait to be looked at; where more do, all of it is looked at.
pub const MAX_DRIFT_SPOTS: usize = 1024;
/// Files that are put right in place, each synced before it is seen; where more differ, the other slot is staged and flipped to.
pub const MAX_REPAIRS_IN_PLACE: u64 = 32;
/// The time in which repairs are counted.
pub const REPAIR_WINDOW: Duration = Duration::from_secs(60);
/// Most paths that are repaired in that time; the rest waits for the next.
pub const MAX_REPAIRS: usize = 600;
/// Repairs of one path in that time, after which it is left to whoever rewrites it.
pub const MAX_REPAIRS_OF_PATH: usize = 10;
/// For how long it is left first; this doubles each time that it is rewritten again.
pub const LEFT_FIRST: Duration = Duration::from_secs(60);
/// The longest that a path is left before it is tried again.
pub const LEFT_MAX: Duration = Duration::from_secs(3600);
/// Most paths whose repairs are remembered.
pub const MAX_DRIFT_HISTORIES: usize = 1024;
/// Looks at the live tree in [`LOOKS_WINDOW`]; what is touched more often is looked at together.
pub const MAX_LOOKS: u32 = 100;
/// The time in which looks are counted.
pub const LOOKS_WINDOW: Duration = Duration::from_secs(1);
/// The whole live tree is compared with its view about this long after a flip or a start, ...
pub const RECHECK_AFTER_FLIP: Duration = Duration::from_secs(60);
/// ... then about this often, ...
pub const RECHECK: Duration = Duration::from_secs(6 * 3600);
/// ... and where not all of it is watched, about this often.
pub const RECHECK_UNWATCHED: Duration = Duration::from_secs(60);
/// Bytes a second that such a comparison reads while nothing hurries, ...
pub const CHECK_RATE: u64 = 32 * MIB;
/// ... so many at a time, ...
pub const CHECK_SLICE: u64 = MIB;
/// ... where a small file counts as so many.
pub const CHECK_FILE: u64 = 4 * KIB;
/// Most directories of a live tree that are watched.
pub const MAX_WATCHES: usize = 65_536;
/// Bytes of events that are read of a watch at once.
pub const WATCH_BUFFER: usize = 16 * 1024;
/// Things in the place of `current` that are moved aside; more are refused.
pub const MAX_SET_ASIDE: u32 = 16;
/// Most patterns of what is left alone in the live tree.
pub const MAX_IGNORED: usize = 64;
/// Paths that an alarm names; the rest is counted.
pub const MAX_DRIFT_NAMED: usize = 3;

/// Clients of an agent's local API that are served at once; more wait.
pub const MAX_LOCAL_CLIENTS: usize = 64;
/// Most of these that watch.
pub const MAX_LOCAL_WATCHERS: usize = 48;
/// Files that are read for them at once.
pub const MAX_LOCAL_READS: usize = 2;
/// How long such a client's request and answer may take, unless it watches.
pub const LOCAL_WAIT: Duration = Duration::from_secs(10);
/// How long a watcher may take nothing before it is left.
pub const LOCAL_STUCK: Duration = Duration::from_secs(30);
/// How often a watcher is sent something when there is no news.
pub const LOCAL_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Largest head of a local request.
pub const MAX_LOCAL_HEAD: usize = 16 * 1024;
/// Largest file that is served locally; a larger one is opened where it lies.
pub const MAX_LOCAL_FILE: u64 = 16 * MIB;
/// Largest file whose values are looked into.
pub const MAX_VALUES_FILE: u64 = MIB;
/// Most paths that an event names as changed by a generation.
pub const MAX_CHANGED: usize = 256;
/// Generations whose changes are remembered for watchers that come back.
pub const KEPT_CHANGES: usize = 16;

const _: () = {
    assert!(MAX_LOCAL_WATCHERS < MAX_LOCAL_CLIENTS, "who asks once always finds room");
    assert!(MAX_LOCAL_HEAD >= 8192, "what hyper takes at least");
    assert!(LOCAL_KEEP_ALIVE.as_secs() < LOCAL_STUCK.as_secs());
    assert!(MAX_REPAIRS_IN_PLACE < MAX_DIFFERENCES as u64, "what is put right in place is all named");
    assert!(MAX_REPAIRS_OF_PATH <= MAX_REPAIRS && MAX_DRIFT_HISTORIES >= MAX_REPAIRS);
    assert!(REPAIR_WINDOW.as_secs() <= LEFT_FIRST.as_secs() && LEFT_FIRST.as_secs() <= LEFT_MAX.as_secs());
    assert!(RECHECK_UNWATCHED.as_secs() <= RECHECK.as_secs());
    assert!(CHECK_FILE <= CHECK_SLICE && CHECK_SLICE <= CHECK_RATE);
    assert!(WATCH_BUFFER >= 2 * (MAX_SEGMENT + 17), "an event with the longest name fits");
};
