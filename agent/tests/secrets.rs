//! A host's secrets in memory, and the slots that lead to them.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

use rootcast::entry::Entry;
use rootcast::id::BlobId;
use rootcast::limits::{MAX_BLOB, MAX_HOST_SECRETS};
use rootcast::object::ObjectMap;
use rootcast::path::ConfigPath;
use rootcast_age::{DecryptionKey, encrypt};
use rootcast_agent::secrets::{SecretError, Secrets, ViewSecrets};
use rootcast_agent::slots::{Fault, SlotError, Slots};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Host {
    memory: TempDir,
    objects: ObjectMap,
}

fn key(seed: u8) -> DecryptionKey {
    DecryptionKey::from_bytes([seed; 32].into())
}

fn path(text: &str) -> ConfigPath {
    ConfigPath::new(text).unwrap()
}

impl Host {
    fn new() -> Self {
        Self { memory: tempfile::tempdir_in("/dev/shm").unwrap(), objects: ObjectMap::new() }
    }

    fn directory(&self) -> PathBuf {
        self.memory.path().join("not/there/yet")
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(Some(key(1)), Some(self.directory()))
    }

    fn add(&mut self, file: Vec<u8>) -> (BlobId, u64) {
        let (id, size) = (BlobId::of(&file), file.len() as u64);
        self.objects.insert(id.into(), file.into());
        (id, size)
    }

    /// A secret for the host whose key has this seed.
    fn secret(&mut self, text: &str, seed: u8) -> (BlobId, u64) {
        let mut random = |bytes: &mut [u8]| bytes.fill(text.len() as u8);
        let file = encrypt(text.as_bytes(), &[key(seed).recipient()], &mut random).unwrap();
        self.add(file)
    }

    fn file(&self, id: &BlobId) -> PathBuf {
        self.directory().join(id.to_string())
    }
}

fn one(secret: (BlobId, u64)) -> ViewSecrets {
    BTreeMap::from([(path("a.key"), secret)])
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_25_files_are_for_their_owner_alone_and_kept_while_they_are_right() {
    let mut host = Host::new();
    let secret = host.secret("hunter2", 1);
    let file = host.file(&secret.0);
    host.secrets().put(&one(secret), &host.objects).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"hunter2");
    assert_eq!((mode(&file), mode(&host.directory())), (0o400, 0o700));
    let inode = fs::metadata(&file).unwrap().ino();
    let mut secrets = host.secrets();
    secrets.put(&one(secret), &host.objects).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode, "what is right is left alone");
    // Opened to others, and removed, behind the back of the same process.
    fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    secrets.put(&one(secret), &host.objects).unwrap();
    assert_eq!(mode(&file), 0o400);
    fs::remove_file(&file).unwrap();
    secrets.put(&one(secret), &host.objects).unwrap();
    assert_eq!(mode(&file), 0o400);
    drop(secrets);
    // Other bytes of the same length, before the next.
    fs::remove_file(&file).unwrap();
    fs::write(&file, "hunter3").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    host.secrets().put(&one(secret), &host.objects).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"hunter2");
}

#[test]
fn a_26_what_no_slot_leads_to_is_removed_and_what_others_put_there_stays() {
    let mut host = Host::new();
    let (old, new) = (host.secret("old", 1), host.secret("newer", 1));
    let mut secrets = host.secrets();
    secrets.put(&one(old), &host.objects).unwrap();
    secrets.put(&one(new), &host.objects).unwrap();
    fs::write(host.directory().join("notes"), "").unwrap();
    secrets.keep_only(&BTreeSet::from([new.0])).unwrap();
    assert!(!host.file(&old.0).exists() && host.file(&new.0).exists());
    drop(secrets);
    // Also those of a process before this one.
    host.secrets().keep_only(&BTreeSet::new()).unwrap();
    let left: Vec<_> =
        fs::read_dir(host.directory()).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(left, ["notes"]);
}

#[test]
fn a_22_a_directory_that_is_not_this_hosts_memory_alone_is_refused() {
    let mut host = Host::new();
    let secret = one(host.secret("hunter2", 1));
    let put = |directory: Option<&Path>| {
        Secrets::new(Some(key(1)), directory.map(Path::to_owned)).put(&secret, &host.objects)
    };
    assert!(matches!(put(None), Err(SecretError::NoDirectory)));
    // There on every machine, and neither tmpfs nor ramfs.
    let error = put(Some(Path::new("/proc/sys"))).unwrap_err();
    assert!(matches!(error, SecretError::NotInMemory { .. }), "{error}");
    let open = host.memory.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(put(Some(&open)), Err(SecretError::Exposed { mode: 0o750, .. })));
    let link = host.memory.path().join("link");
    std::os::unix::fs::symlink(&open, &link).unwrap();
    assert!(matches!(put(Some(&link)), Err(SecretError::Io { .. })));
    let mut first = host.secrets();
    first.put(&secret, &host.objects).unwrap();
    assert!(matches!(host.secrets().put(&secret, &host.objects), Err(SecretError::Busy { .. })));
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
}

#[test]
fn a_24_what_does_not_decrypt_is_refused_and_what_is_for_others_is_left_out() {
    let mut host = Host::new();
    let (ours, theirs) = (host.secret("ours", 1), host.secret("theirs!", 2));
    let entry = |(id, size)| Entry::Secret { id, size };
    let all = BTreeMap::from([(path("ours"), entry(ours)), (path("theirs"), entry(theirs))]);
    let mut view = all.clone();
    let found = host.secrets().filter(&mut view, &host.objects).unwrap();
    assert_eq!(found, BTreeMap::from([(path("ours"), ours)]));
    assert_eq!(view.keys().collect::<Vec<_>>(), [&path("ours")]);
    // A host without a key has no secrets.
    let mut view = all;
    assert!(Secrets::default().filter(&mut view, &host.objects).unwrap().is_empty() && view.is_empty());

    let mut file = host.objects[&ours.0.into()].to_vec();
    *file.last_mut().unwrap() ^= 1;
    let broken = host.add(file);
    let error = host.secrets().put(&one(broken), &host.objects).unwrap_err();
    assert!(matches!(&error, SecretError::Broken { path, .. } if path.as_str() == "a.key"), "{error}");
    let nonsense = host.add(b"no age file".to_vec());
    let mut view = BTreeMap::from([(path("a.key"), entry(nonsense))]);
    let error = host.secrets().filter(&mut view, &host.objects).unwrap_err();
    assert!(matches!(error, SecretError::Broken { .. }), "{error}");
    assert_eq!(fs::read_dir(host.directory()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn l_18_more_than_a_host_may_hold_is_refused_before_any_is_read() {
    let host = Host::new();
    let secret = |n| (path(&format!("f{n}")), (BlobId::of(b"absent"), MAX_BLOB));
    let many = (0..=MAX_HOST_SECRETS / MAX_BLOB).map(secret).collect();
    let outcome = host.secrets().put(&many, &host.objects);
    assert!(matches!(outcome, Err(SecretError::TooMany { size }) if size == MAX_HOST_SECRETS + MAX_BLOB));
}

#[test]
fn a_21_a_slot_has_a_link_for_a_secret_and_can_say_which() {
    let mut host = Host::new();
    let (old, new) = (host.secret("old", 1), host.secret("newer", 1));
    let home = TempDir::new().unwrap();
    let mut slots = Slots::open(home.path()).unwrap();
    let view = |(id, size)| BTreeMap::from([(path("tls/site.key"), Entry::Secret { id, size })]);
    assert!(matches!(slots.stage_full(&view(old), &host.objects), Err(SlotError::NoSecrets { .. })));
    slots.set_secrets(host.directory());
    for _ in 0..2 {
        let staged = slots.stage_full(&view(old), &host.objects).unwrap();
        slots.activate(staged).unwrap();
    }
    let link = home.path().join("current/tls/site.key");
    assert_eq!(fs::read_link(&link).unwrap(), host.file(&old.0));
    assert!(slots.check_active(&view(old), &host.objects).unwrap().is_whole());
    let changes = BTreeMap::from([(path("tls/site.key"), Some(Entry::Secret { id: new.0, size: new.1 }))]);
    let staged = slots.stage_changes(&changes, &host.objects).unwrap();
    assert_eq!((staged.report().written, staged.report().bytes), (1, 1));
    slots.activate(staged).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), host.file(&new.0));
    let checked = slots.check_active(&view(old), &host.objects).unwrap();
    assert_eq!(checked.differences[0].fault, Fault::Content);
    // What is to be in memory while this slot is live, whatever the newest release says.
    assert_eq!(slots.active_secrets(), BTreeMap::from([(path("tls/site.key"), (new.0, 0))]));
}
