//! The vectors of the age project (`testdata/age`), and round trips.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests read files
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)] // helpers of tests are tests

use proptest::prelude::*;
use rootcast::limits::{KEY_WORK_FACTOR_MOST, MAX_BLOB, MAX_SECRET, MAX_SECRET_RECIPIENTS};
use rootcast_age::{
    AgeError, DecryptionKey, Recipient, decrypt_with_passphrase, encrypt, encrypt_with_passphrase, overhead,
};
use std::collections::BTreeMap;
use std::path::Path;
use zlib_rs::{InflateConfig, ReturnCode, decompress_slice};

fn key(seed: u8) -> DecryptionKey {
    DecryptionKey::from_bytes([seed; 32].into())
}

/// Bytes that differ from one call to the next, and are the same in every run.
fn random() -> impl FnMut(&mut [u8]) {
    let mut next = 0u8;
    move |bytes| {
        for byte in bytes {
            next = next.wrapping_mul(5).wrapping_add(113);
            *byte = next;
        }
    }
}

fn sealed(plaintext: &[u8], recipients: &[Recipient]) -> Vec<u8> {
    encrypt(plaintext, recipients, &mut random()).unwrap()
}

/// The fields of a vector and its file, unpacked.
fn vector(bytes: &[u8]) -> (BTreeMap<String, String>, Vec<u8>) {
    let split = bytes.windows(2).position(|window| window == b"\n\n").unwrap();
    let text = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let fields: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let mut file = bytes[split + 2..].to_vec();
    if fields.get("compressed").is_some_and(|with| with == "zlib") {
        let mut unpacked = vec![0; 1 << 20];
        let (out, code) = decompress_slice(&mut unpacked, &file, InflateConfig::default());
        assert_eq!(code, ReturnCode::Ok, "{text}");
        file = out.to_vec();
    }
    (fields, file)
}

#[test]
fn t_11_the_vectors_of_the_age_project() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/age");
    let mut seen = BTreeMap::<String, u32>::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (fields, file) = vector(&std::fs::read(&path).unwrap());
        let key = fields.get("identity").map_or_else(|| key(1), |key| DecryptionKey::parse(key).unwrap());
        let outcome = match fields.get("passphrase") {
            Some(passphrase) => decrypt_with_passphrase(&file, passphrase),
            None => key.decrypt(&file),
        };
        let found = match &outcome {
            Ok(Some(_)) => "success",
            Ok(None) => "no match",
            Err(AgeError::Header(_) | AgeError::WorkFactor { .. }) => "header failure",
            Err(AgeError::Changed) => "HMAC failure",
            Err(AgeError::Payload(_)) => "payload failure",
            Err(other) => panic!("{name}: {other}"),
        };
        assert_eq!(found, fields["expect"], "{name}: {outcome:?}");
        if let Ok(Some(plaintext)) = &outcome {
            let hash = ring::digest::digest(&ring::digest::SHA256, plaintext);
            assert_eq!(hex::encode(hash), fields["payload"], "{name}");
            assert!(fields.contains_key("passphrase") || key.opens(&file).unwrap(), "{name}");
        }
        *seen.entry(found.into()).or_default() += 1;
    }
    let all = [
        ("HMAC failure", 1),
        ("header failure", 51),
        ("no match", 7),
        ("payload failure", 18),
        ("success", 12),
    ];
    assert_eq!(seen, all.map(|(found, count)| (found.to_owned(), count)).into());
}

#[test]
fn keys_are_written_as_age_writes_them() {
    // From the vector `x25519`, whose key is in many of them.
    let text = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";
    let key = DecryptionKey::parse(text).unwrap();
    assert_eq!(*key.to_text(), text);
    let recipient = key.recipient().to_string();
    assert!(recipient.starts_with("age1") && recipient.len() == 62, "{recipient}");
    assert_eq!(recipient.parse(), Ok(key.recipient()));
    assert_eq!(format!("{key:?}"), format!("DecryptionKey({recipient})"));
    // Each single character that is mistyped is noticed.
    for at in 4..recipient.len() {
        let mut wrong = recipient.clone().into_bytes();
        wrong[at] = if wrong[at] == b'q' { b'p' } else { b'q' };
        let wrong = String::from_utf8(wrong).unwrap();
        assert!(matches!(wrong.parse::<Recipient>(), Err(AgeError::Recipient(_))), "{wrong}");
    }
    for wrong in ["", "age1", "age1é", &recipient.to_uppercase(), &recipient[..61], text] {
        assert!(matches!(wrong.parse::<Recipient>(), Err(AgeError::Recipient(_))), "{wrong}");
    }
    for wrong in [&text.to_lowercase(), &text[..70], &recipient] {
        let error = DecryptionKey::parse(wrong).unwrap_err();
        assert!(matches!(error, AgeError::Key(_)) && !error.to_string().contains("EGTZ"), "{error}");
    }
}

#[test]
fn a_recipient_of_low_order_is_refused() {
    // The point zero: every key would agree on the same with it.
    let zero = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq9lu8vt";
    let outcome = zero.parse::<Recipient>();
    assert!(matches!(outcome, Err(AgeError::Recipient(_))), "{outcome:?}");
}

#[test]
fn whoever_it_is_for_reads_it_and_nobody_else() {
    let file = sealed(b"hunter2", &[key(1).recipient(), key(2).recipient()]);
    for seed in [1, 2] {
        assert!(key(seed).opens(&file).unwrap());
        let plaintext = key(seed).decrypt(&file).unwrap().unwrap();
        assert_eq!(&*plaintext, b"hunter2");
        assert_eq!(format!("{plaintext:?}"), "Plaintext(7 bytes)");
    }
    assert!(!key(3).opens(&file).unwrap());
    assert!(key(3).decrypt(&file).unwrap().is_none());
    assert_eq!(encrypt(b"x", &[], &mut random()), Err(AgeError::Recipients(0)));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let file = sealed(b"hunter2", &[key(1).recipient()]);
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1 << (at % 8);
        let outcome = key(1).decrypt(&changed);
        // A changed stanza may be nobody's; none may be read.
        assert!(!matches!(outcome, Ok(Some(_))), "byte {at}: {outcome:?}");
        assert!(!matches!(key(1).decrypt(&file[..at]), Ok(Some(_))), "cut to {at}");
    }
}

#[test]
fn l_17_the_largest_secret_for_the_most_recipients_is_one_blob() {
    assert!(MAX_SECRET + overhead(MAX_SECRET, MAX_SECRET_RECIPIENTS as u64) <= MAX_BLOB);
    let recipients = vec![key(1).recipient(); MAX_SECRET_RECIPIENTS];
    let plaintext = vec![7; MAX_SECRET as usize];
    let file = sealed(&plaintext, &recipients);
    let most = MAX_SECRET + overhead(MAX_SECRET, MAX_SECRET_RECIPIENTS as u64);
    assert!(file.len() as u64 <= most && file.len() as u64 > most - 64, "{} of {most}", file.len());
    assert_eq!(&*key(1).decrypt(&file).unwrap().unwrap(), &plaintext[..]);
    let one_more = [&recipients[..], &recipients[..1]].concat();
    assert_eq!(encrypt(b"x", &one_more, &mut random()), Err(AgeError::Recipients(MAX_SECRET_RECIPIENTS + 1)));
}

#[test]
fn a_passphrase_opens_what_it_closed_and_no_other_does() {
    let file = encrypt_with_passphrase(b"hunter2", "correct horse", 4, &mut random()).unwrap();
    assert_eq!(&*decrypt_with_passphrase(&file, "correct horse").unwrap().unwrap(), b"hunter2");
    assert!(decrypt_with_passphrase(&file, "correct horsE").unwrap().is_none());
    assert!(matches!(key(1).decrypt(&file), Err(AgeError::Header(_))), "no host has a passphrase");
    let to_a_key = sealed(b"hunter2", &[key(1).recipient()]);
    assert!(matches!(decrypt_with_passphrase(&to_a_key, "x"), Err(AgeError::Header(_))));
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(!matches!(decrypt_with_passphrase(&changed, "correct horse"), Ok(Some(_))), "byte {at}");
    }
}

#[test]
fn l_18_a_file_that_asks_for_minutes_of_work_is_refused_before_any() {
    let refused = encrypt_with_passphrase(b"x", "p", KEY_WORK_FACTOR_MOST + 1, &mut random());
    assert!(matches!(refused, Err(AgeError::WorkFactor { .. })));
    let file = encrypt_with_passphrase(b"x", "p", 4, &mut random()).unwrap();
    let first = "age-encryption.org/v1\n";
    let end = file.iter().skip(first.len()).position(|byte| *byte == b'\n').unwrap() + first.len();
    for work in ["19", "63", "18446744073709551615"] {
        let hostile = [&file[..end - 1], work.as_bytes(), &file[end..]].concat();
        let outcome = decrypt_with_passphrase(&hostile, "p");
        assert!(matches!(outcome, Err(AgeError::WorkFactor { .. })), "{outcome:?}");
    }
}

proptest! {
    #[test]
    fn what_is_encrypted_comes_back(size in prop_oneof![0usize..300, 65_500usize..65_600, 131_060usize..131_080]) {
        let plaintext: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let file = sealed(&plaintext, &[key(9).recipient()]);
        prop_assert_eq!(&*key(9).decrypt(&file).unwrap().unwrap(), &plaintext[..]);
        prop_assert!(file.len() as u64 <= size as u64 + overhead(size as u64, 1));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let file = [b"age-encryption.org/v1\n-> X25519 ".as_slice(), &tail].concat();
        prop_assert!(!matches!(key(1).decrypt(&file), Ok(Some(_))));
        prop_assert!(key(1).decrypt(&tail).is_err());
    }
}
