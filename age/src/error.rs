//! What is wrong with a file, a recipient or a key. None of it repeats secret bytes.

use rootcast::limits::{KEY_WORK_FACTOR_MOST, MAX_SECRET_RECIPIENTS};

/// Why something could not be encrypted, decrypted or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// It does not begin as an age file of version 1 that is understood.
    #[error("is no age file that is understood: {0}")]
    Header(&'static str),
    /// A passphrase that would cost more work than a file may ask for.
    #[error("asks for a work factor of 2^{work}, and at most 2^{KEY_WORK_FACTOR_MOST} is done")]
    WorkFactor {
        /// The power of two.
        work: u64,
    },
    /// The header was changed after it was made.
    #[error("has a header that is not as it was encrypted; publish it anew")]
    Changed,
    /// The content was changed, cut or extended after it was made.
    #[error("has content that is not as it was encrypted: {0}; publish it anew")]
    Payload(&'static str),
    /// Text that is no recipient.
    #[error("is no age recipient (`age1…`): {0}")]
    Recipient(&'static str),
    /// Text that is no secret key.
    #[error("is no age secret key (`AGE-SECRET-KEY-1…`): {0}")]
    Key(&'static str),
    /// Nobody to encrypt to, or too many.
    #[error("a secret has 1 to {MAX_SECRET_RECIPIENTS} recipients, and {0} are given")]
    Recipients(usize),
    /// The cryptographic library refused what it cannot refuse.
    #[error("the cryptographic library failed")]
    Library,
}

impl From<ring::error::Unspecified> for AgeError {
    fn from(_: ring::error::Unspecified) -> Self {
        Self::Library
    }
}
