//! The one stanza that stands for a passphrase, for key files.

use crate::header::{self, Header, PASSPHRASE, Stanza, X25519};
use crate::primitives::{FILE_KEY_SIZE, FileKey, TAG, cipher, nonce};
use crate::{AgeError, Plaintext, payload};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::Aad;
use rootcast::limits::KEY_WORK_FACTOR_MOST;
use scrypt::{Params, scrypt};
use zeroize::Zeroizing;

const SALT: usize = 16;
const SALT_LABEL: &[u8] = b"age-encryption.org/v1/scrypt";
/// The block size of scrypt and its parallelism, as the format fixes them.
const BLOCK: u32 = 8;
const PARALLEL: u32 = 1;

/// The key that a passphrase gives with a salt; scrypt does 2^`work` steps.
fn stretch(passphrase: &str, salt: &[u8], work: u8) -> Result<Zeroizing<[u8; 32]>, AgeError> {
    let params = Params::new(work, BLOCK, PARALLEL).map_err(|_| AgeError::Library)?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt(passphrase.as_bytes(), &[SALT_LABEL, salt].concat(), &params, &mut *key)
        .map_err(|_| AgeError::Library)?;
    Ok(key)
}

/// Encrypts to a passphrase. `work` is the power of two of scrypt's cost;
/// `random` fills what it is given with secret bytes that were never used before.
///
/// # Errors
/// When `work` is above [`KEY_WORK_FACTOR_MOST`]: nobody here would read it again.
pub fn encrypt_with_passphrase(
    plaintext: &[u8],
    passphrase: &str,
    work: u8,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Vec<u8>, AgeError> {
    if work > KEY_WORK_FACTOR_MOST {
        return Err(AgeError::WorkFactor { work: work.into() });
    }
    let mut file_key = Zeroizing::new([0; FILE_KEY_SIZE]);
    random(&mut *file_key);
    let mut salt = [0; SALT];
    random(&mut salt);
    let key = stretch(passphrase, &salt, work)?;
    let mut body = Vec::with_capacity(FILE_KEY_SIZE + TAG);
    body.extend_from_slice(&*file_key);
    cipher(&key)?.seal_in_place_append_tag(nonce([0; 12]), Aad::empty(), &mut body)?;
    let arguments = vec![PASSPHRASE.into(), STANDARD_NO_PAD.encode(salt), work.to_string()];
    let mut file = header::encode(&[Stanza { arguments, body }], &file_key)?;
    payload::encrypt(plaintext, &file_key, random, &mut file)?;
    Ok(file)
}

/// What a file holds that is encrypted to a passphrase; `None` where that is another one.
///
/// # Errors
/// When the file is not encrypted to a passphrase, asks for more work than
/// [`KEY_WORK_FACTOR_MOST`], or was changed after it was encrypted.
pub fn decrypt_with_passphrase(file: &[u8], passphrase: &str) -> Result<Option<Plaintext>, AgeError> {
    let (header, payload) = Header::decode(file)?;
    let [stanza] = &header.stanzas[..] else {
        return Err(AgeError::Header("it has several recipients, and a passphrase stands alone"));
    };
    let Some(file_key) = unwrap(stanza, passphrase)? else { return Ok(None) };
    header.authenticate(&file_key)?;
    Ok(Some(Plaintext(payload::decrypt(payload, &file_key)?)))
}

fn unwrap(stanza: &Stanza, passphrase: &str) -> Result<Option<FileKey>, AgeError> {
    if !stanza.is_passphrase() {
        // Of a kind that is not known nothing can be said but that it does not open.
        let is_key = stanza.arguments.first().is_some_and(|kind| kind == X25519);
        return if is_key { Err(AgeError::Header("it is not encrypted to a passphrase")) } else { Ok(None) };
    }
    let [_, salt, work] = &stanza.arguments[..] else {
        return Err(AgeError::Header("a passphrase stanza without its salt and work factor"));
    };
    let salt = STANDARD_NO_PAD.decode(salt).ok().filter(|salt| salt.len() == SALT);
    let salt = salt.ok_or(AgeError::Header("a salt of another length or writing"))?;
    let work = work_factor(work)?;
    if stanza.body.len() != FILE_KEY_SIZE + TAG {
        return Err(AgeError::Header("a passphrase stanza of another length"));
    }
    let key = stretch(passphrase, &salt, work)?;
    let mut body = Zeroizing::new(stanza.body.clone());
    let opened = cipher(&key)?.open_in_place(nonce([0; 12]), Aad::empty(), &mut body);
    let file_key = opened.ok().and_then(|bytes| <[u8; FILE_KEY_SIZE]>::try_from(&*bytes).ok());
    Ok(file_key.map(Zeroizing::new))
}

/// Decimal, without sign or leading zeros, and bounded before any work is done.
fn work_factor(text: &str) -> Result<u8, AgeError> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let work: u64 = match text.parse() {
        Ok(work) if is_decimal => work,
        _ => return Err(AgeError::Header("a work factor that is no number")),
    };
    match u8::try_from(work) {
        Ok(work) if work <= KEY_WORK_FACTOR_MOST => Ok(work),
        _ => Err(AgeError::WorkFactor { work }),
    }
}
