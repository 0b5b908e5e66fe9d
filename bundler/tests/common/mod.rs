//! Small git repositories, made with the real `git` and with nothing of the
//! machine's own settings.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of this

use rootcast_bundler::source::{Change, Changes, FileKind, RefusedFile, Source, SourceError, SourceFile};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

pub struct Repo {
    pub dir: TempDir,
}

impl Repo {
    pub fn new() -> Self {
        Self::with(&[])
    }

    pub fn with(options: &[&str]) -> Self {
        let repo = Self { dir: tempfile::tempdir().unwrap() };
        repo.git(&[&["init", "-q", "-b", "main"], options].concat());
        repo
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn git(&self, args: &[&str]) -> String {
        String::from_utf8(self.git_bytes(args, b"")).unwrap().trim_end().to_owned()
    }

    /// Runs git with `input`; its output.
    pub fn git_bytes(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = git(self.path())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join().unwrap(); // git may have ended before it read all
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {said}");
        output.stdout
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        write(self.path(), path, content);
    }

    pub fn link(&self, path: &str, target: &str) {
        link(self.path(), path, target);
    }

    pub fn executable(&self, path: &str) {
        executable(self.path(), path);
    }

    /// Commits all that is in the work tree.
    pub fn commit(&self) -> Vec<u8> {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "change"]);
        self.id("HEAD")
    }

    /// The id of a revision, in bytes.
    pub fn id(&self, revision: &str) -> Vec<u8> {
        hex::decode(self.git(&["rev-parse", revision])).unwrap()
    }

    pub fn blob(&self, content: &[u8]) -> String {
        self.object("blob", content)
    }

    /// Writes any bytes as an object, right or wrong.
    pub fn object(&self, kind: &str, content: &[u8]) -> String {
        let args = ["hash-object", "-t", kind, "-w", "--literally", "--stdin"];
        String::from_utf8(self.git_bytes(&args, content)).unwrap().trim_end().to_owned()
    }

    /// Writes a tree as given: mode, name, id; in this order and with any name.
    pub fn tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(&hex::decode(id).unwrap());
        }
        self.object("tree", &bytes)
    }

    /// Commits a tree and moves `main` there.
    pub fn commit_tree(&self, tree: &str) -> Vec<u8> {
        let commit = self.git(&["commit-tree", tree, "-m", "forged"]);
        self.git(&["update-ref", "refs/heads/main", &commit]);
        hex::decode(commit).unwrap()
    }

    pub fn source(&self) -> Source {
        Source::open(self.path(), None).unwrap()
    }
}

/// Git in a directory, with no settings but the repository's own.
pub fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GIT_") {
            command.env_remove(name);
        }
    }
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_SYSTEM", "/dev/null"),
        ("GIT_AUTHOR_NAME", "A"),
        ("GIT_AUTHOR_EMAIL", "a@example.org"),
        ("GIT_AUTHOR_DATE", "1700000000 +0000"),
        ("GIT_COMMITTER_NAME", "C"),
        ("GIT_COMMITTER_EMAIL", "c@example.org"),
        ("GIT_COMMITTER_DATE", "1700000000 +0000"),
        ("LC_ALL", "C"),
    ] {
        command.env(name, value);
    }
    command
}

pub fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = made(root, path);
    std::fs::write(path, content).unwrap();
}

pub fn link(root: &Path, path: &str, target: &str) {
    std::os::unix::fs::symlink(target, made(root, path)).unwrap();
}

pub fn executable(root: &Path, path: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(root.join(path), PermissionsExt::from_mode(0o755)).unwrap();
}

fn made(root: &Path, path: &str) -> PathBuf {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

/// A whole listing, from nothing.
pub fn full(source: &Source) -> Vec<SourceFile> {
    match source.changes(&[0; 3]).unwrap() {
        Changes::Full(files) => files,
        Changes::Since(_) => panic!("a listing relative to nothing"),
    }
}

/// What changed, which must be relative.
pub fn since(source: &Source, since: &[u8]) -> Vec<Change> {
    match source.changes(since).unwrap() {
        Changes::Since(changes) => changes,
        Changes::Full(_) => panic!("a whole listing"),
    }
}

/// Listing by path, with every file's bytes.
pub fn contents(source: &Source) -> BTreeMap<String, (FileKind, Vec<u8>)> {
    let read = |file: SourceFile| {
        let bytes = source.read(&file).unwrap();
        assert_eq!(bytes.len() as u64, file.size, "{}", file.path);
        (file.path.to_string(), (file.kind, bytes))
    };
    full(source).into_iter().map(read).collect()
}

/// The files that a source refuses, and how many more.
pub fn refused(source: &Source) -> (Vec<RefusedFile>, u64) {
    match source.changes(&[]).unwrap_err() {
        SourceError::Refused { refused, .. } => (refused.files, refused.more),
        other => panic!("{other}"),
    }
}

/// The messages of what a source refuses, sorted.
pub fn refusals(source: &Source) -> Vec<String> {
    let (files, more) = refused(source);
    assert_eq!(more, 0);
    let mut messages: Vec<String> = files.iter().map(ToString::to_string).collect();
    messages.sort();
    messages
}
