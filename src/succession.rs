//! What changes from one version of trust to the next: asked for by an
//! operator, and told to whoever is to sign it (specs/documents.md, D-45, D-46).

use crate::cose::{KeySet, PublicKey};
use crate::id::KeyId;
use crate::path::ChannelName;
use crate::trust::{Grant, GrantLimits, Trust, TrustChain, TrustError};
use core::fmt;

/// One change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustChange {
    /// Lets a further key sign releases under a prefix.
    AddPublisher(ChannelName, PublicKey),
    /// Takes that from a key.
    RemovePublisher(ChannelName, KeyId),
    /// A new grant, for these keys, one of whom is enough.
    Grant(ChannelName, Vec<PublicKey>),
    /// How many publishers must sign under a prefix.
    Threshold(ChannelName, u64),
    /// Takes a grant away: nobody publishes there any more.
    Revoke(ChannelName),
    /// Begins the channels of a grant anew.
    NewEpoch(ChannelName),
    /// What a bundle under a prefix may hold.
    Limits(ChannelName, GrantLimits),
    /// Whether bundles under a prefix may hold symbolic links.
    Symlinks(ChannelName, bool),
    /// A further root key.
    AddRoot(PublicKey),
    /// One root key less.
    RemoveRoot(KeyId),
    /// How many root keys must sign a version.
    RootThreshold(u64),
    /// A further key for heads.
    AddHead(PublicKey),
    /// One key for heads less.
    RemoveHead(KeyId),
}

/// A change that cannot be made, or would leave something that nobody could use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No grant has this very prefix.
    #[error("no grant has the prefix `{prefix}`; there are {}", list(there))]
    NoGrant {
        /// What was asked for.
        prefix: ChannelName,
        /// What there is.
        there: Vec<ChannelName>,
    },
    /// The key is there already.
    #[error("key {key} is among {role} already")]
    There {
        /// The key.
        key: KeyId,
        /// Of whom.
        role: String,
    },
    /// The key is not there.
    #[error("key {key} is not among {role}")]
    NotThere {
        /// The key.
        key: KeyId,
        /// Of whom.
        role: String,
    },
    /// Fewer keys than must sign, or none at all.
    #[error(
        "{role} would have {keys} keys, of which {threshold} must sign, so nobody could; \
         add keys, lower the threshold, or take the grant away with --revoke"
    )]
    Unusable {
        /// Of whom.
        role: String,
        /// Keys left.
        keys: usize,
        /// How many must sign.
        threshold: u64,
    },
    /// It is not sound for another reason.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

fn list(names: &[ChannelName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn publishers_of(prefix: &ChannelName) -> String {
    format!("the publishers of `{prefix}`")
}
const ROOTS: &str = "the root keys";
const HEADS: &str = "the head keys";

fn add(set: &mut KeySet, key: &PublicKey, role: &str) -> Result<(), ChangeError> {
    if set.keys.contains(key) {
        return Err(ChangeError::There { key: key.id(), role: role.into() });
    }
    set.keys.push(key.clone());
    Ok(())
}

fn remove(set: &mut KeySet, key: KeyId, role: &str) -> Result<(), ChangeError> {
    let before = set.keys.len();
    set.keys.retain(|other| other.id() != key);
    if set.keys.len() == before {
        return Err(ChangeError::NotThere { key, role: role.into() });
    }
    Ok(())
}

fn usable(set: &KeySet, role: &str) -> Result<(), ChangeError> {
    let keys = set.keys.len();
    if keys == 0 || set.threshold > keys as u64 {
        return Err(ChangeError::Unusable { role: role.into(), keys, threshold: set.threshold });
    }
    Ok(())
}

/// The version after the newest of a chain, with the changes made in the order
/// given. Checked as a whole at the end, so that a key may be added before
/// another one goes, or after (specs/documents.md, D-45).
pub fn propose(
    chain: &TrustChain,
    changes: &[TrustChange],
    issued: u64,
    expires: u64,
) -> Result<Trust, ChangeError> {
    let base = chain.newest().trust();
    let mut next = Trust { version: base.version.saturating_add(1), issued, expires, ..base.clone() };
    for change in changes {
        apply(chain, &mut next, change)?;
    }
    usable(&next.roots, ROOTS)?;
    usable(&next.heads, HEADS)?;
    for grant in &next.grants {
        usable(&grant.publishers, &publishers_of(&grant.prefix))?;
    }
    next.check()?;
    next.check_follows(base)?;
    Ok(next)
}

fn granted<'t>(next: &'t mut Trust, prefix: &ChannelName) -> Result<&'t mut Grant, ChangeError> {
    let there = next.grants.iter().map(|grant| grant.prefix.clone()).collect();
    let grant = next.grants.iter_mut().find(|grant| grant.prefix == *prefix);
    grant.ok_or_else(|| ChangeError::NoGrant { prefix: prefix.clone(), there })
}

fn apply(chain: &TrustChain, next: &mut Trust, change: &TrustChange) -> Result<(), ChangeError> {
    match change {
        TrustChange::AddPublisher(prefix, key) => {
            add(&mut granted(next, prefix)?.publishers, key, &publishers_of(prefix))?;
        }
        TrustChange::RemovePublisher(prefix, key) => {
            remove(&mut granted(next, prefix)?.publishers, *key, &publishers_of(prefix))?;
        }
        TrustChange::Grant(prefix, keys) => {
            let publishers = KeySet { threshold: 1, keys: keys.clone() };
            let (limits, symlinks) = (GrantLimits::default(), true);
            let mut grant = Grant { prefix: prefix.clone(), epoch: 1, publishers, limits, symlinks };
            // Of a grant that was taken away long ago replicas keep their floors, too.
            let older = chain.newest_first().flat_map(|version| &version.trust().grants);
            let epochs = older.filter(|older| older.overlaps(&grant)).map(|older| older.epoch);
            grant.epoch = epochs.max().unwrap_or(1);
            next.grants.push(grant);
        }
        TrustChange::Threshold(prefix, threshold) => {
            granted(next, prefix)?.publishers.threshold = *threshold;
        }
        TrustChange::Revoke(prefix) => {
            granted(next, prefix)?;
            next.grants.retain(|grant| grant.prefix != *prefix);
        }
        TrustChange::NewEpoch(prefix) => {
            let grant = granted(next, prefix)?;
            grant.epoch = grant.epoch.saturating_add(1);
        }
        TrustChange::Limits(prefix, limits) => granted(next, prefix)?.limits = *limits,
        TrustChange::Symlinks(prefix, allowed) => granted(next, prefix)?.symlinks = *allowed,
        TrustChange::AddRoot(key) => add(&mut next.roots, key, ROOTS)?,
        TrustChange::RemoveRoot(key) => remove(&mut next.roots, *key, ROOTS)?,
        TrustChange::RootThreshold(threshold) => next.roots.threshold = *threshold,
        TrustChange::AddHead(key) => add(&mut next.heads, key, HEADS)?,
        TrustChange::RemoveHead(key) => remove(&mut next.heads, *key, HEADS)?,
    }
    Ok(())
}

/// One thing that differs between two versions, in words for who signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of whom or what: `root keys`, `grant prod`, `expiry`.
    pub of: String,
    /// What was; `None` where something is new.
    pub was: Option<String>,
    /// What will be; `None` where something goes.
    pub becomes: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.was, &self.becomes) {
            (None, Some(new)) => write!(f, "+ {}: {new}", self.of),
            (Some(old), None) => write!(f, "- {}: {old}", self.of),
            (Some(old), Some(new)) => write!(f, "~ {}: {old} -> {new}", self.of),
            (None, None) => write!(f, "= {}", self.of),
        }
    }
}

struct Differences(Vec<Difference>);

impl Differences {
    fn value(&mut self, of: String, was: impl fmt::Display, becomes: impl fmt::Display) {
        let (was, becomes) = (was.to_string(), becomes.to_string());
        if was != becomes {
            self.0.push(Difference { of, was: Some(was), becomes: Some(becomes) });
        }
    }

    fn keys(&mut self, of: &str, was: &KeySet, becomes: &KeySet) {
        for key in was.keys.iter().filter(|key| !becomes.keys.contains(key)) {
            let was = Some(format!("key {}", key.id()));
            self.0.push(Difference { of: of.to_owned(), was, becomes: None });
        }
        for key in becomes.keys.iter().filter(|key| !was.keys.contains(key)) {
            let becomes = Some(format!("key {} ({key})", key.id()));
            self.0.push(Difference { of: of.to_owned(), was: None, becomes });
        }
        let text = |set: &KeySet| format!("{} of {} must sign", set.threshold, set.keys.len());
        self.value(format!("{of}, threshold"), text(was), text(becomes));
    }
}

fn limits(limits: GrantLimits) -> String {
    format!("{} files, {} bytes, {} bytes a file", limits.files, limits.bytes, limits.file_size)
}

fn in_short(grant: &Grant) -> String {
    let ids: Vec<_> = grant.publishers.keys.iter().map(|key| key.id().to_string()).collect();
    let Grant { epoch, publishers, symlinks, .. } = grant;
    let links = if *symlinks { "symbolic links" } else { "no symbolic links" };
    let Grant { limits: most, .. } = grant;
    format!(
        "{} of {} must sign, epoch {epoch}, {links}, a bundle has at most {}",
        publishers.threshold,
        ids.join(", "),
        limits(*most)
    )
}

/// Everything that differs, the version and the time of issue apart. Complete:
/// two versions without a difference say the same (specs/documents.md, D-46).
pub fn differences(base: &Trust, next: &Trust) -> Vec<Difference> {
    // A field that is added to the format does not compile until it is told here.
    let Trust {
        platform: _,
        version: _,
        issued: _,
        expires: _,
        roots: _,
        grants: _,
        heads: _,
        authorities: _,
    } = base;
    let mut found = Differences(Vec::new());
    found.value("platform".into(), base.platform, next.platform);
    found.keys("root keys", &base.roots, &next.roots);
    for old in &base.grants {
        let Grant { prefix: _, epoch: _, publishers: _, limits: _, symlinks: _ } = old;
        let of = format!("grant `{}`", old.prefix);
        let Some(new) = next.grants.iter().find(|grant| grant.prefix == old.prefix) else {
            found.0.push(Difference { of, was: Some(in_short(old)), becomes: None });
            continue;
        };
        found.keys(&of, &old.publishers, &new.publishers);
        found.value(format!("{of}, epoch"), old.epoch, new.epoch);
        found.value(format!("{of}, limits"), limits(old.limits), limits(new.limits));
        found.value(format!("{of}, symbolic links"), old.symlinks, new.symlinks);
    }
    for new in next.grants.iter().filter(|new| base.grants.iter().all(|old| old.prefix != new.prefix)) {
        let of = format!("grant `{}`", new.prefix);
        found.0.push(Difference { of, was: None, becomes: Some(in_short(new)) });
    }
    found.keys("head keys", &base.heads, &next.heads);
    for old in base.authorities.iter().filter(|old| !next.authorities.contains(old)) {
        let of = "certificate authority".into();
        found.0.push(Difference { of, was: Some(old.to_string()), becomes: None });
    }
    for new in next.authorities.iter().filter(|new| !base.authorities.contains(new)) {
        let of = "certificate authority".into();
        found.0.push(Difference { of, was: None, becomes: Some(new.to_string()) });
    }
    // As it is written; who shows it can tell the date.
    let seconds = |trust: &Trust| format!("{} s after 1970", trust.expires);
    found.value("expiry".into(), seconds(base), seconds(next));
    found.0
}
