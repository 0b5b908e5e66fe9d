//! Every bound of the system, named once and checked against the others at
//! compile time. Sizes are in bytes unless the name says otherwise.
//!
//! A peer is hostile or broken until proved otherwise, so each bound here is
//! what a decoder, queue or wait may cost in the worst case (specs/limits.md has those of the formats).

mod host;
mod services;

pub use host::*;
pub use services::*;

use core::time::Duration;

/// One KiB.
pub const KIB: u64 = 1024;
/// One MiB.
pub const MIB: u64 = 1024 * KIB;

/// Longest path of a configuration file, in bytes, separators included.
pub const MAX_PATH: usize = 1024;
/// Longest segment of a path, in bytes: what every file system here can name.
pub const MAX_SEGMENT: usize = 255;
/// Deepest path, in segments.
pub const MAX_SEGMENTS: usize = 64;
/// Longest target of a symbolic link.
pub const MAX_SYMLINK: usize = 1024;
/// Longest channel or bundle name.
pub const MAX_NAME: usize = 128;
/// Most labels of a member.
pub const MAX_LABELS: usize = 16;
/// Longest key or value of a label, in bytes.
pub const MAX_LABEL: usize = 64;

/// A file up to this size is one blob; a larger one is cut into chunks.
pub const MAX_BLOB: u64 = MIB;
/// Smallest chunk, except the last of a file.
pub const CHUNK_MIN: u32 = 16 * 1024;
/// Average chunk.
pub const CHUNK_AVERAGE: u32 = 64 * 1024;
/// Largest chunk.
pub const CHUNK_MAX: u32 = 256 * 1024;
/// Largest file.
pub const MAX_FILE: u64 = 256 * MIB;
/// Most chunks that one file can have: every chunk but the last is at least [`CHUNK_MIN`].
pub const MAX_CHUNKS: usize = (MAX_FILE / CHUNK_MIN as u64) as usize + 1;

/// Average entries of a tree node is `2^NODE_BITS`.
pub const NODE_BITS: u32 = 6;
/// Most entries of a tree node.
pub const NODE_MAX_ENTRIES: usize = 1024;
/// Highest level of a tree; leaves are level 0. A path hash has 64 bits and each level takes [`NODE_BITS`].
pub const MAX_LEVEL: u8 = 9;
/// Largest encoded object of any kind (blob, node, chunk list).
pub const MAX_OBJECT: u64 = 4 * MIB;

/// Most files of one bundle.
pub const MAX_FILES: u64 = 2_000_000;
/// Most bytes of content of one bundle: its snapshot fits an edit, however badly it packs.
pub const MAX_BUNDLE: u64 = 400 * MIB;
/// Most bundles of one release.
pub const MAX_BUNDLES: usize = 100_000;
/// Most layers of a host.
pub const MAX_LAYERS: usize = 32;

/// Largest settings file: a `rootcast.toml`, or a daemon's own.
pub const MAX_SETTINGS: u64 = 256 * KIB;
/// Most files of one configuration source, all its bundles together.
pub const MAX_SOURCE_FILES: u64 = 2 * MAX_FILES;
/// Entries, directories included, that may be looked at for each file that a source may have:
/// a tree can name the same empty directory again and again.
pub const SOURCE_ENTRIES_PER_FILE: u64 = 16;
/// Most refused files that one error about a source names; the rest are counted.
pub const MAX_REFUSALS_NAMED: usize = 20;

/// Longest pattern of paths, in bytes.
pub const MAX_PATTERN: usize = 1024;
/// Deepest nesting of braces in a pattern.
pub const MAX_PATTERN_NESTING: usize = 8;
/// Most patterns that settings may give for merges and templates together, and as many for checks.
pub const MAX_VIEW_PATTERNS: usize = 512;
/// Most lists of all merges that are told apart by a field.
pub const MAX_MERGE_KEYS: usize = 512;
/// Longest name of such a list, or of its field, in bytes.
pub const MAX_MERGE_KEY: usize = 256;
/// Largest file that is merged, rendered or checked, and largest result: one blob.
pub const MAX_DERIVED: u64 = MAX_BLOB;
/// Deepest nesting of a document that is merged or checked.
pub const MAX_DOCUMENT_NESTING: usize = 64;
/// Most values of a document that is merged or checked, its aliases written out: what a bomb may cost.
pub const MAX_DOCUMENT_VALUES: usize = 200_000;
/// Steps that one template may take.
pub const TEMPLATE_FUEL: u64 = 1_000_000;
/// Deepest nesting of calls and loops in a template.
pub const TEMPLATE_NESTING: usize = 32;
/// Most facts of a host.
pub const MAX_FACTS: usize = 64;
/// Longest text of a fact, in bytes.
pub const MAX_FACT: usize = KIB as usize;
/// Most hosts that settings may name.
pub const MAX_KNOWN_HOSTS: usize = 4096;

/// Largest secret, in bytes before it is encrypted.
pub const MAX_SECRET: u64 = 512 * KIB;
/// Most recipients of one secret; settings have no room for more keys.
pub const MAX_SECRET_RECIPIENTS: usize = 4096;
/// Most patterns of paths that settings may give for secrets.
pub const MAX_SECRET_PATTERNS: usize = 1024;
/// Most bytes of one host's secrets, encrypted: what they may take of its memory in a generation.
pub const MAX_HOST_SECRETS: u64 = 64 * MIB;
/// Largest file of a decryption key.
pub const MAX_KEY_FILE: u64 = 4 * KIB;

/// Largest edit, as encoded.
pub const MAX_EDIT: u64 = 512 * MIB;
/// Content that one zstd frame of an edit may hold, which bounds what both ends keep in memory.
pub const FRAME_CONTENT: u64 = 16 * MIB;
/// Bytes of base content that may stand before one frame as its prefix.
pub const FRAME_PREFIX: u64 = 16 * MIB;
/// Bytes of the frame before that stand in the prefix of the next one.
pub const FRAME_TAIL: u64 = 8 * MIB;
/// Most trees on the way from what a replica holds to what was signed, in one update of a bundle.
pub const MAX_WAYPOINTS: usize = 4;
/// Largest section of operations of an edit, unpacked.
pub const MAX_OPERATIONS: u64 = 96 * MIB;

/// Deepest nesting of an encoded document.
pub const MAX_NESTING: usize = 8;
/// Largest signed document (release, trust document, head).
pub const MAX_DOCUMENT: u64 = 64 * KIB;
/// Longest commit id, in bytes: SHA-256.
pub const MAX_COMMIT: usize = 32;
/// Work factor of scrypt, as a power of two, for key files that are written: half a second and 128 MiB.
pub const KEY_WORK_FACTOR: u8 = 17;
/// Highest work factor that is tried when a file is read: a second or two, and 256 MiB. A hostile file costs no more.
pub const KEY_WORK_FACTOR_MOST: u8 = 18;
/// Longest passphrase, in bytes.
pub const MAX_PASSPHRASE: u64 = 4 * KIB;
/// Most files of a directory that is searched for keys.
pub const MAX_KEY_FILES: usize = 1024;
/// Largest release before it is signed by all, in a file: its leaves and edits, and what wraps them.
pub const MAX_RELEASE_DRAFT: u64 = MAX_EDIT + MAX_RECORD;
/// Largest proposal of a version of trust: the versions since the first, the new one, and what wraps them.
pub const MAX_PROPOSAL: u64 = 16 * MIB;
/// Longest line of the origin's audit record, its end included.
pub const MAX_AUDIT_LINE: u64 = 16 * KIB;
/// Longest text of one field of an audit record, in bytes; a longer one is cut.
pub const MAX_AUDIT_TEXT: usize = 1024;
/// Most refusals that the audit record takes in [`AUDIT_WINDOW`]; more are counted.
pub const MAX_AUDIT_REFUSALS: u64 = 60;
/// The time in which refusals are counted.
pub const AUDIT_WINDOW: Duration = Duration::from_secs(60);
/// Most signatures over one document.
pub const MAX_SIGNATURES: usize = 16;
/// Most keys that one role or grant names.
pub const MAX_KEYS: usize = 64;
/// Most grants of a trust document.
pub const MAX_GRANTS: usize = 256;
/// Most certificate authorities of a platform at once: the old and the new.
pub const MAX_AUTHORITIES: usize = 2;
/// Most versions of a platform's trust document, all of which its members keep.
pub const MAX_TRUST_VERSIONS: usize = 4096;
/// Most trust documents in one answer; who lacks more asks again.
pub const MAX_TRUST_ANSWER: usize = 16;
/// How long a parent may hold less than a head says there is, before the next parent is asked.
pub const BEHIND_HEAD_WAIT: Duration = Duration::from_secs(300);
/// How long a head is good for, unless the origin is told otherwise.
pub const HEAD_VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// Shortest validity of a head: it must outlast what a relay may be away for a moment.
pub const HEAD_VALIDITY_LEAST: Duration = Duration::from_secs(60);
/// Longest validity of a head: so long a host can be kept in the dark without knowing it.
pub const HEAD_VALIDITY_MOST: Duration = Duration::from_secs(90 * 24 * 3600);
/// A child's head is replaced when the newest was issued this part of its validity later.
pub const HEAD_RENEWALS: u64 = 4;
/// Highest release number, trust version and head sequence: far from overflow, and exact in JSON.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

/// Largest control, request or answer header frame on the wire.
pub const MAX_FRAME: u64 = 32 * MIB;
/// Largest opening message of an agent: its names, its layers and where it stands.
pub const MAX_OPENING: u64 = MIB;
/// Fewest bytes of an edit that are kept when its update breaks off: less is sent again as fast as told of.
pub const MIN_RESUMED: u64 = 64 * KIB;
/// Most edits of which a child says what it has.
pub const MAX_BEGINNINGS: usize = 16;
/// Largest news on a control stream: a head, and what wraps it.
pub const MAX_NEWS: u64 = MAX_DOCUMENT + 64;
/// Most tries of a publisher that others keep overtaking.
pub const MAX_PUBLISH_TRIES: usize = 16;
/// Most channels that one relay carries.
pub const MAX_CHANNELS: usize = 64;
/// Most objects in one request.
pub const MAX_OBJECTS_PER_REQUEST: usize = 1024;
/// Most bytes of objects in one answer; what does not fit is asked for again.
pub const MAX_OBJECTS_ANSWER: u64 = 32 * MIB;
/// Most subscriptions (control streams) of one connection.
pub const MAX_SUBSCRIPTIONS: usize = 64;
/// Most request streams that a peer may have open at once.
pub const MAX_REQUEST_STREAMS: u32 = 8;
/// Most update streams that a parent may have open to a child at once.
pub const MAX_UPDATE_STREAMS: u32 = 8;
/// Most children of one relay.
pub const MAX_CHILDREN: usize = 20_000;
/// Most relays that a report of status names; what is below the rest is counted.
pub const MAX_RELAY_ROWS: usize = 1024;
/// Most different (release, state) that the hosts of one relay are counted under; the rest count as of release 0.
pub const MAX_STATUS_COUNTS: usize = 32;
/// Most hosts that a report names because they do worst.
pub const MAX_WORST: usize = 32;
/// Longest reason in a report, in bytes; a longer one is cut.
pub const MAX_REASON: usize = 256;
/// Largest report of a host, which is one row.
pub const MAX_HOST_REPORT: u64 = KIB;
/// Largest report of a relay, and largest answer about hosts.
pub const MAX_STATUS_ANSWER: u64 = 8 * MIB;
/// Most hosts in one answer; who wants more asks on.
pub const MAX_HOSTS_ANSWER: usize = 1000;
/// Longest selector, in bytes.
pub const MAX_SELECTOR: usize = 512;
/// Most terms of a selector.
pub const MAX_TERMS: usize = 16;
/// Most relays above a host that an answer names.
pub const MAX_DEPTH: usize = 16;
/// Questions about hosts that a relay works on at once; more wait in their streams.
pub const MAX_QUESTIONS: usize = 8;
/// Longest time that a question about hosts may take, all hops together.
pub const QUESTION_WAIT: Duration = Duration::from_secs(10);
/// What each hop keeps of that time for itself, as its part in this many.
pub const QUESTION_HOP_SHARE: u32 = 8;
/// Most moves of hosts from one relay to another in one report, or queued for one.
pub const MAX_MOVES: usize = 1024;
/// Largest file in which a relay keeps its children's last rows.
pub const MAX_CHILDREN_FILE: u64 = 32 * MIB;
/// Operators' requests that are answered at once; more wait.
pub const MAX_OPERATORS: usize = 16;
/// How long an operator's request and its answer may take.
pub const OPERATOR_WAIT: Duration = Duration::from_secs(10);
/// How long a process may be without any parent and still call itself ready.
pub const READY_WITHOUT_PARENT: Duration = Duration::from_secs(60);
/// A certificate or head that ends within this part of its life is told of as degraded, as its part in this many.
pub const DEGRADED_SHARE: u32 = 4;
/// Shortest time between two writes of that file.
pub const CHILDREN_SAVE_GAP: Duration = Duration::from_secs(30);

/// Most alternates that a parent names to a child.
pub const MAX_ALTERNATES: usize = 8;
/// Most relays that a child keeps in mind as parents: those configured, and those it was told of.
pub const MAX_CANDIDATES: usize = 32;
/// Most relays on the way from the origin to one, both included.
pub const MAX_ROUTE: usize = 16;
/// Round trips up to this are alike, and beyond it those up to twice as long.
pub const NEAR_ROUND_TRIP: Duration = Duration::from_millis(10);
/// How long a child waits at least before it looks whether a better parent is back; it doubles, with jitter.
pub const PROBE_FIRST: Duration = Duration::from_secs(5);
/// Longest such wait.
pub const PROBE_MAX: Duration = Duration::from_secs(120);
/// How long a better parent must have been reachable before a child goes home to it.
pub const HOME_STABLE: Duration = Duration::from_secs(20);
/// Longest such time, of a parent that was lost again and again.
pub const HOME_STABLE_MAX: Duration = Duration::from_secs(3600);
/// A parent that is lost sooner than this after it was chosen must be stable for twice as long next time.
pub const FLAP_WINDOW: Duration = Duration::from_secs(600);
/// How long a child lets a parent that is cut off or behind find a way itself, before it looks for another.
pub const CUT_OFF_PATIENCE: Duration = Duration::from_secs(2);
/// The children of such a parent spread over this time.
pub const CUT_OFF_SPREAD: Duration = Duration::from_secs(8);
/// How long a relay is without a parent before it says so.
pub const CUT_OFF_SAID: Duration = Duration::from_secs(1);
/// How long a relay lacks what its head says there is, before it says so.
pub const BEHIND_SAID: Duration = Duration::from_secs(30);
/// A parent that has sent a host nothing for this long, keep-alives notwithstanding, is left where there is another.
pub const SILENCE_WAIT: Duration = Duration::from_secs(15);
/// The same for a relay: all below it wait as long.
pub const RELAY_SILENCE_WAIT: Duration = Duration::from_secs(8);
/// Shortest time between two lists of alternates on one control stream.
pub const ALTERNATES_GAP: Duration = Duration::from_secs(2);

/// Longest address of a relay, `host:port`, in bytes.
pub const MAX_ADDRESS: usize = 261;
/// Most addresses in a join string.
pub const MAX_JOIN_ADDRESSES: usize = 8;
/// Longest join string, in characters.
pub const MAX_JOIN_STRING: usize = 16 * 1024;
/// Largest signed request to join or to renew.
pub const MAX_JOIN_REQUEST: u64 = 4 * KIB;
/// Largest answer to such a request: a certificate chain.
pub const MAX_JOIN_ANSWER: u64 = 32 * KIB;
/// Largest answer with a platform's public documents.
pub const MAX_PUBLIC_DOCUMENTS: u64 = MIB;
/// Longest age recipient of a member.
pub const MAX_RECIPIENT: usize = 128;
/// Connections of joiners that a relay serves at once; more are turned away.
pub const MAX_JOINS: usize = 64;
/// Requests that a relay passes on to its parents at once; more are turned away.
pub const MAX_JOINS_FORWARDED: usize = 256;
/// Requests that the origin works on at once; the rest wait in their streams.
pub const MAX_JOINS_JUDGED: usize = 4;
/// How long a joiner's connection may last, and how long a relay waits for a parent's answer.
pub const JOIN_WAIT: Duration = Duration::from_secs(30);
/// How far the time in a request may be from the origin's.
pub const JOIN_CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);
/// Longest life of a token.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most machines that one token is good for.
pub const MAX_TOKEN_USES: u64 = 1000;
/// Most tokens that an origin keeps.
pub const MAX_TOKENS: usize = 10_000;
/// Largest file that an origin keeps of a token or a member.
pub const MAX_MEMBER_FILE: u64 = 512 * KIB;
/// Most members that are denied at once: a document with the longest names still fits [`MAX_DOCUMENT`].
pub const MAX_DENIED: usize = 400;
/// Gap between two looks of the origin at what is denied.
pub const DENIED_LOOK: Duration = Duration::from_secs(1);
/// How long a relay's certificate is good.
pub const RELAY_VALIDITY: Duration = Duration::from_secs(3 * 24 * 3600);
/// How long an agent's certificate is good.
pub const AGENT_VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a publisher's certificate is good.
pub const PUBLISHER_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long after its certificate's end a member can still renew it.
pub const RENEWAL_GRACE: Duration = Duration::from_secs(30 * 24 * 3600);
/// First wait after a renewal that failed; it doubles, with jitter.
pub const RENEWAL_RETRY_FIRST: Duration = Duration::from_secs(30);
/// Longest wait after a renewal that failed.
pub const RENEWAL_RETRY_MAX: Duration = Duration::from_secs(3600);

/// Wait for a handshake to end.
pub const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// Wait for the answer to a request to begin.
pub const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Wait for the next bytes on a stream in the middle of a frame.
pub const STREAM_WAIT: Duration = Duration::from_secs(30);
/// A connection with no packets for this long is dead.
pub const IDLE_WAIT: Duration = Duration::from_secs(30);
/// Gap between keep-alives of a host.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Gap between keep-alives of a relay: there are few of them, and all below it wait for what it notices.
pub const RELAY_KEEP_ALIVE: Duration = Duration::from_secs(3);
/// First wait before a new try at a parent; it doubles, with jitter.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before a new try at a parent.
pub const RETRY_MAX: Duration = Duration::from_secs(15);
/// How long after a change a host reports it, and so the shortest time between two reports.
pub const REPORT_GAP: Duration = Duration::from_millis(50);
/// The same for a relay, whose report stands for all below it.
pub const FOLD_GAP: Duration = Duration::from_millis(200);
/// Gap between tries to make a release live that failed to.
pub const ACTIVATION_RETRY: Duration = Duration::from_secs(5);
/// How long a child that left is still shown, as offline.
pub const OFFLINE_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Most children that are shown as offline; of more, those that left first are forgotten.
pub const MAX_OFFLINE: usize = MAX_CHILDREN;
/// Wait for an orderly end after a signal.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// Handshakes that a listener works on at once; more wait.
pub const MAX_PENDING_HANDSHAKES: usize = 1024;
/// Callers with a proved address that wait for their handshake; more are refused. At two
/// thousand handshakes a second all are served within [`HANDSHAKE_WAIT`].
pub const MAX_WAITING_HANDSHAKES: usize = 16 * 1024;
/// How long a relay gives out tickets under one key; it takes them for twice as long.
pub const TICKET_KEY_LIFE: Duration = Duration::from_secs(12 * 3600);
/// Keys of tickets that a relay keeps: the one in use, and the one before.
pub const MAX_TICKET_KEYS: usize = 2;
/// Longest ticket: a session and a chain of certificates.
pub const MAX_TICKET: usize = 16 * 1024;
/// Tickets that a relay gives out on each connection.
pub const TICKETS_GIVEN: usize = 2;
/// Tickets that a client keeps of one relay.
pub const MAX_SESSIONS: usize = 4;
/// Above this many handshakes at once a caller must first prove its address (QUIC retry).
pub const RETRY_HANDSHAKES_ABOVE: usize = 128;
/// Bytes kept for one handshake before it is looked at.
pub const HANDSHAKE_BUFFER: u64 = 16 * KIB;
/// Addresses of one host name that are tried.
pub const MAX_ADDRESSES: usize = 8;
/// Slowest that a peer may send or take the bytes of a frame, in bytes a second, after [`STREAM_WAIT`].
pub const MIN_STREAM_RATE: u64 = 256;
/// Bytes that one stream may hold unread.
pub const STREAM_WINDOW: u64 = MIB;
/// Bytes that one connection may hold, unread or unacknowledged: parents, child relays, publishers.
pub const CONNECTION_WINDOW: u64 = 4 * MIB;
/// The same for a child that is a host, of which there are many.
pub const CHILD_WINDOW: u64 = 256 * KIB;
/// Bytes that may be sent before the first acknowledgement: a small release in its first flight.
pub const INITIAL_WINDOW: u64 = 64 * KIB;
/// Most datagrams that a relay hands to the system at once for one child. QUIC keeps room for as
/// many with each connection, and most children get one datagram a release: ten, the usual, cost 10 KB more each.
pub const TRANSMIT_SEGMENTS: usize = 2;
/// Most subscriptions of a connection from a host.
pub const MAX_HOST_SUBSCRIPTIONS: usize = 8;
/// Bytes of a large body that are read, and handed on, at once.
pub const BODY_PIECE: usize = 64 * 1024;

/// Longest name of a resource over HTTPS, its query included.
pub const MAX_URL: usize = 1024;
/// Longest that who waits for news over HTTPS may ask to wait.
pub const MAX_NEWS_WAIT: Duration = Duration::from_secs(50);
/// Most certificates in a chain; ours are two, under the authority.
pub const MAX_CHAIN: usize = 4;
/// Largest token of a member over HTTPS: its chain, and what it signed.
pub const MAX_BEARER: u64 = 6 * KIB;
/// Longest that such a token is good.
pub const MAX_BEARER_LIFE: Duration = Duration::from_secs(300);
/// How far the clocks of a member and a relay may differ for such a token.
pub const BEARER_SKEW: Duration = Duration::from_secs(120);
/// Largest head of a request or an answer over HTTPS: all its lines.
pub const MAX_HTTP_HEAD: usize = 16 * 1024;
/// Most lines in it.
pub const MAX_HTTP_LINES: usize = 32;
/// Largest body of a request over HTTPS: a request to renew.
pub const MAX_HTTP_BODY: usize = 8 * 1024;
/// Most connections over HTTPS that a relay serves at once, handshakes included.
pub const MAX_HTTP_CONNECTIONS: usize = 4096;
/// Most of these whose callers show no certificate: proxies, and those who come to renew.
pub const MAX_HTTP_STRANGERS: usize = MAX_HTTP_CONNECTIONS / 2;
/// Most of these that may be in their handshake.
pub const MAX_HTTP_HANDSHAKES: usize = 256;
/// Requests that one connection over HTTPS is good for.
pub const MAX_HTTP_REQUESTS: u64 = 100_000;
/// Wait for the whole head of a request, the time before its first byte included.
pub const HTTP_HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long a cache may give out what is newest without asking.
pub const NEWS_AGE: Duration = Duration::from_secs(1);
/// Releases beside the newest that a relay keeps verified, for questions about them over HTTPS.
pub const KEPT_RELEASES: usize = 2;
/// How long QUIC must have reached no parent before HTTPS is tried.
pub const FALLBACK_AFTER: Duration = Duration::from_secs(5);
/// Parents that are dialled over QUIC in vain, one after the other, before HTTPS is tried; fewer where fewer are known.
pub const DIALS_IN_VAIN: usize = 4;
/// First wait of a host on HTTPS before it tries QUIC again; it doubles, with jitter.
pub const QUIC_PROBE_FIRST: Duration = Duration::from_secs(30);
/// Longest wait of a host on HTTPS before it tries QUIC again.
pub const QUIC_PROBE_MAX: Duration = Duration::from_secs(600);
/// Shortest time between two questions for news over HTTPS.
pub const HTTP_GAP: Duration = Duration::from_secs(1);
/// When to ask again for what a relay has not yet, or has no room for.
pub const HTTP_RETRY: Duration = Duration::from_secs(1);
/// Largest answer over HTTPS that is no edit, object or signed document: a leaf with its proof, or news.
pub const MAX_HTTP_ANSWER: u64 = 4 * KIB;

/// Largest release record of a store: the signed release with the leaves of its bundles.
pub const MAX_RELEASE_RECORD: u64 = 32 * MIB;
/// Bytes of a store's batch that are held in memory before they are written out.
pub const STORE_SPOOL: u64 = 8 * MIB;
/// A store's pack of this size takes no more batches.
pub const STORE_SEGMENT: u64 = 256 * MIB;
/// Largest table of contents of one part of a store's batch.
pub const STORE_CONTENTS: u64 = 2 * MIB;
/// Space that a pack is extended by at once, so that most commits change no file size.
pub const STORE_PREALLOCATE: u64 = MIB;
/// A store up to this size is rewritten whole when it is collected.
pub const STORE_COLLECT_WHOLE: u64 = 8 * MIB;
/// Tries at a consistent look at a store that another process is collecting.
pub const STORE_OPEN_TRIES: u32 = 16;

/// Files and directories of one staging that are synced one by one; more are synced with their file system.
pub const SYNC_EACH: usize = 8;
/// Bytes that staging leaves free on the file system of the slots.
pub const SLOT_RESERVE: u64 = 4 * MIB;
/// Inodes that staging leaves free on the file system of the slots.
pub const SLOT_RESERVE_INODES: u64 = 64;
/// Most differences that one check of a slot lists; the rest are counted.
pub const MAX_DIFFERENCES: usize = 1000;

/// Largest record that a replica keeps of a release: the document, leaves and a proof.
pub const MAX_RECORD: u64 = MAX_DOCUMENT + MAX_BUNDLES as u64 * (MAX_NAME as u64 + 128);
/// Most edits that a relay keeps at hand of those it computed.
pub const CACHED_EDITS: usize = 64;
/// Most bytes of such edits.
pub const CACHED_EDIT_BYTES: u64 = 256 * MIB;
/// Most bytes of snapshots that a relay makes ahead and keeps at hand.
pub const SNAPSHOT_BYTES: u64 = 256 * MIB;
/// A bundle with fewer bytes than this has its snapshot made when it is asked for.
pub const SNAPSHOT_FROM: u64 = 64 * KIB;
/// What can wait is done when no release has come for so long, ...
pub const TEND_AFTER: Duration = Duration::from_secs(1);
/// ... and at the latest so long after one.
pub const TEND_WITHIN: Duration = Duration::from_secs(30);
/// Gap between two looks at whether the store's files are still there, when no release comes.
pub const STORE_LOOK: Duration = Duration::from_secs(10);
/// Most updates that a relay keeps ready for children that stand alike.
pub const PREPARED_UPDATES: usize = 16;
/// Trees of which a relay keeps what belongs to them, at 16 bytes an object and what a set adds.
pub const KEPT_REACHES: usize = 2;
/// A store smaller than this is not collected.
pub const COLLECT_FROM: u64 = 32 * MIB;
/// Most fetches of missing objects in a row before a snapshot is taken instead.
pub const MAX_REPAIR_ROUNDS: usize = 16;

/// Most names of bundles that the children of a relay want, of one channel: all that there are, and some that there are not.
pub const MAX_WANTED: usize = 120_000;
/// How long a relay keeps up a bundle after the last child that wanted it, unless it is told otherwise.
pub const WANTED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Longest time that it may be told.
pub const WANTED_KEPT_MOST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Shortest time between two changes of what a relay asks its parent for: children that come together are asked for together.
pub const INTEREST_GAP: Duration = Duration::from_millis(100);
/// Most patterns that a relay's settings may keep.
pub const MAX_KEEP: usize = 1024;
/// Most fetches under way of bundles that a relay does not hold yet; more wait.
pub const MAX_FILLS: usize = 4;
/// How long a relay that has yet to fetch what is asked for lets a question wait.
pub const FILL_WAIT: Duration = Duration::from_secs(300);
/// Edits that a relay computes at once, for all its children.
pub const EDITS_AT_ONCE: usize = 2;
/// An update up to this many bytes, or whose release has this many leaves, is looked into where it arrives; larger ones elsewhere.
pub const LOOKED_INTO_AT_ONCE: u64 = 256 * KIB;

/// Releases that a replica keeps whole in any case, the newest included.
pub const RETAINED_RELEASES: u64 = 8;
/// Most releases that a replica with children keeps, as long as they take little room.
pub const LOGGED_RELEASES: u64 = 1024;

const _: () = {
    assert!(MAX_SEGMENT <= MAX_PATH);
    assert!(MAX_NAME <= MAX_PATH);
    assert!(CHUNK_MIN < CHUNK_AVERAGE && CHUNK_AVERAGE < CHUNK_MAX);
    assert!((CHUNK_MAX as u64) <= MAX_BLOB, "a chunk is stored as a blob");
    assert!(MAX_BLOB <= FRAME_CONTENT, "one blob always fits one frame");
    assert!(MAX_BLOB <= FRAME_PREFIX, "one base blob always fits one prefix");
    assert!(FRAME_TAIL + FRAME_PREFIX + FRAME_CONTENT <= 64 * MIB, "a window of 2^26 covers it");
    assert!(MAX_BLOB <= MAX_OBJECT);
    // A chunk list is a hash and a length of at most 34 + 5 bytes each, plus a header.
    assert!((MAX_CHUNKS as u64) * 40 + 64 <= MAX_OBJECT);
    // A leaf entry is a path, a kind, a size and a hash or link target.
    assert!((NODE_MAX_ENTRIES as u64) * (MAX_PATH as u64 + MAX_SYMLINK as u64 + 32) <= MAX_OBJECT);
    assert!(NODE_BITS * (MAX_LEVEL as u32 + 1) <= 64);
    assert!(MAX_FILE <= MAX_BUNDLE);
    // What does not pack grows by less than a 256th.
    assert!((MAX_BUNDLE + MAX_OPERATIONS) / 256 * 257 <= MAX_EDIT, "every bundle has a snapshot");
    assert!(MAX_OBJECT <= MAX_OBJECTS_ANSWER);
    assert!(MAX_RECORD <= MAX_FRAME, "the head of an update that lists all bundles fits a frame");
    assert!((MAX_OBJECTS_PER_REQUEST as u64) * 40 + 1024 <= MAX_FRAME);
    assert!((MAX_TRUST_ANSWER as u64) * (MAX_DOCUMENT + 16) <= MAX_FRAME);
    assert!(MAX_NUMBER < u64::MAX - 1, "number + 1 never overflows");
    assert!(RETRY_HANDSHAKES_ABOVE < MAX_PENDING_HANDSHAKES);
    assert!(
        MAX_WAITING_HANDSHAKES as u64 <= 2000 * HANDSHAKE_WAIT.as_secs()
            && MAX_WAITING_HANDSHAKES <= MAX_CHILDREN
    );
    assert!(TICKETS_GIVEN <= MAX_SESSIONS);
    assert!(CHILD_WINDOW <= CONNECTION_WINDOW && STREAM_WINDOW <= CONNECTION_WINDOW);
    assert!(MAX_HOST_SUBSCRIPTIONS <= MAX_SUBSCRIPTIONS);
    assert!(MAX_OBJECT < 1 << 24, "a store's index keeps lengths of objects in 24 bits");
    assert!(MAX_EDIT < 1 << 32 && MAX_RELEASE_RECORD < 1 << 32, "a store keeps lengths in 32 bits");
    // The longest name: two releases, a channel, a bundle and a platform.
    assert!(2 * MAX_NAME + 2 * (2 * 16 + 64 + 2) + 64 + 64 <= MAX_URL);
    assert!(MAX_BEARER as usize * 2 + MAX_URL + 1024 <= MAX_HTTP_HEAD, "a token, in digits, fits a head");
    assert!(MAX_HTTP_HEAD >= 8192, "what hyper takes at least");
    assert!(MAX_NEWS_WAIT.as_secs() < ANSWER_WAIT.as_secs(), "an answer without news comes in time");
    assert!(MAX_JOIN_REQUEST as usize <= MAX_HTTP_BODY);
    assert!(1 <= HTTP_RETRY.as_secs() && HTTP_RETRY.as_secs() <= ANSWER_WAIT.as_secs());
    assert!(ANSWER_WAIT.as_secs() < FILL_WAIT.as_secs(), "it is asked for again before it is given up");
    assert!(MAX_HTTP_STRANGERS < MAX_HTTP_CONNECTIONS, "members always find room");
    assert!(MAX_HTTP_HANDSHAKES <= MAX_HTTP_CONNECTIONS);
    assert!(KEEP_ALIVE.as_secs() * 2 < IDLE_WAIT.as_secs());
    assert!(KEEP_ALIVE.as_secs() + 5 <= SILENCE_WAIT.as_secs(), "a lost keep-alive is sent again some times");
    assert!(RELAY_KEEP_ALIVE.as_secs() + 5 <= RELAY_SILENCE_WAIT.as_secs(), "the same for relays");
    assert!(SILENCE_WAIT.as_secs() < IDLE_WAIT.as_secs());
    assert!(MAX_ALTERNATES + MAX_JOIN_ADDRESSES <= MAX_CANDIDATES);
    // One that withholds is left after that time, and must not be gone back to as quickly again.
    assert!(BEHIND_HEAD_WAIT.as_secs() < FLAP_WINDOW.as_secs());
    // Names, a place and an address each, or the route.
    assert!((MAX_ALTERNATES * (MAX_NAME + 3 * MAX_LABEL + MAX_ADDRESS + 32)) as u64 <= MAX_NEWS);
    assert!((MAX_ROUTE * (MAX_NAME + 8)) as u64 + 128 <= MAX_NEWS);
    assert!(
        HOME_STABLE.as_secs() <= HOME_STABLE_MAX.as_secs() && PROBE_FIRST.as_secs() <= PROBE_MAX.as_secs()
    );
    // A role, a name and their heads, and one signature over them.
    assert!(MAX_DENIED as u64 * (MAX_NAME as u64 + 14) + 1024 <= MAX_DOCUMENT);
    // A use of a token is a name, a key and their heads.
    assert!(MAX_TOKEN_USES * (MAX_NAME as u64 + 40) + 8 * KIB <= MAX_MEMBER_FILE);
    assert!(RETAINED_RELEASES <= LOGGED_RELEASES);
    assert!(MAX_WANTED > MAX_BUNDLES, "all bundles can be wanted");
    // Names with their lengths: what is wanted, and what is held of it.
    assert!((MAX_WANTED + MAX_BUNDLES) as u64 * (MAX_NAME as u64 + 3) + KIB <= MAX_FRAME);
    assert!(KEY_WORK_FACTOR <= KEY_WORK_FACTOR_MOST);
    assert!(MAX_AUDIT_TEXT as u64 * 12 + 1024 <= MAX_AUDIT_LINE, "an event with its fields fits a line");
    assert!(REPORT_GAP.as_millis() <= FOLD_GAP.as_millis());
    // A row of a host is names, labels, a reason and a few numbers.
    assert!(MAX_REASON as u64 + MAX_NAME as u64 * 2 + 128 <= MAX_HOST_REPORT);
    assert!(MAX_HOSTS_ANSWER as u64 * 6 * KIB <= MAX_STATUS_ANSWER && MAX_STATUS_ANSWER <= MAX_FRAME);
    assert!(MAX_RELAY_ROWS as u64 * 4 * KIB + MAX_WORST as u64 * 6 * KIB <= MAX_STATUS_ANSWER);
    // The rules travel as one blob, and each value takes a byte of a document at least.
    assert!(
        (MAX_VIEW_PATTERNS * (MAX_PATTERN + 8) + MAX_MERGE_KEYS * 2 * (MAX_MERGE_KEY + 8)) as u64 <= MAX_BLOB
    );
    assert!(MAX_DOCUMENT_VALUES as u64 <= MAX_DERIVED);
    assert!(MAX_INSTALLED * 2 * (MAX_PATH + 3) / 2 < MAX_INSTALLED_FILE as usize);
    // Names of services and hashes of layers, in all generations and the journal, and what failed.
    assert!(
        (KEPT_GENERATIONS + 2) * (MAX_LAYERS + 4) * (40 + MAX_NAME)
            + 2 * MAX_SERVICES * (MAX_LABEL + 2)
            + 2 * KEPT_OUTPUT
            + KEPT_FAILURES * (MAX_REASON + 80)
            <= MAX_JOURNAL as usize
    );
    assert!(RETAINED_RELEASES >= 3, "the standby slot is two releases behind");
};
