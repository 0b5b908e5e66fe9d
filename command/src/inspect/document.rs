//! One file: a signed document, or an edit.

use super::place::read;
use super::{Signatures, commit, signatures_json, signatures_outcome, signatures_text, utc};
use crate::failure::{Exit, Failure};
use crate::output::{Output, bytes, plain};
use bytes::Bytes;
use rootcast::cose::{self, DocumentKind, KeySet};
use rootcast::edit::{self, Summary};
use rootcast::head::Head;
use rootcast::id::{KeyId, ReleaseHash, TrustHash};
use rootcast::limits::MAX_EDIT;
use rootcast::release::Release;
use rootcast::trust::{Grant, Trust, TrustChain};
use serde_json::{Value, json};
use std::path::Path;

/// Shows one kind of document, and says whether its signatures hold.
type Show = fn(&Bytes, &[KeyId], Option<&TrustChain>, &Output) -> Result<Signatures, String>;

pub(super) fn show(path: &Path, trust: Option<&TrustChain>, output: &Output) -> Result<(), Failure> {
    let file = Bytes::from(read(path, MAX_EDIT).map_err(|error| Failure::io(path, &error))?);
    let kinds = [
        (DocumentKind::Trust, show_trust as Show),
        (DocumentKind::Release, show_release),
        (DocumentKind::Head, show_head),
    ];
    for (kind, show) in kinds {
        let Ok(keys) = cose::claimed_keys(kind, &file) else { continue };
        let signatures = show(&file, &keys, trust, output).map_err(|reason| unknown(path, &reason))?;
        return signatures_outcome(&signatures, &path.display().to_string());
    }
    match edit::summary(&file) {
        Ok(summary) => {
            show_edit(&summary, file.len() as u64, output);
            Ok(())
        }
        Err(error) => {
            // Every signed document begins with this tag, and no edit does.
            let reason = match cose::claimed_keys(DocumentKind::Release, &file) {
                Err(document) if file.first().is_none_or(|tag| *tag == 0xd2) => document.to_string(),
                _ => error.to_string(),
            };
            Err(unknown(path, &reason))
        }
    }
}

fn unknown(path: &Path, reason: &str) -> Failure {
    let message = format!("{} is not a document or edit that can be read: {}", path.display(), plain(reason));
    Failure::new(Exit::Failure, message)
        .next("give a .cose document, an encoded edit, or the state directory of a relay, agent or publisher")
}

fn names(keys: &[KeyId]) -> Vec<String> {
    keys.iter().map(KeyId::to_string).collect()
}

fn key_set(keys: &KeySet) -> Value {
    let ids: Vec<_> = keys.keys.iter().map(|key| key.id().to_string()).collect();
    json!({ "threshold": keys.threshold, "keys": ids })
}

fn key_set_text(keys: &KeySet) -> String {
    let ids: Vec<_> = keys.keys.iter().map(|key| key.id().to_string()).collect();
    format!("{} of {}", keys.threshold, ids.join(", "))
}

fn show_trust(
    document: &Bytes,
    keys: &[KeyId],
    trust: Option<&TrustChain>,
    output: &Output,
) -> Result<Signatures, String> {
    let (said, hash) = Trust::unverified(document).map_err(|error| error.to_string())?;
    let signatures: Signatures = trust.map(|trust| trust.check(document).map_err(|error| error.to_string()));
    let mut value = trust_json(&said);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("kind".into(), "trust".into());
        // Only the first version's hash is what hosts are pinned to.
        let name = if said.version == 1 { "fingerprint" } else { "hash" };
        fields.insert(name.into(), hash.to_string().into());
        fields.insert("signed_by".into(), names(keys).into());
        fields.insert("signatures".into(), signatures_json(&signatures));
    }
    output.value(&value);
    let line = |name: &str, text: &str| output.line(format!("{name:12} {text}"));
    output.line("trust document");
    trust_lines(&said, hash, &line);
    signed_lines(keys, &signatures, &line);
    Ok(signatures)
}

/// Who signed, and whether that holds.
fn signed_lines(keys: &[KeyId], signatures: &Signatures, line: &dyn Fn(&str, &str)) {
    line("signed by", &names(keys).join(", "));
    line("signatures", &signatures_text(signatures));
}

/// The fields of a trust document, for programs.
pub(crate) fn trust_json(said: &Trust) -> Value {
    let grant = |grant: &Grant| {
        json!({
            "prefix": grant.prefix.as_str(), "epoch": grant.epoch, "publishers": key_set(&grant.publishers), "files": grant.limits.files,
            "bytes": grant.limits.bytes, "file_size": grant.limits.file_size, "symlinks": grant.symlinks,
        })
    };
    json!({
        "platform": said.platform.to_string(), "version": said.version, "issued": said.issued,
        "expires": said.expires, "roots": key_set(&said.roots),
        "grants": said.grants.iter().map(grant).collect::<Vec<_>>(), "heads": key_set(&said.heads),
        "authorities": said.authorities.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// The fields of a trust document, for people.
pub(crate) fn trust_lines(said: &Trust, hash: TrustHash, line: &dyn Fn(&str, &str)) {
    line(if said.version == 1 { "fingerprint" } else { "hash" }, &hash.to_string());
    line("platform", &said.platform.to_string());
    line("version", &said.version.to_string());
    line("issued", &utc(said.issued));
    line("expires", &utc(said.expires));
    line("roots", &key_set_text(&said.roots));
    for grant in &said.grants {
        let links = if grant.symlinks { "symbolic links" } else { "no symbolic links" };
        let limits = grant.limits;
        let text = format!(
            "{} and below, epoch {}: {}; a bundle has at most {} files, {}, {} a file, {links}",
            grant.prefix,
            grant.epoch,
            key_set_text(&grant.publishers),
            limits.files,
            bytes(limits.bytes),
            bytes(limits.file_size),
        );
        line("grant", &text);
    }
    line("heads", &key_set_text(&said.heads));
    for authority in &said.authorities {
        line("authority", &authority.to_string());
    }
}

fn show_release(
    document: &Bytes,
    keys: &[KeyId],
    trust: Option<&TrustChain>,
    output: &Output,
) -> Result<Signatures, String> {
    let payload =
        cose::unverified_payload(DocumentKind::Release, document).map_err(|error| error.to_string())?;
    let release = Release::decode(&payload).map_err(|error| error.to_string())?;
    let signatures: Signatures = trust.map(|trust| {
        trust.known_release(&release.channel, document).map(drop).map_err(|error| error.to_string())
    });
    let mut value = release_json(&release, ReleaseHash::of(&payload));
    if let Some(fields) = value.as_object_mut() {
        fields.insert("kind".into(), "release".into());
        fields.insert("signed_by".into(), names(keys).into());
        fields.insert("signatures".into(), signatures_json(&signatures));
    }
    output.value(&value);
    output.line("release");
    release_lines(&release, ReleaseHash::of(&payload), output);
    let line = |name: &str, text: &str| output.line(format!("{name:12} {text}"));
    signed_lines(keys, &signatures, &line);
    Ok(signatures)
}

fn show_head(
    document: &Bytes,
    keys: &[KeyId],
    trust: Option<&TrustChain>,
    output: &Output,
) -> Result<Signatures, String> {
    let payload =
        cose::unverified_payload(DocumentKind::Head, document).map_err(|error| error.to_string())?;
    let head = Head::decode(&payload).map_err(|error| error.to_string())?;
    let verify = |trust: &TrustChain| trust.newest().head(&head.channel, document).map(drop);
    let signatures: Signatures = trust.map(|trust| verify(trust).map_err(|error| error.to_string()));
    output.value(&json!({
        "kind": "head", "channel": head.channel.as_str(), "epoch": head.epoch, "sequence": head.sequence,
        "release": head.release.number, "hash": head.release.hash.to_string(), "issued": head.issued,
        "expires": head.expires, "signed_by": names(keys), "signatures": signatures_json(&signatures),
    }));
    let line = |name: &str, text: &str| output.line(format!("{name:12} {text}"));
    output.line("head");
    line("channel", head.channel.as_str());
    line("sequence", &format!("{}, epoch {}", head.sequence, head.epoch));
    line("release", &format!("{} {}", head.release.number, head.release.hash));
    line("issued", &utc(head.issued));
    line("expires", &utc(head.expires));
    signed_lines(keys, &signatures, &line);
    Ok(signatures)
}

/// The fields of a release, for programs.
pub(super) fn release_json(release: &Release, hash: ReleaseHash) -> Value {
    json!({
        "channel": release.channel.as_str(), "epoch": release.epoch, "release": release.number, "hash": hash.to_string(),
        "previous": release.previous.map(|hash| hash.to_string()), "commit": release.commit_hex(),
        "issued": release.issued, "bundles": release.bundles, "bundles_root": release.bundles_root.to_string(),
        "files": release.files, "bytes": release.bytes,
    })
}

/// The fields of a release, for people.
pub(super) fn release_lines(release: &Release, hash: ReleaseHash, output: &Output) {
    let line = |name: &str, text: &str| output.line(format!("{name:12} {text}"));
    line("channel", release.channel.as_str());
    line("number", &release.number.to_string());
    line("hash", &hash.to_string());
    line("previous", &release.previous.map_or_else(|| "none".into(), |hash| hash.to_string()));
    line("commit", commit(&release.commit_hex()));
    line("issued", &utc(release.issued));
    line("bundles", &format!("{}, root {}", release.bundles, release.bundles_root));
    line("files", &format!("{}, {}", release.files, bytes(release.bytes)));
}

/// The counts of an edit.
pub(super) fn show_edit(summary: &Summary, size: u64, output: &Output) {
    output.value(&json!({
        "kind": "edit", "bytes": size, "added": summary.added, "copied": summary.copied,
        "replaced": summary.replaced, "mode_changed": summary.mode_changed, "deleted": summary.deleted,
        "operation_bytes": summary.operation_bytes, "content_bytes": summary.content_bytes,
    }));
    output.line(format!("edit of {}", bytes(size)));
    let Summary { added, copied, replaced, mode_changed, deleted, operation_bytes, content_bytes } = *summary;
    for (name, text) in [
        ("added", added.to_string()),
        ("copied", copied.to_string()),
        ("replaced", replaced.to_string()),
        ("mode changed", mode_changed.to_string()),
        ("deleted", deleted.to_string()),
        ("operations", bytes(operation_bytes)),
        ("contents", bytes(content_bytes)),
    ] {
        output.line(format!("{name:12} {text}"));
    }
}
