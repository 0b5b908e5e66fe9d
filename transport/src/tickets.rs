//! Resuming sessions: the keys of a relay's tickets, and what a client keeps of them
//! (specs/wire.md, W-7).
//!
//! A ticket spares both ends a certificate's verification and a signature, and nothing
//! else: who the peer is, until when it may be here, and whether it is denied is
//! judged anew on every connection. No data goes with the first flight (threat 23).

use crate::error::TransportError;
use crate::identity::Identity;
use bytes::Bytes;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rootcast::codec;
use rootcast::id::AuthorityHash;
use rootcast::limits::{MAX_SESSIONS, MAX_TICKET, MAX_TICKET_KEYS, TICKET_KEY_LIFE};
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::server::ProducesTickets;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Bytes of the name of a key, which a ticket begins with.
const NAME: usize = 16;

/// One key, and when it was made.
struct Key {
    made: u64,
    seed: Zeroizing<[u8; 32]>,
    name: [u8; NAME],
    cipher: LessSafeKey,
}

impl Key {
    /// Key and name follow from a seed and the authority: a ticket that was given to a member
    /// under one authority is nothing under another.
    fn of(made: u64, seed: Zeroizing<[u8; 32]>, authority: AuthorityHash) -> Option<Self> {
        let derived = |context| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            hasher.update(&*seed).update(authority.as_bytes());
            Zeroizing::new(*hasher.finalize().as_bytes())
        };
        let secret = derived("rootcast 2026 ticket key");
        let cipher = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &*secret).ok()?);
        let name = derived("rootcast 2026 ticket key name").first_chunk().copied()?;
        Some(Self { made, name, seed, cipher })
    }
}

/// The keys of a relay's tickets: one that is given out, and one that is still taken. Kept
/// across restarts, they let a relay's children resume with its next process.
pub struct TicketKeys {
    authority: AuthorityHash,
    /// The newest first.
    keys: RwLock<Vec<Key>>,
    resumed: AtomicU64,
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl TicketKeys {
    /// Begins with the keys that an earlier process kept, as far as they are readable and not over,
    /// and makes one where there is none. Whether what is kept has changed is [`TicketKeys::rotate`]'s.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn open(identity: &Identity, kept: &[u8], now: SystemTime) -> Result<Self, TransportError> {
        let authority = identity.authority_hash();
        let read: Vec<(u64, Bytes)> = codec::decode(kept, kept.len() as u64).unwrap_or_default();
        let key = |(made, seed): (u64, Bytes)| {
            let seed = <[u8; 32]>::try_from(&*seed).ok()?;
            Key::of(made, Zeroizing::new(seed), authority)
        };
        let keys = read.into_iter().take(MAX_TICKET_KEYS).filter_map(key).collect();
        let keys = Self { authority, keys: RwLock::new(keys), resumed: AtomicU64::new(0) };
        keys.rotate(now)?;
        Ok(keys)
    }

    /// Drops keys that are too old, and those of the future, where a clock was wrong; makes a new one
    /// where the newest has served its time. Whether anything changed, and is to be kept anew.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn rotate(&self, now: SystemTime) -> Result<bool, TransportError> {
        let (now, life) = (seconds(now), TICKET_KEY_LIFE.as_secs());
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let before = keys.len();
        keys.retain(|key| key.made <= now && now - key.made < life * 2);
        let dropped = keys.len() < before;
        if keys.first().is_some_and(|newest| now - newest.made < life) {
            return Ok(dropped);
        }
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|source| TransportError::Random { source })?;
        let refused =
            || TransportError::Tls { source: rustls::Error::General("no ticket key can be made".into()) };
        keys.insert(0, Key::of(now, seed, self.authority).ok_or_else(refused)?);
        keys.truncate(MAX_TICKET_KEYS);
        Ok(true)
    }

    /// What the next process begins with. It is a secret: who has it can pose as any member to
    /// this relay, as one can who has the relay's own key.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let kept: Vec<_> = keys.iter().map(|key| (key.made, Bytes::copy_from_slice(&*key.seed))).collect();
        Zeroizing::new(codec::encode(&kept))
    }

    /// Sessions that were resumed, since this process began.
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys(…)")
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_KEY_LIFE.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(key.name);
        key.cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        let ticket = [&key.name[..], &nonce, &sealed].concat();
        (ticket.len() <= MAX_TICKET).then_some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET {
            return None;
        }
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.iter().find(|key| key.name == name)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = key.cipher.open_in_place(nonce, Aad::from(key.name), &mut plain).ok()?.len();
        plain.truncate(length);
        self.resumed.fetch_add(1, Ordering::Relaxed);
        Some(plain)
    }
}

/// How long keys are looked after at the latest.
pub const TICKET_LOOK: Duration = Duration::from_secs(600);

/// The sessions with one relay that can be resumed, the newest last.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<VecDeque<Tls13ClientSessionValue>>);

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions(…)")
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, session: Tls13ClientSessionValue) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() == MAX_SESSIONS {
            sessions.pop_front();
        }
        sessions.push_back(session);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_back()
    }
}
