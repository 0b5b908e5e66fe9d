//! The payload: a nonce, and pieces of 64 KiB, each sealed under its number and whether it is the last.

use crate::AgeError;
use crate::primitives::{FileKey, TAG, cipher, derive, nonce};
use ring::aead::Aad;
use zeroize::Zeroizing;

const PIECE: usize = 64 * 1024;
const NONCE: usize = 16;

/// What encrypting adds to `size` bytes.
pub(crate) const fn overhead(size: u64) -> u64 {
    (NONCE + TAG) as u64 + size / PIECE as u64 * TAG as u64
}

/// The nonce of a piece: its number in eleven bytes, then 1 for the last.
fn piece_nonce(number: u64, is_last: bool) -> [u8; 12] {
    let mut bytes = [0; 12];
    let (_, tail) = bytes.split_at_mut(3);
    let (counter, last) = tail.split_at_mut(8);
    counter.copy_from_slice(&number.to_be_bytes());
    last.fill(u8::from(is_last));
    bytes
}

/// Encrypts onto the end of `file`.
pub(crate) fn encrypt(
    plaintext: &[u8],
    file_key: &FileKey,
    random: &mut dyn FnMut(&mut [u8]),
    file: &mut Vec<u8>,
) -> Result<(), AgeError> {
    let mut salt = [0; NONCE];
    random(&mut salt);
    let key = cipher(&*derive(&**file_key, &salt, b"payload")?)?;
    // No growing below: it would leave pieces in the clear behind.
    file.reserve_exact(NONCE + plaintext.len() + TAG * (plaintext.len() / PIECE + 1));
    file.extend_from_slice(&salt);
    let mut rest = plaintext;
    for number in 0.. {
        let (piece, after) = rest.split_at(rest.len().min(PIECE));
        let begin = file.len();
        file.extend_from_slice(piece);
        let sealed = nonce(piece_nonce(number, after.is_empty()));
        let in_place = file.get_mut(begin..).unwrap_or_default();
        let tag = key.seal_in_place_separate_tag(sealed, Aad::empty(), in_place)?;
        file.extend_from_slice(tag.as_ref());
        if after.is_empty() {
            break;
        }
        rest = after;
    }
    Ok(())
}

/// Decrypts a whole payload.
pub(crate) fn decrypt(payload: &[u8], file_key: &FileKey) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let (salt, mut rest) =
        payload.split_at_checked(NONCE).ok_or(AgeError::Header("it ends before its payload"))?;
    let key = cipher(&*derive(&**file_key, salt, b"payload")?)?;
    // Long enough for the tag of each piece, which is written there before it is taken off.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(rest.len()));
    for number in 0.. {
        let (piece, after) = rest.split_at(rest.len().min(PIECE + TAG));
        let begin = plaintext.len();
        plaintext.extend_from_slice(piece);
        let opening = nonce(piece_nonce(number, after.is_empty()));
        let in_place = plaintext.get_mut(begin..).unwrap_or_default();
        let opened = key.open_in_place(opening, Aad::empty(), in_place);
        let length = opened.map_err(|_| AgeError::Payload("it was cut, extended or changed"))?.len();
        plaintext.truncate(begin + length);
        if after.is_empty() {
            // One way to write each content: an empty last piece stands for an empty file alone.
            if length == 0 && number > 0 {
                return Err(AgeError::Payload("an empty last piece"));
            }
            break;
        }
        rest = after;
    }
    Ok(plaintext)
}
