//! What the publisher refuses before anything is signed, and daemons without a reader.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a test of a program")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn rootcast(home: &Path, arguments: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_rootcast");
    Command::new(binary).args(arguments).current_dir(home).stdin(Stdio::null()).output().unwrap()
}

/// A platform beside a directory of configuration, and a publisher's file.
fn platform() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    assert!(
        rootcast(home.path(), &["init", "platform", "--address", "localhost:7400", "--unencrypted"])
            .status
            .success()
    );
    let publish = "identity = 'platform/publisher'\nkey = 'platform/keys/publisher.key'\n\
                   state = 'publisher'\norigin = ['127.0.0.1:1']\n";
    fs::write(home.path().join("publish.toml"), publish).unwrap();
    home
}

#[test]
fn a_source_that_holds_the_publishers_own_keys_is_refused() {
    let home = platform();
    for source in [".", "platform", "platform/keys", "platform/publisher"] {
        let refused = rootcast(home.path(), &["publish", source]);
        assert_eq!(refused.status.code(), Some(4), "{source}: {refused:?}");
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(message.contains("every host would get this secret key"), "{source}: {message}");
    }
}

#[test]
fn a_mistyped_key_of_a_configuration_file_is_named_with_its_line() {
    let home = platform();
    let text =
        "listen = '127.0.0.1:0'\nidentity = 'platform/origin/identity'\nstate = 'state'\nparent = []\n";
    fs::write(home.path().join("relay.toml"), text).unwrap();
    let refused = rootcast(home.path(), &["relay", "relay.toml"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("relay.toml:4:1") && message.contains("`parents`"), "{message}");
}

#[test]
fn a_label_that_can_name_no_bundle_is_refused_before_anything_is_made() {
    let home = tempfile::tempdir().unwrap();
    let refused = rootcast(
        home.path(),
        &["init", "platform", "--address", "localhost:7400", "--identity", "agent:web-1,region=EU"],
    );
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8(refused.stderr).unwrap().contains("label `region`"));
    assert!(!home.path().join("platform").exists());
}
