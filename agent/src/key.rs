//! The key that opens a host's secrets, in the directory of its identity
//! (specs/activation.md, A-23).

use rootcast::limits::MAX_KEY_FILE;
use rootcast_age::{AgeError, DecryptionKey, Recipient};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The key, as `age-keygen` writes it: readable by its owner alone.
pub const DECRYPTION_KEY_FILE: &str = "secrets.key";
/// Its recipient, for the settings of the repository.
pub const RECIPIENT_FILE: &str = "secrets.pub";

/// A decryption key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner can read it.
    #[error(
        "{} has mode {mode:03o}, so others can read the host's secrets; run `chmod 600` on it, and make \
         another if they may have",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// It holds no key.
    #[error("{}: {source}; `rootcast init` writes one, or age-keygen", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: AgeError,
    },
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(getrandom::Error),
}

/// Makes a host's key in the directory of its identity, with the recipient
/// beside it. Never writes over a key.
///
/// # Errors
/// When there is one already, or a file cannot be written.
pub fn make_decryption_key(identity: &Path) -> Result<Recipient, KeyError> {
    let path = identity.join(DECRYPTION_KEY_FILE);
    if std::fs::symlink_metadata(&path).is_ok() {
        return Err(KeyError::Io { path, source: io::ErrorKind::AlreadyExists.into() });
    }
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(KeyError::Random)?;
    let key = DecryptionKey::from_bytes(bytes);
    let recipient = key.recipient();
    // The key comes last: where it is, its recipient is too.
    write(
        &identity.join(RECIPIENT_FILE),
        &recipient.to_string(),
        0o644,
        OpenOptions::new().truncate(true).create(true),
    )?;
    write(&path, &key.to_text(), 0o600, OpenOptions::new().create_new(true))?;
    Ok(recipient)
}

fn write(path: &Path, line: &str, mode: u32, options: &mut OpenOptions) -> Result<(), KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let mut file = options.write(true).mode(mode).open(path).map_err(failed)?;
    let written = file.write_all(line.as_bytes()).and_then(|()| file.write_all(b"\n"));
    written.and_then(|()| file.sync_all()).map_err(failed)
}

/// Reads a host's key; `None` where it has none, and so no secrets.
///
/// # Errors
/// [`KeyError`], which names the file.
pub fn load_decryption_key(identity: &Path) -> Result<Option<DecryptionKey>, KeyError> {
    let path = identity.join(DECRYPTION_KEY_FILE);
    let failed = |source| KeyError::Io { path: path.clone(), source };
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path, mode });
    }
    // All of its room from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE as usize));
    file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(failed)?;
    // age-keygen writes comments above the key.
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let key = DecryptionKey::parse(line.unwrap_or_default());
    key.map(Some).map_err(|source| KeyError::Malformed { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_23_a_key_is_made_once_and_refused_when_others_can_read_it() {
        let home = tempfile::tempdir().unwrap();
        assert!(load_decryption_key(home.path()).unwrap().is_none());
        let recipient = make_decryption_key(home.path()).unwrap();
        let said = fs::read_to_string(home.path().join(RECIPIENT_FILE)).unwrap();
        assert_eq!(said, format!("{recipient}\n"));
        let path = home.path().join(DECRYPTION_KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let load = || load_decryption_key(home.path());
        assert_eq!(load().unwrap().unwrap().recipient(), recipient);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("# created: today\n\n{text}")).unwrap();
        assert_eq!(load().unwrap().unwrap().recipient(), recipient);
        for mode in [0o640, 0o604, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(load(), Err(KeyError::Exposed { mode: found, .. }) if found == mode));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, text.replacen("SECRET", "SECRTE", 1)).unwrap();
        let error = load().unwrap_err();
        assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains(text.trim().get(20..40).unwrap()));
        let there = fs::read_to_string(&path).unwrap();
        make_decryption_key(home.path()).unwrap_err();
        let kept = |name: &str| fs::read_to_string(home.path().join(name)).unwrap();
        assert_eq!((kept(DECRYPTION_KEY_FILE), kept(RECIPIENT_FILE)), (there, said));
    }
}
