//! A relay that lies: it follows its parent like any other, and tells its children
//! something else. It holds a relay's certificate, and for forks the publisher's key.

use crate::error::SimError;
use crate::machine::{BEGINNING, SimMachine};
use crate::platform::{PLATFORM, PUBLISHER_SEED, channel};
use crate::random::Random;
use bytes::Bytes;
use rootcast::cose::DocumentKind;
use rootcast::limits::{MAX_FRAME, REPORT_GAP};
use rootcast::path::MemberName;
use rootcast::protocol::{
    Interest, News, ObjectsAnswer, Opening, Subscribe, UpdateAnswer, UpdateHead, UpdateMessage, Welcome,
};
use rootcast::reader::Reader;
use rootcast::status;
use rootcast::topology::{Address, Alternate, Alternates, Condition, Patience, Route};
use rootcast_replica::{
    Follow, Held, Machine, Member, Outgoing, Replica, ReplicaError, Reporting, child_of, follow,
};
use rootcast_store::MemoryStore;
use rootcast_transport::{Connection, Endpoint, OwnKey, Receiver, Sender, frame_of};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What a lying relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// It passes on heads, and no release.
    Withholds,
    /// It sends an old release again and again.
    Replays,
    /// It flips a bit of everything.
    Corrupts,
    /// It sends another release of the same number, which the publisher's key did sign.
    Forks,
}

/// All habits.
pub const HABITS: [Habit; 4] = [Habit::Withholds, Habit::Replays, Habit::Corrupts, Habit::Forks];

struct Liar {
    own: MemberName,
    habit: Habit,
    replica: Arc<Replica>,
    random: Mutex<Random>,
    /// The first update that it could have sent.
    old: Mutex<Option<Arc<Outgoing>>>,
}

/// Runs one in the place of the relay of an identity, until it is dropped.
///
/// # Errors
/// When it cannot start.
pub async fn run(
    machine: Arc<SimMachine>,
    identity: &Path,
    serves: SocketAddr,
    parents: &[SocketAddr],
    habit: Habit,
) -> Result<(), SimError> {
    let failed = |error: String| SimError::Platform(error);
    let state = identity.join("no-state");
    let as_machine: Arc<dyn Machine> = machine.clone();
    let member = Member::load_on(as_machine, identity, &state).map_err(|error| failed(error.to_string()))?;
    let store = Arc::new(MemoryStore::new());
    let replica = Replica::open(store, member.trust.clone(), channel()?, true, None);
    let replica = Arc::new(replica.map_err(|error| failed(error.to_string()))?);
    let endpoint = machine.listen(&member.identity, (Ipv4Addr::LOCALHOST, 0).into())?;
    let (_interest, interest) = watch::channel(Interest::All);
    let (_changed, changed) = watch::channel(());
    let say = Arc::new(|| (status::Condition::none(BEGINNING), None));
    let child = child_of(member.identity.name());
    let address = |at: &SocketAddr| Address::new(at.to_string()).map_err(|error| failed(error.to_string()));
    let following = follow(Follow {
        endpoint: endpoint.clone(),
        child: child.clone(),
        parents: parents.iter().map(address).collect::<Result<_, _>>()?,
        patience: Patience::STANDARD,
        serves: Some(address(&serves)?),
        upstream: None,
        ways: watch::Sender::default(),
        replica: replica.clone(),
        interest,
        report: Reporting { changed, say, gap: REPORT_GAP },
        questions: None,
        fallback: None,
        events: Arc::new(|_| {}),
    });
    let random = Mutex::new(Random::new(u64::from(machine.random())));
    let liar = Arc::new(Liar { own: child.name, habit, replica, random, old: Mutex::default() });
    tokio::select! {
        biased;
        () = following => {}
        () = accept(&liar, &endpoint) => {}
    }
    Ok(())
}

async fn accept(liar: &Arc<Liar>, endpoint: &Endpoint) {
    let mut children = tokio::task::JoinSet::new();
    while let Some(handshake) = endpoint.accept().await {
        let liar = liar.clone();
        children.spawn(async move {
            let Ok(connection) = handshake.finish().await else { return };
            let mut streams = tokio::task::JoinSet::new();
            while let Ok((sender, receiver)) = connection.accept_bi().await {
                let (liar, connection) = (liar.clone(), connection.clone());
                streams.spawn(async move { liar.stream(&connection, sender, receiver).await });
            }
        });
    }
}

impl Liar {
    async fn stream(
        &self,
        connection: &Connection,
        mut sender: Sender,
        mut receiver: Receiver,
    ) -> Result<(), ReplicaError> {
        let peer = connection.peer();
        let reader = Reader::new(peer.role(), peer.labels().of_host(peer.name()));
        match receiver.receive_message::<Opening>(MAX_FRAME).await? {
            Some(Opening::Subscribe(subscribe)) => {
                return self.subscription(connection, &reader, subscribe, sender, receiver).await;
            }
            Some(Opening::Update(request)) => {
                let outgoing = self.replica.outgoing(&reader, &request.interest, &request.standing).await?;
                match outgoing.filter(|_| matches!(self.habit, Habit::Corrupts | Habit::Forks)) {
                    Some(outgoing) => {
                        let head = frame_of(&UpdateAnswer::Update(outgoing.head.clone()))?;
                        self.send(&mut sender, head, &outgoing.edits).await?;
                    }
                    None => sender.send_message(&UpdateAnswer::Nothing).await?,
                }
            }
            Some(Opening::Objects(request)) => {
                let store = self.replica.store();
                let objects: Vec<Bytes> =
                    request.objects.iter().filter_map(|id| store.read(id).ok()).collect();
                let sizes = objects.iter().map(|bytes| Some(bytes.len() as u64)).collect();
                sender.send_message(&ObjectsAnswer(sizes)).await?;
                for object in &objects {
                    sender.send_bytes(self.flipped(object)).await?;
                }
            }
            Some(Opening::Condition(_)) => sender.send_message(&Some(self.condition())).await?,
            Some(Opening::Trust(version)) => {
                sender.send_message(&self.replica.trust().answer(version)).await?;
            }
            _ => {}
        }
        Ok(sender.finish()?)
    }

    /// It always says that it is well, and next to the origin.
    fn condition(&self) -> Condition {
        let latest = self.replica.held().map(|held| held.accepted());
        let origin = MemberName::new("origin").map(Route::origin).unwrap_or_default();
        Condition { latest, route: origin.below(self.own.clone()), behind: false }
    }

    /// A relay that is as near to the child as can be, and is not there.
    fn nowhere(&self, connection: &Connection) -> Alternates {
        let child = child_of(connection.peer());
        let told = MemberName::new("nowhere").ok().zip(Address::new("10.0.255.255:7400").ok());
        let told = told.map(|(name, address)| Alternate { name, place: child.place.clone(), address });
        Alternates::ranked(&child, told.as_ref())
    }

    async fn subscription(
        &self,
        connection: &Connection,
        reader: &Reader,
        subscribe: Subscribe,
        mut sender: Sender,
        mut receiver: Receiver,
    ) -> Result<(), ReplicaError> {
        let (condition, alternates) = (self.condition(), self.nowhere(connection));
        let time = self.replica.machine().seconds();
        sender.send_message(&Welcome { condition, time, alternates, trust: 1 }).await?;
        let reports = async {
            while receiver.receive_frame(MAX_FRAME).await?.is_some() {}
            Ok::<(), ReplicaError>(())
        };
        let heads = async {
            let mut head = self.replica.watch_head();
            loop {
                let newest = head.borrow_and_update().clone();
                if let Some(newest) = newest {
                    sender.send_message(&News::Head(newest.document().clone())).await?;
                }
                head.changed().await.map_err(|_| ReplicaError::Stopped)?;
            }
        };
        tokio::select! {
            biased;
            outcome = reports => outcome,
            outcome = heads => outcome,
            outcome = self.push(connection, reader, subscribe) => outcome,
        }
    }

    async fn push(
        &self,
        connection: &Connection,
        reader: &Reader,
        subscribe: Subscribe,
    ) -> Result<(), ReplicaError> {
        let Subscribe { interest, mut standing, subscription, .. } = subscribe;
        let mut held = self.replica.watch_held();
        loop {
            let newest = held.borrow_and_update().clone();
            if let Some(forged) = newest.filter(|_| self.habit == Habit::Forks).and_then(|held| fork(&held))
                && standing.release.is_some_and(|release| release.number == forged.0)
            {
                let head = UpdateHead { subscription, ..forged.1 };
                let mut stream = connection.open_uni().await?;
                self.send(&mut stream, frame_of(&UpdateMessage::Whole(head))?, &[]).await?;
                stream.finish()?;
            }
            if let Some(outgoing) = self.replica.outgoing(reader, &interest, &standing).await? {
                if let Some(sent) = self.chosen(&outgoing) {
                    let head = UpdateHead { subscription, ..sent.head.clone() };
                    let mut stream = connection.open_uni().await?;
                    self.send(&mut stream, frame_of(&UpdateMessage::Whole(head))?, &sent.edits).await?;
                    stream.finish()?;
                }
                standing = outgoing.standing.clone();
                continue;
            }
            held.changed().await.map_err(|_| ReplicaError::Stopped)?;
        }
    }

    /// What is sent in the place of an update.
    fn chosen(&self, outgoing: &Arc<Outgoing>) -> Option<Arc<Outgoing>> {
        match self.habit {
            Habit::Withholds => None,
            Habit::Corrupts | Habit::Forks => Some(outgoing.clone()),
            Habit::Replays => {
                let mut old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
                Some(old.get_or_insert_with(|| outgoing.clone()).clone())
            }
        }
    }

    async fn send(&self, sender: &mut Sender, head: Bytes, edits: &[Bytes]) -> Result<(), ReplicaError> {
        let mut bytes = Bytes::from([core::slice::from_ref(&head), edits].concat().concat());
        if self.habit == Habit::Corrupts {
            bytes = self.flipped(&bytes);
        }
        Ok(sender.send_bytes(bytes).await?)
    }

    fn flipped(&self, bytes: &Bytes) -> Bytes {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, bit) = (random.below(bytes.len()), random.below(8));
        let mut bytes = bytes.to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        bytes.into()
    }
}

/// Another release of the same number, and its head.
fn fork(held: &Held) -> Option<(u64, UpdateHead)> {
    let mut release = held.bundles.release().release().clone();
    release.issued += 1;
    let key = OwnKey::from_seed(&PUBLISHER_SEED).ok()?;
    let document = key.sign(DocumentKind::Release, PLATFORM, &release.encode()).ok()?;
    let head = UpdateHead {
        subscription: 0,
        release: document.into(),
        listed: Vec::new(),
        keep_others: true,
        siblings: held.siblings.clone(),
    };
    Some((release.number, head))
}
