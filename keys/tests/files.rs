//! Key files on a real disk.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)] // a test
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks are what is tested

use rootcast::cose::{self, DocumentKind, KeySet};
use rootcast::id::PlatformId;
use rootcast_keys::{KeyError, NoPassphrase, Passphrase, SecretKey, key_files, public_key};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zeroize::Zeroizing;

struct Says(&'static str);

impl Passphrase for Says {
    fn passphrase(&self, _: &Path, _: bool) -> Result<Zeroizing<String>, KeyError> {
        Ok(Zeroizing::new(self.0.to_owned()))
    }
}

fn same(a: &SecretKey, b: &SecretKey) -> bool {
    a.public().unwrap() == b.public().unwrap()
}

#[test]
fn d_37_an_encrypted_key_opens_with_its_passphrase_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("alice.key");
    let key = SecretKey::generate().unwrap();
    key.save_encrypted(&path, &Says("correct horse")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read(&path).unwrap().starts_with(b"age-encryption.org/v1\n"));
    assert!(same(&SecretKey::open(&path, &Says("correct horse")).unwrap(), &key));
    assert!(matches!(SecretKey::open(&path, &Says("other")), Err(KeyError::WrongPassphrase { .. })));
    assert!(matches!(SecretKey::open(&path, &Says("")), Err(KeyError::Passphrase { .. })));
    assert!(matches!(SecretKey::load(&path), Err(KeyError::Encrypted { .. })), "a daemon asks nobody");
    assert!(matches!(key.save(&path), Err(KeyError::Io { .. })), "no key is ever overwritten");
    let beside = home.path().join("other.key");
    fs::write(home.path().join("other.key.pub"), "somebody's").unwrap();
    assert!(key.save(&beside).is_err() && !beside.exists(), "no key beside another's public half");
    assert_eq!(
        public_key(&path, &NoPassphrase).unwrap(),
        key.public().unwrap(),
        "shown without a passphrase"
    );
}

#[test]
fn d_38_a_public_key_that_was_exchanged_is_noticed_when_the_secret_one_is_opened() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("alice.key");
    SecretKey::generate().unwrap().save(&path).unwrap();
    let other = SecretKey::generate().unwrap().public().unwrap();
    fs::write(home.path().join("alice.key.pub"), format!("{other}\n")).unwrap();
    assert!(matches!(SecretKey::load(&path), Err(KeyError::PublicDiffers { .. })));
    assert!(matches!(public_key(&path, &NoPassphrase), Err(KeyError::PublicDiffers { .. })));
    fs::write(home.path().join("alice.key.pub"), "nothing of the kind").unwrap();
    assert!(matches!(SecretKey::load(&path), Err(KeyError::PublicMalformed { .. })));
}

#[test]
fn a_file_that_others_can_read_or_that_is_no_key_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("alice.key");
    SecretKey::generate().unwrap().save(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(SecretKey::load(&path), Err(KeyError::Exposed { mode: 0o640, .. })));
    let listed = key_files(home.path()).unwrap();
    assert_eq!((listed.len(), listed[0].mode, listed[0].is_encrypted), (1, 0o640, false));
    for content in ["", "-----BEGIN PRIVATE KEY-----\n", "age-encryption.org/v1\nno header"] {
        let path = home.path().join("broken");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let outcome = SecretKey::open(&path, &Says("x"));
        assert!(matches!(outcome, Err(KeyError::Malformed { .. } | KeyError::Age { .. })), "{content:?}");
    }
}

#[test]
fn d_39_a_key_of_openssl_is_read_and_signs() {
    // RFC 8410, section 10.3: the example of a private key, and its public half in 10.1.
    let pem = b"-----BEGIN PRIVATE KEY-----\n\
                MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                -----END PRIVATE KEY-----\n";
    let key = SecretKey::from_pem(Path::new("rfc8410"), pem).unwrap();
    let public = key.public().unwrap();
    assert_eq!(public.to_string(), "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
    assert_eq!(public.to_string().parse(), Ok(public.clone()));
    let again =
        SecretKey::from_pem(Path::new("again"), key.to_pem(Path::new("x")).unwrap().as_bytes()).unwrap();
    assert!(same(&again, &key));
    let platform = PlatformId::from_bytes([3; 16]);
    let document = key.sign(DocumentKind::Release, platform, b"payload").unwrap();
    let keys = KeySet { threshold: 1, keys: vec![public] };
    assert_eq!(&*cose::verify(DocumentKind::Release, platform, &document, &keys).unwrap(), b"payload");
}
