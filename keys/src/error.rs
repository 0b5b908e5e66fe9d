//! What is wrong with a key file, and what to do about it.

use rootcast::cose::SignatureError;
use rootcast_age::AgeError;
use std::io;
use std::path::PathBuf;

/// A secret key could not be made, read or used.
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
    #[error("{} has mode {mode:03o}, so others can read the secret key; run `chmod 600` on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// It is not an Ed25519 key in PKCS#8 PEM.
    #[error("{} is not an Ed25519 secret key in PKCS#8 PEM", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// It is not what the publisher derives the keys of secrets from.
    #[error(
        "{} is not 32 bytes in hexadecimal; remove it, and the next publication of each secret sends it anew",
        path.display()
    )]
    MalformedSealing {
        /// The file.
        path: PathBuf,
    },
    /// It is encrypted, and nobody is there to give the passphrase.
    #[error(
        "{} is encrypted with a passphrase, and who runs alone has none; `rootcast key export` writes it without",
        path.display()
    )]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase that was given is another one.
    #[error("the passphrase does not open {}; give the one that it was made with", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase is needed, and there is no terminal to ask for it.
    #[error(
        "{} needs a passphrase, and there is no terminal to ask at; name a file that holds it with \
         --passphrase-file or ROOTCAST_PASSPHRASE_FILE",
        path.display()
    )]
    NoTerminal {
        /// The key file.
        path: PathBuf,
    },
    /// The passphrase itself cannot be taken.
    #[error("the passphrase for {} is not usable: {reason}", path.display())]
    Passphrase {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// An age file that is not one, or not to a passphrase.
    #[error("{} {source}", path.display())]
    Age {
        /// The file.
        path: PathBuf,
        /// Why.
        source: AgeError,
    },
    /// The public key beside a secret one is another's.
    #[error("{} is not the public half of the key beside it; write it anew, and find out who changed it", path.display())]
    PublicDiffers {
        /// The file of the public key.
        path: PathBuf,
    },
    /// The file of a public key is not one.
    #[error("{}: {source}", path.display())]
    PublicMalformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SignatureError,
    },
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(getrandom::Error),
    /// The public half is not usable.
    #[error(transparent)]
    Public(#[from] SignatureError),
}
