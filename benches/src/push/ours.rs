//! A relay below an origin, with children that subscribe as hosts do.

use super::{Heard, Push, Server, WAIT, history};
use crate::args::MemberRole;
use crate::error::BenchError;
use crate::ours::process::Process;
use crate::ours::{Scene, serving};
use rootcast::limits::MAX_FRAME;
use rootcast::path::ChannelName;
use rootcast::plan::{base_bundle, plan_bundle};
use rootcast::protocol::{Interest, News, Opening, Standing, Subscribe, Welcome};
use rootcast::resumption::Beginnings;
use rootcast_replica::{Kept, receive_update};
use rootcast_transport::{Endpoint, Identity, Role};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub(super) struct Relay {
    scene: Scene,
    process: Process,
    address: SocketAddr,
    commits: VecDeque<String>,
    _scratch: tempfile::TempDir,
}

impl Relay {
    pub(super) async fn start(arguments: &Push) -> Result<Self, BenchError> {
        let scratch = tempfile::tempdir().map_err(BenchError::io(Path::new("the temporary directory")))?;
        let repository = scratch.path().join("repository");
        std::fs::create_dir(&repository).map_err(BenchError::io(&repository))?;
        let mut commits: VecDeque<String> =
            history::create(&repository, arguments.pushes as usize + 1)?.into();
        let mut scene = Scene::open(&scratch.path().join("platform"), &repository).await?;
        let first = commits.pop_front().unwrap_or_default();
        scene.publish(&first).await?;
        let home = scene.platform.relay("relay", Some(scene.address))?;
        let mut process = Process::start(MemberRole::Relay, "relay", &home, None)?;
        let address = serving(&mut process).await?;
        process.of_release("held", 1, WAIT).await?;
        Ok(Self { scene, process, address, commits, _scratch: scratch })
    }

    pub(super) async fn stop(self) {
        self.process.stop().await;
        self.scene.stop().await;
    }
}

impl Server for Relay {
    // The release that is there already.
    const AT_ONCE: usize = 1;

    fn name(&self) -> &'static str {
        "Rootcast relay"
    }

    fn id(&self) -> Result<u32, BenchError> {
        self.process.id().ok_or_else(|| BenchError::Nothing("the relay ended".into()))
    }

    fn child(
        &self,
        index: usize,
        heard: Heard,
        connected: oneshot::Sender<()>,
    ) -> impl Future<Output = Result<(), BenchError>> + 'static {
        let identity = self.scene.platform.identity(Role::Agent, &format!("host-{index}"));
        let (address, channel) = (self.address, self.scene.platform.channel().clone());
        async move { child(&identity?, address, channel, heard, connected).await }
    }

    async fn push(&mut self) -> Result<Instant, BenchError> {
        let commit = self.commits.pop_front().unwrap_or_default();
        self.scene.origin.forget();
        let release = self.scene.publish(&commit).await?;
        let number = release.map_or(0, |release| release.number);
        Ok(self.scene.origin.of_release("published", number, Duration::from_secs(10)).await?.at)
    }
}

async fn child(
    identity: &Path,
    address: SocketAddr,
    channel: ChannelName,
    heard: Heard,
    connected: oneshot::Sender<()>,
) -> Result<(), BenchError> {
    let endpoint = Endpoint::dial_only(&Identity::load(identity)?)?;
    let connection = endpoint.connect(&address.to_string()).await?;
    let (mut sender, mut receiver) = connection.open_bi().await?;
    let bundles = [base_bundle(), plan_bundle()].into_iter().collect::<Result<Vec<_>, _>>();
    let interest = Interest::Named(bundles.map_err(|error| BenchError::Nothing(error.to_string()))?);
    let standing = Standing { release: None, whole: Vec::new() };
    let begun = Beginnings::default();
    let subscribe = Subscribe {
        channel,
        subscription: 1,
        interest,
        standing,
        trust: 1,
        head: (0, 0),
        serves: None,
        begun,
    };
    sender.send_message(&Opening::Subscribe(subscribe)).await?;
    let _welcome: Option<Welcome> = receiver.receive_message(MAX_FRAME).await?;
    let news = async {
        while let Some(_news) = receiver.receive_message::<News>(MAX_FRAME).await? {}
        Ok::<(), BenchError>(())
    };
    let updates = async {
        let mut connected = Some(connected);
        loop {
            let mut stream = connection.accept_uni().await?;
            let update =
                receive_update(connection.peer().to_string(), &mut stream, &mut Kept::default()).await?;
            if update.is_some() {
                heard.one(usize::try_from(stream.bytes()).unwrap_or(0));
                connected.take().map(|connected| connected.send(()));
            }
        }
    };
    tokio::select! {
        ended = news => ended,
        ended = updates => ended,
    }
}
