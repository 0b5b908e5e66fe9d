//! Plain directories as sources.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests start git and make files
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{contents, executable, full, link, refusals, refused, since, write};
use rootcast::path::ConfigPath;
use rootcast_bundler::source::{Change, FileKind, Source, SourceError, SourceLimits};
use rustix::fs::{CWD, FileType, Mode};
use std::path::Path;
use tempfile::TempDir;

fn sample() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "rootcast.toml", "channel = 'prod'\n");
    write(root, "base/nginx/nginx.conf", "worker_processes 4;\n");
    write(root, "base/nginx-x", "");
    write(root, "base/check", "#!/bin/sh\n");
    executable(root, "base/check");
    link(root, "base/current", "nginx/nginx.conf");
    write(root, ".git/config", "not configuration");
    write(root, "vendor/.git", "gitdir: elsewhere");
    std::fs::create_dir(root.join("empty")).unwrap();
    dir
}

fn open(dir: &TempDir) -> Source {
    Source::open_directory(dir.path()).unwrap()
}

fn pipe(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn files_links_and_executables_are_listed_and_git_is_not() {
    let dir = sample();
    let source = open(&dir);
    assert!(source.commit().is_empty());
    let expected = [
        ("base/check", FileKind::Executable, "#!/bin/sh\n"),
        ("base/current", FileKind::Symlink, "nginx/nginx.conf"),
        ("base/nginx-x", FileKind::Regular, ""),
        ("base/nginx/nginx.conf", FileKind::Regular, "worker_processes 4;\n"),
        ("rootcast.toml", FileKind::Regular, "channel = 'prod'\n"),
    ];
    let expected =
        expected.map(|(path, kind, content)| (path.to_owned(), (kind, content.as_bytes().to_vec())));
    assert_eq!(contents(&source).into_iter().collect::<Vec<_>>(), expected);
    assert!(full(&source).iter().map(|file| &file.path).is_sorted());
    assert_eq!(source.first_parents(3).unwrap(), Vec::<Vec<u8>>::new());
    assert!(source.at(&[1; 20]).is_err());
}

#[test]
fn only_what_was_accepted_is_compared_with() {
    let dir = sample();
    let source = open(&dir);
    let all = full(&source).len();
    assert_eq!(full(&source).len(), all, "nothing was accepted yet");
    source.accept();
    write(dir.path(), "base/new", "new");
    std::fs::remove_file(dir.path().join("base/check")).unwrap();
    for _ in 0..2 {
        let changes = since(&source, &[]);
        let told = |path: &str| changes.iter().find(|change| change.path().as_str() == path);
        assert!(matches!(told("base/new"), Some(Change::Put(_))));
        assert!(matches!(told("base/check"), Some(Change::Remove(_))));
    }
    source.accept();
    assert!(!since(&source, &[]).iter().any(|change| change.path().as_str() == "base/check"));
    assert_eq!(full(&source).len(), all, "a commit is nothing that a directory knows");
}

#[test]
fn a_file_written_again_in_the_same_tick_is_not_missed() {
    let dir = sample();
    let source = open(&dir);
    let path = dir.path().join("base/nginx/nginx.conf");
    let times = || {
        let stat = rustix::fs::stat(&path).unwrap();
        (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec)
    };
    // Until the file system gives two writes, with a listing between them, one time.
    for round in 0u64.. {
        write(dir.path(), "base/nginx/nginx.conf", format!("first {round:9}"));
        let first = times();
        let _ = source.changes(&[]).unwrap();
        source.accept();
        write(dir.path(), "base/nginx/nginx.conf", format!("other {round:9}"));
        let same = first == times();
        let put = since(&source, &[]).into_iter().any(
            |change| matches!(change, Change::Put(file) if file.path.as_str() == "base/nginx/nginx.conf"),
        );
        assert!(put);
        if same || round == 100 {
            break;
        }
    }
}

#[test]
fn a_directory_that_was_replaced_is_read_anew() {
    let dir = sample();
    let root = dir.path().join("root");
    write(&root, "a", "1");
    let source = Source::open(&root, None).unwrap();
    assert_eq!(full(&source).len(), 1);
    source.accept();
    std::fs::remove_dir_all(&root).unwrap();
    let error = source.changes(&[]).unwrap_err();
    assert!(matches!(error, SourceError::Open { .. }), "gone is not empty: {error}");
    write(&root, "a", "1");
    write(&root, "b", "2");
    let changes = since(&source, &[]);
    assert!(changes.iter().all(|change| matches!(change, Change::Put(_))), "{changes:?}");
}

#[test]
fn threat_18_pipes_sockets_and_escaping_links_are_all_named() {
    let dir = sample();
    let root = dir.path();
    pipe(&root.join("pipe"));
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    link(root, "out/absolute", "/etc/passwd");
    link(root, "out/far", "../../outside");
    link(root, "out/fine", "../base/check");
    write(root, "out/.GIT/config", "");
    write(root, "git~1", "");
    write(root, "line\nbreak", "");
    let expected = [
        "`git~1` has a segment that some systems take for `.git`; rename it",
        "`line\\nbreak` path has a control character",
        "`out/.GIT` has a segment that some systems take for `.git`; rename it",
        "`out/absolute` link target is absolute",
        "`out/far` link target is a link that leaves the bundle",
        "`pipe` is a pipe, not a file, directory or link",
        "`socket` is a socket, not a file, directory or link",
    ];
    assert_eq!(refusals(&open(&dir)), expected);
}

#[test]
fn threat_16_links_are_never_followed() {
    let dir = sample();
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "secret", "secret\n");
    let target = outside.path().to_str().unwrap();

    // A link to a directory is a link, not what is behind it.
    link(dir.path(), "linked", "base");
    let source = open(&dir);
    let files = full(&source);
    assert!(files.iter().any(|file| file.path.as_str() == "linked"));
    assert!(!files.iter().any(|file| file.path.as_str().starts_with("linked/")));
    assert!(matches!(source.read_path("linked/check"), Err(SourceError::NotAFile { .. })));
    assert!(matches!(source.read_path("base/current"), Err(SourceError::NotAFile { .. })));
    let target_of = |path: &str| source.link_at(&ConfigPath::new(path).unwrap()).unwrap();
    assert_eq!(target_of("linked").as_deref(), Some("base"));
    for other in ["base", "linked/current", "rootcast.toml", "nope", "rootcast.toml/x"] {
        assert_eq!(target_of(other), None, "{other}");
    }

    // Planted after the listing: in the place of a directory, and of a file.
    let listed = |path: &str| files.iter().find(|file| file.path.as_str() == path).unwrap();
    let root = dir.path();
    std::fs::rename(root.join("base/nginx"), root.join("moved")).unwrap();
    std::fs::write(outside.path().join("nginx.conf"), "worker_processes 4;\n").unwrap();
    link(root, "base/nginx", target);
    let error = source.read(listed("base/nginx/nginx.conf")).unwrap_err();
    assert!(matches!(error, SourceError::Changed { .. }), "{error}");
    std::fs::remove_file(root.join("rootcast.toml")).unwrap();
    link(root, "rootcast.toml", &format!("{target}/secret"));
    let error = source.read(listed("rootcast.toml")).unwrap_err();
    assert!(matches!(error, SourceError::Changed { .. }), "{error}");
    assert!(matches!(source.read_path("rootcast.toml"), Err(SourceError::NotAFile { .. })));
}

#[test]
fn what_changes_between_listing_and_reading_is_told() {
    let dir = sample();
    let root = dir.path();
    write(root, "grown", "1");
    write(root, "gone", "1");
    write(root, "replaced", "1");
    write(root, "piped", "1");
    link(root, "linked", "grown");
    let source = open(&dir);
    let files = full(&source);
    write(root, "grown", "12");
    std::fs::remove_file(root.join("gone")).unwrap();
    write(root, "other", "1");
    std::fs::rename(root.join("other"), root.join("replaced")).unwrap();
    std::fs::remove_file(root.join("piped")).unwrap();
    pipe(&root.join("piped"));
    std::fs::remove_file(root.join("linked")).unwrap();
    link(root, "linked", "other");
    for path in ["grown", "gone", "replaced", "piped", "linked"] {
        let file = files.iter().find(|file| file.path.as_str() == path).unwrap();
        let error = source.read(file).unwrap_err();
        assert!(matches!(error, SourceError::Changed { .. }), "{path}: {error}");
    }
}

#[test]
fn single_files_are_read_by_path() {
    let dir = sample();
    let source = open(&dir);
    assert_eq!(source.read_path("rootcast.toml").unwrap().unwrap(), b"channel = 'prod'\n");
    for missing in ["nope", "base/nope/x", "../x", ""] {
        assert_eq!(source.read_path(missing).unwrap(), None, "{missing:?}");
    }
    pipe(&dir.path().join("pipe"));
    for other in ["base", "pipe"] {
        let error = source.read_path(other).unwrap_err();
        assert!(matches!(error, SourceError::NotAFile { .. }), "{other}: {error}");
    }
}

#[test]
fn threat_28_limits_are_named() {
    let dir = sample();
    let mut source = open(&dir);
    source.set_limits(SourceLimits { files: 4, file_size: 1000 });
    let error = source.changes(&[]).unwrap_err();
    assert!(matches!(error, SourceError::TooManyFiles { limit: 4, .. }), "{error}");
    source.set_limits(SourceLimits { files: 5, file_size: 16 });
    let over = "has 17 bytes, over the limit of 16; raise limits.file_size or remove it";
    let more = "has 20 bytes, over the limit of 16; raise limits.file_size or remove it";
    let expected = [format!("`base/nginx/nginx.conf` {more}"), format!("`rootcast.toml` {over}")];
    assert_eq!(refusals(&source), expected);
    let error = source.read_path("rootcast.toml").unwrap_err();
    assert!(error.is_invalid_source() && error.to_string().contains(over), "{error}");

    // The whole path cannot be named to the system at once, so it is made step by step.
    let deep = tempfile::tempdir().unwrap();
    let mut at = rustix::fs::open(deep.path(), rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..20 {
        rustix::fs::mkdirat(&at, &*name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &*name, rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    }
    write(deep.path(), &("s/".repeat(70) + "file"), "");
    let (files, _) = refused(&open(&deep));
    let messages: Vec<String> = files.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].starts_with("`dddd") && messages[0].ends_with("longer than 1024 bytes"));
    assert!(messages[1].starts_with("`s/s/") && messages[1].ends_with("more than 64 segments"));
}
