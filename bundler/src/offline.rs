//! Publishing in steps, where keys are offline or several people must sign;
//! and bringing the origin a new version of trust.

use crate::compile::{Progress, Unsigned};
use crate::publisher::{PublishError, Published, Publisher};
use crate::source::Source;
use bytes::Bytes;
use rootcast::draft::ReleaseDraft;
use rootcast::edit::{self, EditError, Summary};
use rootcast::layers::PLAN_BUNDLE;
use rootcast::limits::MAX_OPENING;
use rootcast::path::BundleName;
use rootcast::protocol::{Opening, PublishAnswer, TrustApplied};
use rootcast::settings::SettingsError;
use rootcast_replica::ReplicaError;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What a draft's edits do, by bundle: read from the edits themselves, whatever the draft says.
///
/// # Errors
/// When one is not an edit.
pub fn draft_edits(draft: &ReleaseDraft) -> Result<Vec<(BundleName, Summary)>, EditError> {
    let edits = draft.leaves.iter().zip(&draft.edits);
    let edits = edits.filter_map(|(leaf, edit)| Some((leaf.name.clone(), edit.as_ref()?)));
    edits.map(|(name, edit)| Ok((name, edit::summary(edit)?))).collect()
}

/// Files that an edit puts or removes.
pub fn files_of(summary: &Summary) -> u64 {
    summary.added + summary.copied + summary.replaced + summary.mode_changed + summary.deleted
}

impl Publisher {
    /// Compiles a source on top of the origin's newest release, and signs nothing.
    /// `None`: the newest release is this very content. With it, what of the settings has no effect
    /// ([`crate::Signed::warnings`]).
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn draft(
        &mut self,
        source: &Arc<Mutex<Source>>,
        progress: Arc<Progress>,
    ) -> Result<(Option<ReleaseDraft>, Vec<SettingsError>), PublishError> {
        let settings = Self::settings(source)?;
        let replica = self.replica(&settings.channel)?;
        self.catch_up(&replica).await?;
        let trust = self.member.trust.newest();
        if trust.trust().grant(&settings.channel).is_none() {
            let source = rootcast::verify::VerifyError::NotGranted(settings.channel.clone());
            return Err(ReplicaError::Verify(source).into());
        }
        let (unsigned, idle) = self.make(source, &settings, &replica, &progress).await?;
        let Unsigned { payload, leaves, edits, warnings, .. } = unsigned;
        let platform = trust.trust().platform;
        Ok(((!idle).then(|| ReleaseDraft::new(platform, payload, leaves, edits)), warnings))
    }

    /// Sends a release that enough publishers have signed. Sending it again is no mistake.
    ///
    /// # Errors
    /// [`PublishError::TooFew`]; [`PublishError::Overdue`] where another release came first;
    /// see [`PublishError`].
    pub async fn publish_signed(&mut self, draft: ReleaseDraft) -> Result<Published, PublishError> {
        self.connected().await?;
        let trust = self.member.trust.newest();
        let (signed_by, threshold) = draft.signed_by(&trust)?;
        if (signed_by.len() as u64) < threshold {
            return Err(PublishError::TooFew { got: signed_by.len(), threshold });
        }
        let (release, hash, document) = (draft.release()?, draft.hash(), draft.document());
        trust.release(&release.channel, &document).map_err(ReplicaError::from)?;
        let delivered = draft_edits(&draft)
            .map_err(|_| rootcast::draft::DraftError::Inconsistent("a change in it cannot be read"))?;
        let delivered = delivered.iter().filter(|(name, _)| name.as_str() != PLAN_BUNDLE);
        let files_changed = delivered.map(|(_, summary)| files_of(summary)).sum();
        let ReleaseDraft { payload, leaves, edits, .. } = draft;
        let (channel, number, bundles) = (release.channel.clone(), release.number, release.bundles);
        let warnings = Vec::new();
        let unsigned = Unsigned { payload, leaves, edits, channel, number, files_changed, warnings };
        let signed = unsigned.signed(document);
        let answer = match self.offer(&signed).await {
            // It may or may not have been taken: the answer to the same again tells.
            Err(error) => {
                tracing::warn!(%error, "the connection broke while publishing");
                self.connection = None;
                self.offer(&signed).await?
            }
            Ok(answer) => answer,
        };
        match answer {
            PublishAnswer::Accepted(_) => {}
            PublishAnswer::Conflict(by) if by.hash == hash => {}
            PublishAnswer::Conflict(by) => {
                return Err(PublishError::Overdue { number, newest: by.number });
            }
            PublishAnswer::Refused(reason) => return Err(PublishError::Refused(reason)),
            PublishAnswer::NotOrigin => return Err(PublishError::NotOrigin(self.origin.join(", "))),
        }
        Ok(Published {
            commit: release.commit_hex(),
            edit_bytes: signed.edits.iter().map(|edit| edit.len() as u64).sum(),
            channel: release.channel,
            number,
            files_changed,
            bundles,
            overtaken: 0,
            acknowledged: Instant::now(),
            is_new: true,
            warnings: Vec::new(),
        })
    }

    /// Brings the origin a signed version of trust, and takes it itself: the version in force.
    ///
    /// # Errors
    /// [`PublishError::TrustRefused`], with the origin's reason; see [`PublishError`].
    pub async fn apply_trust(&mut self, document: Bytes) -> Result<u64, PublishError> {
        let connection = self.connected().await?;
        let (mut sender, mut receiver) = connection.open_bi().await?;
        sender.send_message(&Opening::ApplyTrust(document)).await?;
        sender.finish()?;
        match receiver.receive_message(MAX_OPENING).await? {
            Some(TrustApplied::InForce(version)) => {
                self.member.trust.fetch(&connection).await?;
                Ok(version)
            }
            Some(TrustApplied::Refused(reason)) => Err(PublishError::TrustRefused(reason)),
            Some(TrustApplied::NotOrigin) => Err(PublishError::NotOrigin(self.origin.join(", "))),
            None => Err(PublishError::Replica(ReplicaError::NotFound)),
        }
    }

    /// The trust that is known here, as new as the last connection.
    pub fn trust(&self) -> Arc<rootcast::trust::TrustChain> {
        self.member.trust.chain()
    }

    /// Asks the origin for the versions of trust that are not known here.
    ///
    /// # Errors
    /// When no origin answers, or one of them does not verify.
    pub async fn refresh_trust(&mut self) -> Result<(), PublishError> {
        self.connected().await.map(drop)
    }
}
