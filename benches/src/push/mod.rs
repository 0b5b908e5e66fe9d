//! One server and many connected children: what it costs to tell them all
//! something new, of Rootcast and of what could do it instead.
//!
//! Every child has a connection and a socket of its own, all in the harness, which has one
//! thread. The server is a process of its own, whose CPU time and memory the system tells.

mod bare;
mod etcd;
mod history;
mod nats;
mod ours;
mod server;

pub(crate) use bare::{Bare, serve as serve_bare};

use crate::error::BenchError;
use crate::handshake::runtime;
use crate::ours::platform::Platform;
use clap::Args;
use rootcast::path::ChannelName;
use rootcast_bundler::config::DEFAULT_CHANNEL;
use rootcast_transport::Role;
use serde_json::json;
use server::Usage;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// What to measure.
#[derive(Args)]
pub(crate) struct Push {
    /// Children that are connected
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    children: u32,
    /// Pushes that are measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pushes: u32,
    /// What to measure beside Rootcast: of quinn, etcd, etcd-tls, nats
    #[arg(long, default_value = "quinn,etcd,etcd-tls,nats")]
    peers: String,
    /// A line of JSON for each, instead of the table
    #[arg(long)]
    json: bool,
}

/// Handshakes under way at a time: far below what makes a relay ask for proof of address.
const CONNECTING: usize = 64;
/// How long all children may take to connect, or to hear of one push.
const WAIT: Duration = Duration::from_secs(300);
/// Until acknowledgements and whatever else follows a push are over.
const SETTLE: Duration = Duration::from_millis(500);

/// Counts what the children have heard.
#[derive(Clone)]
struct Heard {
    count: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
    /// When the count last came to a multiple of all children.
    whole: watch::Sender<(usize, Instant)>,
    children: usize,
}

impl Heard {
    fn new(children: usize) -> Self {
        let whole = watch::Sender::new((0, Instant::now()));
        Self { count: Arc::default(), bytes: Arc::default(), whole, children }
    }

    /// A child has heard of one push, which took so many bytes.
    fn one(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(self.children) {
            self.whole.send_replace((count / self.children, Instant::now()));
        }
    }

    /// The moment at which all children had heard of that many pushes.
    async fn all(&self, pushes: usize) -> Result<Instant, BenchError> {
        let mut whole = self.whole.subscribe();
        let heard = tokio::time::timeout(WAIT, whole.wait_for(|(count, _)| *count >= pushes)).await;
        match heard {
            Ok(Ok(now)) => Ok(now.1),
            _ => {
                let (count, all) = (self.count.load(Ordering::Relaxed), pushes * self.children);
                Err(BenchError::Nothing(format!("{count} of {all} pushes arrived in {} s", WAIT.as_secs())))
            }
        }
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What one server cost.
struct Row {
    name: &'static str,
    /// Payload bytes of a push to one child.
    bytes: f64,
    /// CPU time of the server for each push and child.
    cpu: Duration,
    /// From the moment at which the server has it to the last child.
    last: Duration,
    /// Memory of the server for each child: connected, and after all pushes.
    connected: u64,
    pushed: u64,
}

/// A server under measurement: how to connect a child, and how to push.
trait Server {
    /// What it is called in the table.
    fn name(&self) -> &'static str;
    /// The process whose costs count.
    fn id(&self) -> Result<u32, BenchError>;
    /// Connects child `index`; the future then runs until it is dropped. Sends over `connected` once it would hear of a push.
    fn child(
        &self,
        index: usize,
        heard: Heard,
        connected: tokio::sync::oneshot::Sender<()>,
    ) -> impl Future<Output = Result<(), BenchError>> + 'static;
    /// Pushes; gives the moment at which the server had it.
    async fn push(&mut self) -> Result<Instant, BenchError>;
    /// Pushes that each child hears of by connecting.
    const AT_ONCE: usize;
}

async fn measured<S: Server>(mut server: S, arguments: &Push) -> Result<(Row, S), BenchError> {
    let children = arguments.children as usize;
    let heard = Heard::new(children);
    let before = Usage::of(server.id()?)?;
    let mut running = JoinSet::new();
    let local = tokio::task::LocalSet::new();
    let row = local
        .run_until(async {
            let room = Arc::new(Semaphore::new(CONNECTING));
            let mut connecting = JoinSet::new();
            for index in 0..children {
                let permit = room.clone().acquire_owned().await;
                let (tell, told) = tokio::sync::oneshot::channel();
                running.spawn_local(server.child(index, heard.clone(), tell));
                connecting.spawn(async move {
                    let connected = told.await;
                    drop(permit);
                    connected
                });
            }
            while let Some(connected) = connecting.join_next().await {
                if !matches!(connected, Ok(Ok(()))) {
                    let ended = running.join_next().await;
                    let Some(Ok(Err(error))) = ended else {
                        return Err(BenchError::Nothing("a child ended early".into()));
                    };
                    return Err(error);
                }
            }
            let mut pushes = S::AT_ONCE;
            heard.all(pushes).await?;
            tokio::time::sleep(SETTLE).await;
            let connected = Usage::of(server.id()?)?;
            let bytes = heard.bytes();
            let mut last = Vec::new();
            for _ in 0..arguments.pushes {
                let begun = server.push().await?;
                pushes += 1;
                last.push(heard.all(pushes).await?.saturating_duration_since(begun));
                tokio::time::sleep(SETTLE).await;
            }
            let after = Usage::of(server.id()?)?;
            last.sort_unstable();
            let each = |memory: u64| memory.saturating_sub(before.memory) / children as u64;
            Ok(Row {
                name: server.name(),
                bytes: (heard.bytes() - bytes) as f64 / children as f64 / f64::from(arguments.pushes),
                cpu: (after.cpu - connected.cpu) / (arguments.children * arguments.pushes),
                last: last.get(last.len() / 2).copied().unwrap_or_default(),
                connected: each(connected.memory),
                pushed: each(after.memory),
            })
        })
        .await?;
    drop(running);
    Ok((row, server))
}

/// One row after the other, each told as soon as it is there.
struct Table {
    json: bool,
    /// What a push by bare QUIC costs, where that was measured.
    bare: Option<Duration>,
}

impl Table {
    fn begin(json: bool) -> Self {
        if !json {
            println!(
                "| | bytes | CPU of the server, each | × bare QUIC | to the last | memory a child, connected | after the pushes |"
            );
            println!("|---|---:|---:|---:|---:|---:|---:|");
        }
        Self { json, bare: None }
    }

    fn tell(&self, row: &Row) {
        let Row { name, bytes, cpu, last, connected, pushed } = row;
        // Few children take less than a tick.
        let ratio =
            self.bare.filter(|bare| !bare.is_zero()).map(|bare| cpu.as_secs_f64() / bare.as_secs_f64());
        if self.json {
            println!(
                "{}",
                json!({
                    "name": name, "bytes": bytes, "cpu_ns": cpu.as_nanos() as u64, "ratio": ratio,
                    "last_us": last.as_micros() as u64, "memory_connected": connected, "memory": pushed,
                })
            );
            return;
        }
        let kib = |bytes: &u64| *bytes as f64 / 1024.0;
        let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "| {name} | {bytes:.0} | {:.1} µs | {ratio} | {:.1} ms | {:.1} KiB | {:.1} KiB |",
            cpu.as_secs_f64() * 1e6,
            last.as_secs_f64() * 1e3,
            kib(connected),
            kib(pushed),
        );
    }
}

/// A directory of identities for all children, made once.
struct Scratch {
    directory: tempfile::TempDir,
    platform: Platform,
}

impl Scratch {
    fn new() -> Result<Self, BenchError> {
        let directory = tempfile::tempdir().map_err(BenchError::io(Path::new("the temporary directory")))?;
        let channel =
            ChannelName::new(DEFAULT_CHANNEL).map_err(|error| BenchError::Nothing(error.to_string()))?;
        let platform = Platform::create(directory.path(), channel)?;
        Ok(Self { directory, platform })
    }

    fn server(&self) -> Result<PathBuf, BenchError> {
        self.platform.identity(Role::Relay, "server")
    }

    fn child(&self) -> Result<PathBuf, BenchError> {
        self.platform.identity(Role::Agent, "child")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

pub(crate) fn run(arguments: &Push) -> Result<(), BenchError> {
    let known = ["quinn", "etcd", "etcd-tls", "nats"];
    let peers: Vec<&str> =
        arguments.peers.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if let Some(other) = peers.iter().find(|name| !known.contains(name)) {
        let message = format!("--peers: there is no peer `{other}`; choose from {}", known.join(", "));
        return Err(BenchError::Usage(message));
    }
    runtime()?.block_on(async {
        let mut table = Table::begin(arguments.json);
        let (ours, relay) = measured(ours::Relay::start(arguments).await?, arguments).await?;
        relay.stop().await;
        let size = ours.bytes.round() as usize;
        let scratch = Scratch::new()?;
        if peers.contains(&"quinn") {
            let bare = measured(bare::Loop::start(&scratch, size).await?, arguments).await?.0;
            table.bare = Some(bare.cpu);
            table.tell(&bare);
        }
        table.tell(&ours);
        for (name, tls) in [("etcd", false), ("etcd-tls", true)] {
            if !peers.contains(&name) {
                continue;
            }
            match etcd::Etcd::start(&scratch, size, tls).await? {
                None => eprintln!("{name}: etcd is not installed"),
                Some(server) => table.tell(&measured(server, arguments).await?.0),
            }
        }
        if peers.contains(&"nats") {
            match nats::Nats::start(&scratch, size).await? {
                None => eprintln!("nats: nats-server is not installed"),
                Some(server) => table.tell(&measured(server, arguments).await?.0),
            }
        }
        Ok(())
    })
}
