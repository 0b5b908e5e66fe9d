//! `rootcast sign`, and what signing has in common: a look at it, a question, a new file.

use crate::failure::{Exit, Failure};
use crate::inspect::place::{read, trust_of};
use crate::output::{Output, bytes, plain};
use crate::passphrase::Asking;
use rootcast::cose::DocumentKind;
use rootcast::draft::{DraftError, ReleaseDraft};
use rootcast::id::KeyId;
use rootcast::limits::MAX_RELEASE_DRAFT;
use rootcast::release::Release;
use rootcast_bundler::{draft_edits, files_of};
use rootcast_keys::SecretKey;
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The release, as `rootcast publish --unsigned` wrote it
    file: PathBuf,
    /// The key to sign with
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Whose trust to judge by: a configuration file, or the directory of an identity or a platform
    #[arg(long, value_name = "PATH", default_value = "publish.toml")]
    identity: PathBuf,
    /// Sign without being asked
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    asking: Asking,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let trust = trust_of(&arguments.identity)?;
    let newest = trust.newest();
    let mut draft = load(&arguments.file)?;
    let release = draft.release()?;
    let (signed_by, threshold) = draft.signed_by(newest)?;
    // Before anybody is asked for a passphrase.
    let key = rootcast_keys::public_key(&arguments.key, &arguments.asking)?.id();
    let publishers = newest.trust().grant(&release.channel).map(|grant| &grant.publishers.keys);
    let accepted: Vec<KeyId> = publishers.into_iter().flatten().map(|key| key.id()).collect();
    if !accepted.contains(&key) {
        return Err(DraftError::Stranger { key, accepted }.into());
    }
    if signed_by.contains(&key) {
        return Err(DraftError::Again(key).into());
    }
    show(&draft, &release, &signed_by, threshold, output)?;
    confirm("sign this release", arguments.yes)?;
    let secret = SecretKey::open(&arguments.key, &arguments.asking)?;
    let signature = secret.sign(DocumentKind::Release, draft.platform, &draft.payload)?;
    draft.add(signature.into(), newest)?;
    replace(&arguments.file, &draft.encode())?;
    let have = draft.signed_by(newest)?.0.len() as u64;
    output.value(
        &json!({ "event": "signed", "key": key.to_string(), "signatures": have, "threshold": threshold }),
    );
    output.line(format!("signed with key {key}: {have} of {threshold} signatures"));
    if have >= threshold {
        output.line(format!("next: rootcast publish --signed {}", arguments.file.display()));
    }
    Ok(())
}

/// Reads a draft.
pub(crate) fn load(file: &Path) -> Result<ReleaseDraft, Failure> {
    let bytes = read(file, MAX_RELEASE_DRAFT).map_err(|error| Failure::io(file, &error))?;
    Ok(ReleaseDraft::decode(&bytes)?)
}

/// Shows what a draft is, all of it from what is signed or from the edits themselves.
pub(crate) fn show(
    draft: &ReleaseDraft,
    release: &Release,
    signed_by: &[KeyId],
    threshold: u64,
    output: &Output,
) -> Result<(), Failure> {
    let edits = draft_edits(draft).map_err(|error| Failure::new(Exit::Failure, plain(&error.to_string())))?;
    let changes: Vec<_> = edits
        .iter()
        .map(|(bundle, edit)| {
            json!({
                "bundle": bundle.as_str(), "added": edit.added + edit.copied, "replaced": edit.replaced,
                "mode_changed": edit.mode_changed, "deleted": edit.deleted,
            })
        })
        .collect();
    let keys: Vec<_> = signed_by.iter().map(KeyId::to_string).collect();
    output.value(&json!({
        "event": "draft", "channel": release.channel.as_str(), "release": release.number, "epoch": release.epoch,
        "hash": draft.hash().to_string(), "previous": release.previous.map(|hash| hash.to_string()),
        "commit": release.commit_hex(), "issued": release.issued, "bundles": release.bundles,
        "files": release.files, "bytes": release.bytes, "changes": changes, "signed_by": keys,
        "threshold": threshold,
    }));
    let line = |name: &str, text: &str| output.line(format!("{name:9} {text}"));
    line("release", &format!("{} of channel {}", release.number, release.channel));
    line("hash", &draft.hash().to_string());
    line(
        "previous",
        &release.previous.map_or_else(|| "none: it is the first".into(), |hash| hash.to_string()),
    );
    line("commit", crate::inspect::commit(&release.commit_hex()));
    line("files", &format!("{} in {} bundles, {}", release.files, release.bundles, bytes(release.bytes)));
    for (bundle, edit) in &edits {
        let text = format!(
            "{bundle}: {} files ({} added, {} replaced, {} deleted, {} modes)",
            files_of(edit),
            edit.added + edit.copied,
            edit.replaced,
            edit.deleted,
            edit.mode_changed
        );
        line("changes", &text);
    }
    let by = if keys.is_empty() { "nobody yet".into() } else { keys.join(", ") };
    line("signed by", &format!("{by}; {threshold} must sign"));
    Ok(())
}

/// Asks whether to go on; without a terminal `--yes` has said so already.
pub(crate) fn confirm(what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        let message = format!("nobody is there to be asked whether to {what}");
        return Err(Failure::new(Exit::Usage, message).next("look at what is shown, and say --yes"));
    }
    eprint!("{what}? type yes: ");
    let mut answer = String::new();
    let asked = io::stdin().lock().read_line(&mut answer);
    if asked.is_ok() && answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::new(Exit::Failure, "nothing was signed").next("type yes, in full, to sign"))
}

/// Writes a new file, and never over one that may hold signatures.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::io(path, &error).next("give the name of a file that is not there yet"))
}

/// Puts a file in another's place, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let draft = PathBuf::from(name);
    let written = fs::File::create(&draft).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    });
    written.map_err(|error| Failure::io(path, &error))
}
