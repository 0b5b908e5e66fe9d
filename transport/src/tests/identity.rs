//! What `Identity::load` takes and refuses.

use super::*;
use crate::{AUTHORITY_FILE, IDENTITY_FILE, NameError};
use rootcast::id::AuthorityHash;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;
use tempfile::TempDir;

fn directory(identity: &str, authority: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(IDENTITY_FILE);
    fs::write(&path, identity).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(directory.path().join(AUTHORITY_FILE), authority).unwrap();
    directory
}

#[test]
fn w_1_an_identity_is_loaded_whole() {
    let authority = TestAuthority::new();
    for leaf in [Leaf::relay(), Leaf::agent(), Leaf::of(PLATFORM, Role::Publisher, "ci")] {
        let directory = directory(&authority.pem_of(&leaf), &authority.pem);
        let identity = Identity::load(directory.path()).unwrap();
        assert_eq!(identity.name().to_uri(), leaf.uris[0]);
        assert_eq!(identity.authority_hash(), AuthorityHash::of(identity.authority().der()));
        assert_eq!(identity.authority().platform(), Some(PLATFORM));
        let left = identity.expires().duration_since(SystemTime::now()).unwrap().as_secs();
        assert!((3590..=3600).contains(&left), "{left}");
        let left = identity.authority().expires().duration_since(SystemTime::now()).unwrap();
        assert_eq!((left.as_secs() + 60) / 86400, 30);
    }
}

#[test]
fn w_1_a_key_that_others_can_read_is_refused() {
    let authority = TestAuthority::new();
    let directory = directory(&authority.pem_of(&Leaf::agent()), &authority.pem);
    let path = directory.path().join(IDENTITY_FILE);
    for mode in [0o640, 0o604, 0o620, 0o601, 0o644] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Identity::load(directory.path()).unwrap_err();
        assert!(matches!(error, TransportError::KeyExposed { mode: found, .. } if found == mode));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Identity::load(directory.path()).unwrap();
    }
}

#[test]
fn w_1_files_that_are_no_identity_are_refused() {
    let (authority, other) = (TestAuthority::new(), TestAuthority::new());
    let good = authority.pem_of(&Leaf::agent());
    let load =
        |identity: &str, authority: &str| Identity::load(directory(identity, authority).path()).unwrap_err();
    let key_at = good.find("-----BEGIN PRIVATE KEY").unwrap();
    let (certificate, key) = good.split_at(key_at);
    for bad in ["", "junk", certificate, key, &format!("{good}{key}"), &"x".repeat(70_000)] {
        assert!(matches!(load(bad, &authority.pem), TransportError::BadPem { .. }), "{bad:.40}");
    }
    for bad in ["", "junk", &format!("{}{}", authority.pem, other.pem)] {
        assert!(matches!(load(&good, bad), TransportError::BadPem { .. }), "{bad:.40}");
    }
    assert!(matches!(load(&good, &other.pem), TransportError::OwnCertificate { .. }));
    // A relay that no client could dial.
    let unnamed = Leaf { server_name: false, ..Leaf::relay() };
    let error = load(&authority.pem_of(&unnamed), &authority.pem);
    assert!(matches!(error, TransportError::OwnCertificate { .. }));
    let nameless = Leaf { uris: vec![], ..Leaf::relay() };
    let error = load(&authority.pem_of(&nameless), &authority.pem);
    assert!(matches!(error, TransportError::OwnName { source: NameError::Count { count: 0 }, .. }));
    let missing = Identity::load(tempfile::tempdir().unwrap().path()).unwrap_err();
    assert!(matches!(missing, TransportError::ReadFile { .. }));
}

#[test]
fn w_1_another_certificates_key_is_refused() {
    let authority = TestAuthority::new();
    let (one, two) = (authority.pem_of(&Leaf::agent()), authority.pem_of(&Leaf::agent()));
    let key_at = |pem: &str| pem.find("-----BEGIN PRIVATE KEY").unwrap();
    let mixed = format!("{}{}", &one[..key_at(&one)], &two[key_at(&two)..]);
    let identity = TestAuthority::identity_from(&mixed, authority.certificate());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    assert!(matches!(Endpoint::dial_only(&identity), Err(TransportError::Tls { .. })));
}

#[test]
fn w_1_an_expired_identity_is_loaded_for_what_needs_no_network() {
    let authority = TestAuthority::new();
    let expired = Leaf { valid: (-600, -300), ..Leaf::agent() };
    let directory = directory(&authority.pem_of(&expired), &authority.pem);
    assert!(Identity::load(directory.path()).unwrap().expires() < SystemTime::now());
}
