//! The origin's membership: who is invited, who has joined, who is denied, and the
//! issuing of certificates to them (specs/join.md).

mod records;

pub use records::{MembershipError, Records};

use crate::audit::{Audit, Event, ORIGIN};
use crate::issuing::Issuing;
use bytes::Bytes;
use rootcast::cose::{DocumentKind, PublicKey};
use rootcast::denials::{Denials, Denied, VerifiedDenials};
use rootcast::id::{PlatformId, TrustHash};
use rootcast::join::{
    Claimed, JoinAnswer, JoinError, JoinString, Member, Proved, Refusal, Token, TokenSecret, Use, Verdict,
    judge, validity,
};
use rootcast::member::{Labels, Role};
use rootcast::path::MemberName;
use rootcast::trust::Trust;
use rootcast_replica::{Machine, Trusted};
use rootcast_transport::{Identity, NameError, OwnKey, PeerName};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file of the online key, in the directory of an origin's keys.
pub const ONLINE_KEY_FILE: &str = "head.key";

/// How long before the end of the issuing certificate the operator is told so at each start.
const ISSUING_WARNING: Duration = Duration::from_secs(60 * 86_400);

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Who is invited, and to what.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// The platform's fingerprint.
    pub fingerprint: TrustHash,
    /// Where joiners can ask.
    pub addresses: Vec<String>,
    /// What they become.
    pub role: Role,
    /// The one name they may take; `None` leaves it to them.
    pub name: Option<MemberName>,
    /// The labels that they get.
    pub labels: Labels,
    /// How long it is good.
    pub valid: Duration,
    /// For how many machines.
    pub uses: u64,
}

impl Invitation {
    /// Makes the token, keeps what the origin needs of it, and gives the join string.
    /// The secret is nowhere but in that.
    ///
    /// # Errors
    /// When the invitation is out of bounds, or a file cannot be written.
    pub fn invite(
        self,
        records: &Records,
        trust: &Trust,
        now: SystemTime,
    ) -> Result<JoinString, MembershipError> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(MembershipError::Random)?;
        let secret = TokenSecret::from_bytes(secret);
        let expires = seconds(now).saturating_add(self.valid.as_secs());
        let Self { fingerprint, addresses, role, name, labels, uses, .. } = self;
        let key = OwnKey::from_seed(&secret.seed())?.public().clone();
        let token =
            Token { key, role, name: name.clone(), labels: labels.clone(), expires, uses, used: Vec::new() };
        let platform = trust.platform;
        let join = JoinString { platform, fingerprint, addresses, secret, role, name, labels, expires, uses };
        join.check()?;
        records.add_token(&token, seconds(now))?;
        Ok(join)
    }
}

/// Why a request was not answered with a certificate.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Request(#[from] JoinError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Own(#[from] MembershipError),
}

/// The origin's membership, with the keys that it takes.
pub struct Membership {
    records: Records,
    issuing: Issuing,
    online: OwnKey,
    trust: Arc<Trusted>,
    audit: OnceLock<Arc<Audit>>,
    /// Requests are judged one after the other: of two that race for one use, one wins.
    turn: Mutex<()>,
}

impl Membership {
    /// Opens it over the origin's state; `keys` is the directory with the issuing key and the online key.
    ///
    /// # Errors
    /// When a key cannot be read, or is not of the identity's authority.
    pub fn open(
        state: &Path,
        keys: &Path,
        identity: &Identity,
        trust: Arc<Trusted>,
    ) -> Result<Self, MembershipError> {
        let now = trust.machine().now();
        let issuing = Issuing::load(keys, identity.authority(), now)?;
        let left = issuing.expires().duration_since(now).unwrap_or_default();
        if left < ISSUING_WARNING {
            let days = left.as_secs() / 86_400;
            tracing::warn!(
                days,
                "the issuing certificate ends soon: `rootcast init PLATFORM --renew-issuing OUT` makes another"
            );
        }
        let online = OwnKey::load(&keys.join(ONLINE_KEY_FILE))?;
        let records = Records::of(state);
        Ok(Self { records, issuing, online, trust, audit: OnceLock::new(), turn: Mutex::new(()) })
    }

    /// The machine that it is on.
    pub fn machine(&self) -> &Arc<dyn Machine> {
        self.trust.machine()
    }

    /// From now on what changes in the membership is recorded there.
    pub fn audit_to(&self, audit: Arc<Audit>) {
        // The first one stays: there is one record of an origin.
        let _ = self.audit.set(audit);
    }

    fn record(&self, who: &str, event: &Event) {
        if let Some(audit) = self.audit.get() {
            audit.record(who, event);
        }
    }

    fn platform(&self) -> PlatformId {
        self.trust.newest().trust().platform
    }

    /// Answers a request (J-7, J-8, J-15). Waits for the disk.
    pub fn answer(&self, document: &[u8], now: SystemTime) -> JoinAnswer {
        match self.take(document, now) {
            Ok(chain) => JoinAnswer::Issued(chain),
            // Ours, and may pass.
            Err(Failed::Own(error)) => {
                tracing::error!(%error, "a request to join or renew could not be answered");
                JoinAnswer::Unavailable
            }
            Err(error) => {
                let about = Claimed::read(document).ok();
                let about =
                    about.map(|claimed| format!("{} {}", claimed.request().role, claimed.request().name));
                tracing::warn!(%error, claims_to_be = about.as_deref(), "a request to join or renew is refused");
                let about = about.unwrap_or_else(|| "unknown".into());
                self.record(&about, &Event::JoinRefused(about.clone(), error.to_string()));
                JoinAnswer::Refused
            }
        }
    }

    fn take(&self, document: &[u8], now: SystemTime) -> Result<Vec<Bytes>, Failed> {
        let claimed = Claimed::read(document)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let token = claimed.token().map(|id| self.records.token(id)).transpose()?.flatten();
        let proved = claimed.verify(self.platform(), token.as_ref().map(|token| &token.key))?;
        let (role, name) = (proved.request().role, &proved.request().name);
        let member = self.records.member(role, name)?;
        let denied = self.records.is_denied(role, name)?;
        let verdict = judge(&proved, token.as_ref(), member.as_ref(), denied, seconds(now))?;
        match (verdict, token, member) {
            (Verdict::Renew, _, Some(member)) if !member.is_due(seconds(now)) => Ok(member.chain),
            (Verdict::Renew, _, Some(member)) => {
                let labels = member.labels.clone();
                self.certify(&proved, labels, Some(&member), now)
            }
            (Verdict::Join | Verdict::JoinAgain, Some(mut token), member) => {
                if verdict == Verdict::Join {
                    let key = proved.request().key.clone();
                    token.used.push(Use { name: name.clone(), key });
                    // Durable before anything is issued for it.
                    self.records.put_token(&token)?;
                }
                tracing::info!(%role, %name, labels = %token.labels, "joined");
                let (who, key) = (format!("{role} {name}"), proved.request().key.id());
                let note = format!("token {}, key {key}, labels {}", token.key.id(), token.labels);
                self.record(&who, &Event::Join(who.clone(), note));
                self.certify(&proved, token.labels, member.as_ref(), now)
            }
            // `judge` renews members only, and joins by a token only.
            _ => Err(Refusal::UnknownToken.into()),
        }
    }

    fn certify(
        &self,
        proved: &Proved,
        labels: Labels,
        before: Option<&Member>,
        now: SystemTime,
    ) -> Result<Vec<Bytes>, Failed> {
        let request = proved.request();
        let peer = PeerName::new(self.platform(), request.role, request.name.as_str())?.with_labels(labels);
        let recipient = match before {
            Some(before) if request.recipient.is_empty() => before.recipient.clone(),
            _ => request.recipient.clone(),
        };
        let member = self.enrolled(&peer, &request.key, recipient, before, now)?;
        self.records.put_member(&member)?;
        Ok(member.chain)
    }

    fn enrolled(
        &self,
        peer: &PeerName,
        key: &PublicKey,
        recipient: String,
        before: Option<&Member>,
        now: SystemTime,
    ) -> Result<Member, MembershipError> {
        let left = self.issuing.expires().duration_since(now).unwrap_or_default();
        let valid = validity(peer.role()).min(left);
        let chain = self.issuing.certify(peer, key, valid, now)?;
        let (issued, expires) = (seconds(now), seconds(now + valid));
        Ok(Member {
            role: peer.role(),
            name: peer.member().clone(),
            labels: peer.labels().clone(),
            key: key.clone(),
            recipient,
            issued,
            expires,
            last_end: before.map_or(expires, |before| before.last_end.max(expires)),
            chain,
        })
    }

    /// Certifies the origin's own key anew, whatever became of its certificate: without
    /// it nobody could renew (J-32).
    ///
    /// # Errors
    /// When the identity has no usable key, or it cannot be recorded.
    pub fn answer_itself(&self, own: &Identity, now: SystemTime) -> Result<JoinAnswer, MembershipError> {
        let key = own.own_key()?.public().clone();
        let before = self.records.member(own.name().role(), own.name().member())?;
        let member = self.enrolled(own.name(), &key, String::new(), before.as_ref(), now)?;
        self.records.put_member(&member)?;
        Ok(JoinAnswer::Issued(member.chain))
    }

    /// Who is denied now, and the document that says so (J-41 to J-44). Where what it would say
    /// has changed, another one is signed and made durable first.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub fn denials(&self, now: SystemTime) -> Result<(BTreeSet<Denied>, Bytes), MembershipError> {
        let denied = self.records.denied()?;
        let mut named = Vec::new();
        for entry in &denied {
            let member = self.records.member(entry.role, &entry.name)?;
            // When the last certificate has ended, there is nothing left to deny.
            if member.is_none_or(|member| member.last_end >= seconds(now)) {
                named.push(entry.clone());
            }
        }
        let last = self.records.denials()?;
        let held = last
            .as_ref()
            .and_then(|document| VerifiedDenials::verify(document, self.trust.newest().trust(), 0).ok());
        let sequence = match (&held, last) {
            (Some(held), Some(document)) if held.denials().denied == named => {
                return Ok((denied, document.into()));
            }
            (Some(held), _) => held.denials().sequence + 1,
            // After a file that was lost, the time is above any sequence that was used.
            (None, _) => seconds(now),
        };
        let before: BTreeSet<_> =
            held.iter().flat_map(|held| held.denials().denied.iter().cloned()).collect();
        for one in named.iter().filter(|one| !before.contains(one)) {
            self.record(ORIGIN, &Event::Deny(format!("{} {}", one.role, one.name), String::new()));
        }
        for one in before.difference(&denied) {
            self.record(ORIGIN, &Event::Allow(format!("{} {}", one.role, one.name), String::new()));
        }
        let payload = Denials { sequence, issued: seconds(now), denied: named }.encode();
        let document = self.online.sign(DocumentKind::Denials, self.platform(), &payload)?;
        self.records.put_denials(&document)?;
        Ok((denied, document.into()))
    }
}

/// Records a member whose certificate was issued by hand, so that it can renew.
///
/// # Errors
/// When its file cannot be written.
pub fn enrol(records: &Records, identity: &Identity) -> Result<(), MembershipError> {
    let name = identity.name();
    let key = identity.own_key()?.public().clone();
    let (issued, expires) = (seconds(identity.begins()), seconds(identity.expires()));
    records.put_member(&Member {
        role: name.role(),
        name: name.member().clone(),
        labels: name.labels().clone(),
        key,
        recipient: String::new(),
        issued,
        expires,
        last_end: expires,
        chain: identity.chain_der(),
    })
}
