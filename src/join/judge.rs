//! The origin's verdict on a request: a pure rule over what it remembers.

use super::Proved;
use crate::cose::PublicKey;
use crate::encode_as_array;
use crate::id::KeyId;
use crate::limits::{JOIN_CLOCK_SKEW, RENEWAL_GRACE};
use crate::member::{Labels, Role};
use crate::path::MemberName;
use bytes::Bytes;

/// What the origin keeps of an invitation: enough to judge, and not its secret (J-3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The public half of the key that the secret gives.
    pub key: PublicKey,
    /// What its users become.
    pub role: Role,
    /// The name that its user must take; `None` where users choose.
    pub name: Option<MemberName>,
    /// The labels that its users get.
    pub labels: Labels,
    /// When it stops being good, in seconds since 1970.
    pub expires: u64,
    /// How many machines it is good for.
    pub uses: u64,
    /// Those that have used it.
    pub used: Vec<Use>,
}
encode_as_array!(Token { key, role, name, labels, expires, uses, used });

/// One use of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Who joined with it.
    pub name: MemberName,
    /// The key that was certified.
    pub key: PublicKey,
}
encode_as_array!(Use { name, key });

/// What the origin keeps of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub role: Role,
    /// Its name.
    pub name: MemberName,
    /// Its labels.
    pub labels: Labels,
    /// The key that is certified, and may renew.
    pub key: PublicKey,
    /// The age recipient of its secrets; empty for none.
    pub recipient: String,
    /// When its newest certificate was issued, in seconds since 1970.
    pub issued: u64,
    /// The end of its newest certificate, in seconds since 1970.
    pub expires: u64,
    /// The end of the last certificate of this name, whichever key it is for.
    pub last_end: u64,
    /// The newest certificate's chain, DER, leaf first.
    pub chain: Vec<Bytes>,
}
encode_as_array!(Member { role, name, labels, key, recipient, issued, expires, last_end, chain });

impl Member {
    /// Whether so much of its certificate's life is over that another one is worth issuing.
    /// Until then a renewal is answered with the one that there is, so that asking often costs little.
    pub const fn is_due(&self, now: u64) -> bool {
        now >= self.issued.saturating_add(self.expires.saturating_sub(self.issued) / 4)
    }
}

/// What the origin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Adds the member and uses the token up by one.
    Join,
    /// Adds the member again whose use of the token is on record, and whose answer got lost.
    JoinAgain,
    /// Issues to a member that is known by its key.
    Renew,
}

/// Why a request is refused. For the origin's log: the requester is not told (J-15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name is denied.
    #[error("this member is denied; `rootcast host allow` lifts it")]
    Denied,
    /// Signed at another time than this.
    #[error("it was signed at another time; set the clocks of both machines")]
    Stale,
    /// Signed by no token that is known, and by no member's key.
    #[error("no token that is known here signed it, and it is not a member's key")]
    UnknownToken,
    /// The token is for another role.
    #[error("the token is for another role")]
    WrongRole,
    /// The token is for another name.
    #[error("the token is for another name")]
    WrongName,
    /// The token's time is over.
    #[error("the token has expired")]
    Expired,
    /// All uses of the token are gone.
    #[error("the token has been used")]
    UsedUp,
    /// A member has this name, and the token does not give leave to take it over.
    #[error("a member has this name; `rootcast invite --name` gives leave to take it over")]
    NameTaken,
    /// The certificate ended too long ago.
    #[error("its certificate ended too long ago; it must join again")]
    TooLate,
}

/// Judges a request (J-7, J-31). `token` is the one that it is proved by, `member` who has its
/// role and name now.
///
/// # Errors
/// The first [`Refusal`] that applies.
pub fn judge(
    proved: &Proved,
    token: Option<&Token>,
    member: Option<&Member>,
    denied: bool,
    now: u64,
) -> Result<Verdict, Refusal> {
    let request = proved.request();
    if denied {
        return Err(Refusal::Denied);
    }
    if request.issued.abs_diff(now) > JOIN_CLOCK_SKEW.as_secs() {
        return Err(Refusal::Stale);
    }
    let own = member.filter(|member| member.key == request.key);
    let late = |member: &Member| now > member.expires.saturating_add(RENEWAL_GRACE.as_secs());
    match (own, token.filter(|token| proved.token() == Some(token.key.id()))) {
        (Some(own), _) if !late(own) => Ok(Verdict::Renew),
        (Some(_), None) => Err(Refusal::TooLate),
        (None, None) => Err(Refusal::UnknownToken),
        (_, Some(token)) => judge_token(proved, token, member, now),
    }
}

fn judge_token(
    proved: &Proved,
    token: &Token,
    member: Option<&Member>,
    now: u64,
) -> Result<Verdict, Refusal> {
    let request = proved.request();
    let names_it = token.name.as_ref() == Some(&request.name);
    if token.role != request.role {
        Err(Refusal::WrongRole)
    } else if token.name.is_some() && !names_it {
        Err(Refusal::WrongName)
    } else if now >= token.expires {
        Err(Refusal::Expired)
    } else if member.is_none_or(|member| member.key == request.key)
        && token.used.iter().any(|used| used.name == request.name && used.key == request.key)
    {
        Ok(Verdict::JoinAgain)
    } else if token.used.len() as u64 >= token.uses {
        Err(Refusal::UsedUp)
    } else if member.is_some() && !names_it {
        Err(Refusal::NameTaken)
    } else {
        Ok(Verdict::Join)
    }
}

impl Token {
    /// The key id that requests name it by.
    pub fn id(&self) -> KeyId {
        self.key.id()
    }
}
