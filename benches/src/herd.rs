//! What it costs a relay to start again below its children: all of them come back at once, and
//! each resumes its session, subscribes, and is welcomed (specs/wire.md, W-7, W-8).
//!
//! The relay has a thread of its own, whose CPU time is taken; beside it, in the same
//! run, bare quinn resumes as many sessions and sends one stream on each.

use crate::error::BenchError;
use crate::handshake::{bare, cpu, runtime, tls};
use crate::ours::platform::Platform;
use clap::Args;
use rootcast::limits::MAX_FRAME;
use rootcast::path::ChannelName;
use rootcast::protocol::{Interest, Opening, Standing, Subscribe, Welcome};
use rootcast::resumption::Beginnings;
use rootcast_bundler::config::DEFAULT_CHANNEL;
use rootcast_relay::{RelayConfig, RelayEvent};
use rootcast_transport::{Connection, Endpoint, Identity, Receiver, Role, Sender};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// What to measure.
#[derive(Args)]
pub(crate) struct Herd {
    /// Children of the relay, each with a socket of its own
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    children: u32,
}

/// First wait of a child that was turned away; it doubles.
const RETRY: Duration = Duration::from_millis(50);

/// A relay on a thread of its own.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Result<Duration, BenchError>>,
}

impl Running {
    fn start(config: RelayConfig) -> Result<Self, BenchError> {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let events = Arc::new(move |event: RelayEvent| {
            if let RelayEvent::Ready { address, .. } = event {
                let _ = tell.send(address);
            }
        });
        let thread = std::thread::spawn(move || {
            let shutdown = async {
                let _ = stopped.await;
            };
            runtime()?.block_on(rootcast_relay::run(config, events, shutdown)).map_err(tls)?;
            Ok(cpu())
        });
        let address = told.recv().map_err(|_| tls("the relay did not start"))?;
        Ok(Self { address, stop, thread })
    }

    /// Ends it; gives the CPU time of its thread.
    fn end(self) -> Result<Duration, BenchError> {
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| tls("the relay's thread ended early"))?
    }
}

/// A child that is subscribed.
struct Child {
    endpoint: Endpoint,
    connection: Option<(Connection, Sender, Receiver)>,
}

impl Child {
    /// Comes, however often it is turned away; gives how often that was.
    async fn come(mut self, address: SocketAddr, channel: ChannelName) -> Result<(Self, u32), BenchError> {
        let (mut turned_away, mut wait) = (0, RETRY);
        let connection = loop {
            match self.endpoint.connect(&address.to_string()).await {
                Ok(connection) => break connection,
                Err(_) => {
                    turned_away += 1;
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
            }
        };
        let (mut sender, mut receiver) = connection.open_bi().await?;
        let subscribe = Subscribe {
            channel,
            subscription: 1,
            interest: Interest::Named(Vec::new()),
            standing: Standing { release: None, whole: Vec::new() },
            trust: 1,
            head: (0, 0),
            serves: None,
            begun: Beginnings::default(),
        };
        sender.send_message(&Opening::Subscribe(subscribe)).await?;
        let welcome: Option<Welcome> = receiver.receive_message(MAX_FRAME).await?;
        welcome.ok_or_else(|| tls("no welcome"))?;
        self.connection = Some((connection, sender, receiver));
        Ok((self, turned_away))
    }
}

async fn all(
    children: Vec<Child>,
    address: SocketAddr,
    channel: &ChannelName,
) -> Result<(Vec<Child>, u32), BenchError> {
    let mut coming = JoinSet::new();
    for child in children {
        coming.spawn(child.come(address, channel.clone()));
    }
    let (mut come, mut turned_away) = (Vec::new(), 0);
    while let Some(child) = coming.join_next().await {
        let (child, times) = child.map_err(tls)??;
        come.push(child);
        turned_away += times;
    }
    Ok((come, turned_away))
}

pub(crate) fn run(arguments: &Herd) -> Result<(), BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::io(Path::new("the temporary directory")))?;
    let channel = ChannelName::new(DEFAULT_CHANNEL).map_err(tls)?;
    let platform = Platform::create(directory.path(), channel.clone())?;
    let home = platform.relay("origin", None)?;
    let config = || RelayConfig::load(&home.join(crate::ours::process::CONFIG_FILE)).map_err(tls);
    let host = platform.identity(Role::Agent, "host")?;
    let identity = Identity::load(&host)?;
    let first = Running::start(config()?)?;
    let address = first.address;
    let (took, turned_away, ready) = runtime()?.block_on(async {
        let child = |_| Ok(Child { endpoint: Endpoint::dial_only(&identity)?, connection: None });
        let children: Result<Vec<Child>, BenchError> = (0..arguments.children).map(child).collect();
        let (children, _) = all(children?, address, &channel).await?;
        // All know that it ends: it says so.
        let ended = tokio::task::spawn_blocking(move || first.end());
        for child in &children {
            if let Some((connection, ..)) = &child.connection {
                connection.closed().await;
            }
        }
        ended.await.map_err(tls)??;
        let again = RelayConfig { listen: address, ..config()? };
        let second = Running::start(again)?;
        let begun = Instant::now();
        let (children, turned_away) = all(children, address, &channel).await?;
        let took = begun.elapsed();
        let ready = second.end()?;
        drop(children);
        Ok::<_, BenchError>((took, turned_away, ready))
    })?;
    // What it costs to start and end with nobody there.
    let idle = Running::start(RelayConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..config()? })?.end()?;
    let each = ready.saturating_sub(idle) / arguments.children;
    let relay = platform.identity(Role::Relay, "origin")?;
    let bare = bare(&relay, &host, arguments.children, true)?.server;
    println!("| {} children of a relay that starts again | CPU of the relay, each |", arguments.children);
    println!("|---|---:|");
    println!("| Rootcast: resumed, subscribed, welcomed, and told of the end | {} µs |", each.as_micros());
    println!("| bare quinn: resumed, and one stream | {} µs |", bare.as_micros());
    println!(
        "\nRatio {:.2}; all were back after {:.1} s; {turned_away} times one was turned away.",
        each.as_secs_f64() / bare.as_secs_f64(),
        took.as_secs_f64()
    );
    Ok(())
}
