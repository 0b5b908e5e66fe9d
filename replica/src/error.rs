//! What goes wrong in a replica, and whose fault it is.

use rootcast::acceptance::Refusal;
use rootcast::codec::CodecError;
use rootcast::edit::EditError;
use rootcast::head::HeadRefusal;
use rootcast::id::ObjectId;
use rootcast::object::ReadError;
use rootcast::path::BundleName;
use rootcast::tree::TreeError;
use rootcast::trust::TrustError;
use rootcast::verify::VerifyError;
use rootcast_store::StoreError;
use rootcast_transport::TransportError;
use std::path::PathBuf;

/// A replica could not do what was asked. It stays at what it held.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// What was offered does not verify. The peer's fault, or the publisher's.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// What was offered breaks the acceptance rule. It is kept as evidence.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A head is refused.
    #[error(transparent)]
    Head(#[from] HeadRefusal),
    /// A version of the trust document is refused.
    #[error(transparent)]
    Trust(TrustError),
    /// The trust document has gone back behind what was accepted under it.
    #[error(
        "trust version {need} was in force here before, and only version {have} is known; a parent must send the rest"
    )]
    TrustBehind {
        /// The version at hand.
        have: u64,
        /// The version that was in force.
        need: u64,
    },
    /// The trust document has lapsed: nothing new is judged by it. What runs stays.
    #[error(
        "trust version {version} has expired; have a new version signed and applied (`rootcast trust propose`)"
    )]
    TrustLapsed {
        /// Its version.
        version: u64,
    },
    /// A version of the trust document, or a head, could not be made durable.
    #[error("{}: {source}", path.display())]
    KeepTrust {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An edit does not apply.
    #[error("bundle `{bundle}`: {source}")]
    Edit {
        /// The bundle.
        bundle: BundleName,
        /// Why.
        source: EditError,
    },
    /// An object of our own store is missing or damaged; fetching it again may help.
    #[error("{0} is missing or damaged in the store")]
    NeedObject(ObjectId),
    /// An update leaves out the content of a bundle that changed for us.
    #[error("the update brings no content for bundle `{0}`, which changed")]
    Incomplete(BundleName),
    /// An update builds on another release than the one we hold.
    #[error("the update does not build on the release that is held")]
    Unfit,
    /// The parent leaves out bundles that the release's own plan names.
    #[error("the parent withholds bundles of the release")]
    Withheld,
    /// An answer over HTTPS is not what was asked for: by the parent's fault, or a cache's before it.
    #[error("the answer for {resource} is not what was asked for: {reason}")]
    Answer {
        /// What was asked for.
        resource: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The parent is reached through us: to follow it would be to follow ourselves.
    #[error("the parent follows this relay")]
    Loop,
    /// An update names a bundle that we did not ask for.
    #[error("the update brings bundle `{0}`, which was not asked for")]
    NotAsked(BundleName),
    /// A publication that is not the next release.
    #[error("the release does not follow the newest one")]
    NotNext,
    /// A publication breaks a rule of the origin.
    #[error("{0}")]
    Publication(&'static str),
    /// The parent has not got the channel, or does not show it to us.
    #[error("the parent has no channel that we may read under this name")]
    NotFound,
    /// A child asks for a bundle that this relay has yet to fetch itself.
    #[error("bundle `{0}` is not held here yet; it is being fetched")]
    NotHeld(BundleName),
    /// The parent lacks objects that we need.
    #[error("the parent could not supply {0} objects that are missing here")]
    Unrepaired(usize),
    /// A stored tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Bytes of our own store or of a message are not what they should be.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The connection failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Blocking work was cut off by the end of the process.
    #[error("stopped")]
    Stopped,
}

impl ReplicaError {
    /// Takes an edit's failure apart: what our store lacks is not the edit's fault.
    pub(crate) fn edit(bundle: &BundleName, source: EditError) -> Self {
        match source.refetch() {
            Some(id) => Self::NeedObject(id),
            None => Self::Edit { bundle: bundle.clone(), source },
        }
    }

    /// Whether a newer version of trust may change the judgement.
    pub(crate) fn is_trust(&self) -> bool {
        matches!(
            self,
            Self::TrustBehind { .. }
                | Self::TrustLapsed { .. }
                | Self::Verify(
                    VerifyError::Signature(_)
                        | VerifyError::Head(_)
                        | VerifyError::NotGranted(_)
                        | VerifyError::Epoch { .. }
                )
        )
    }

    /// Whether another parent, or the same one asked for a snapshot, may do better.
    pub(crate) fn is_offer(&self) -> bool {
        matches!(
            self,
            Self::Verify(_)
                | Self::Edit { .. }
                | Self::NeedObject(_)
                | Self::Unrepaired(_)
                | Self::Incomplete(_)
                | Self::Unfit
                | Self::Answer { .. }
                | Self::NotAsked(_)
                | Self::TrustBehind { .. }
        )
    }
}

impl From<ReadError> for ReplicaError {
    fn from(error: ReadError) -> Self {
        match error.refetch() {
            Some(id) => Self::NeedObject(id),
            None => Self::Tree(error.into()),
        }
    }
}
