//! Git repositories as sources: what is listed is what `git` lists.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests start git and make files
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Repo, contents, full, since};
use proptest::prelude::*;
use rootcast::path::ConfigPath;
use rootcast_bundler::source::{Change, Changes, FileKind, Source, SourceError, SourceFile};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What `git ls-tree` and `git cat-file` say of a commit.
fn listed_by_git(repo: &Repo, revision: &str) -> BTreeMap<String, (FileKind, Vec<u8>)> {
    let listing = repo.git_bytes(&["ls-tree", "-r", "-z", revision], b"");
    let listing = String::from_utf8(listing).unwrap();
    let lines: Vec<(&str, &str)> =
        listing.split_terminator('\0').map(|line| line.split_once('\t').unwrap()).collect();
    let ids: String =
        lines.iter().map(|(head, _)| head.rsplit(' ').next().unwrap().to_owned() + "\n").collect();
    // For each id: a line of id, type and size; the bytes; a line feed.
    let blobs = repo.git_bytes(&["cat-file", "--batch=%(objecttype) %(objectsize)"], ids.as_bytes());
    let mut blobs = blobs.as_slice();
    let mut files = BTreeMap::new();
    for (head, path) in lines {
        let kind = match head.split(' ').next().unwrap() {
            "100644" => FileKind::Regular,
            "100755" => FileKind::Executable,
            "120000" => FileKind::Symlink,
            other => panic!("{other}"),
        };
        let line = blobs.split(|byte| *byte == b'\n').next().unwrap();
        let size = std::str::from_utf8(line).unwrap().strip_prefix("blob ").unwrap();
        let size: usize = size.parse().unwrap();
        let content = &blobs[line.len() + 1..][..size];
        files.insert(path.to_owned(), (kind, content.to_vec()));
        blobs = &blobs[line.len() + size + 2..];
    }
    assert!(blobs.is_empty());
    files
}

fn sample() -> Repo {
    let repo = Repo::new();
    repo.write("rootcast.toml", "channel = 'prod'\n");
    repo.write("base/nginx/nginx.conf", "worker_processes 4;\n".repeat(40));
    repo.write("base/nginx-x", "sorts between `nginx` and `nginx/`\n");
    repo.write("base/empty", "");
    repo.write("base/sp ace/\u{e9}t\u{e9}", "text\r\nwith\r\nCRLF\r\n");
    repo.write("base/bin/check", "#!/bin/sh\n");
    repo.executable("base/bin/check");
    repo.link("base/current", "nginx/nginx.conf");
    repo.link("base/up/link", "../nginx");
    repo.commit();
    repo
}

#[test]
fn listing_and_bytes_are_those_of_git_loose_and_packed() {
    let repo = sample();
    let expected = listed_by_git(&repo, "HEAD");
    assert_eq!(expected.len(), 8);
    assert_eq!(contents(&repo.source()), expected);

    for n in 0..20 {
        repo.write("base/nginx/nginx.conf", format!("# {n}\n") + &"worker_processes 4;\n".repeat(40));
        repo.commit();
    }
    repo.git(&["gc", "-q", "--prune=now"]);
    assert!(repo.git(&["count-objects", "-v"]).contains("count: 0"), "all is packed");
    let packed = contents(&repo.source());
    assert_eq!(packed, listed_by_git(&repo, "HEAD"));
    assert!(packed["base/nginx/nginx.conf"].1.starts_with(b"# 19"));
    let paths: Vec<_> = full(&repo.source()).into_iter().map(|file| file.path).collect();
    assert!(paths.is_sorted());
}

#[test]
fn every_form_of_a_repository_is_found() {
    let repo = sample();
    let expected = contents(&repo.source());
    let other = tempfile::tempdir().unwrap();
    let (bare, tree) = (other.path().join("bare"), other.path().join("tree"));
    repo.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    repo.git(&["worktree", "add", "-q", "--detach", tree.to_str().unwrap()]);
    for path in [repo.path().join(".git"), bare, tree.clone(), tree.join(".git")] {
        let source = Source::open(&path, None).unwrap();
        assert_eq!(contents(&source), expected, "{}", path.display());
    }
    // A directory inside a work tree is what it looks like.
    let inside = Source::open(&repo.path().join("base/nginx"), None).unwrap();
    assert!(inside.commit().is_empty());
    assert_eq!(full(&inside).len(), 1);
}

#[test]
fn a_repository_of_sha256_is_read() {
    let repo = Repo::with(&["--object-format=sha256"]);
    repo.write("a/b", "one");
    let first = repo.commit();
    repo.write("a/b", "two");
    let second = repo.commit();
    let source = repo.source();
    assert_eq!((first.len(), source.commit()), (32, second.as_slice()));
    assert_eq!(contents(&source), listed_by_git(&repo, "HEAD"));
    assert_eq!(since(&source, &first).len(), 1);
}

#[test]
fn revisions_are_branches_tags_and_whole_ids() {
    let repo = sample();
    let first = repo.id("HEAD");
    repo.git(&["tag", "-a", "v1", "-m", "annotated"]);
    repo.git(&["branch", "old/stable"]);
    repo.write("base/new", "");
    let second = repo.commit();
    repo.git(&["pack-refs", "--all"]);
    let tag = repo.git(&["rev-parse", "v1"]);
    assert_ne!(hex::decode(&tag).unwrap(), first, "the tag is an object of its own");

    let at = |revision: &str| Source::open(repo.path(), Some(revision)).map(|s| s.commit().to_vec());
    for name in ["v1", "old/stable", "refs/tags/v1", &tag, &hex::encode(&first)] {
        assert_eq!(at(name).unwrap(), first, "{name}");
    }
    for name in ["HEAD", "main", "refs/heads/main", &hex::encode(&second)] {
        assert_eq!(at(name).unwrap(), second, "{name}");
    }
    repo.git(&["checkout", "-q", "--detach", "v1"]);
    assert_eq!(repo.source().commit(), first);

    for missing in ["nope", "", "..", "HEAD~1", "\0", &"0".repeat(40), &hex::encode(&first)[..39]] {
        let error = at(missing).unwrap_err();
        assert!(matches!(error, SourceError::NoRevision { .. }), "{missing:?}: {error}");
        assert!(error.to_string().contains("give a branch, a tag or a whole commit id"), "{error}");
    }
    let blob = repo.blob(b"no commit");
    assert!(matches!(at(&blob), Err(SourceError::NoRevision { .. })));
}

#[test]
fn what_is_no_readable_repository_is_told() {
    let empty = Repo::new();
    let open = |path: &Path| Source::open(path, None).unwrap_err();
    let error = open(empty.path());
    assert!(matches!(error, SourceError::NoCommit { .. }), "{error}");

    let repo = sample();
    std::fs::remove_file(repo.path().join(".git/HEAD")).unwrap();
    let error = open(repo.path());
    assert!(matches!(error, SourceError::NotARepository { .. }), "not plain files: {error}");

    let plain = tempfile::tempdir().unwrap();
    let error = Source::open(plain.path(), Some("main")).unwrap_err();
    assert!(matches!(error, SourceError::RevisionOfDirectory { .. }), "{error}");
    let error = open(&plain.path().join("missing"));
    assert!(matches!(error, SourceError::Open { .. }), "{error}");
}

#[test]
fn differences_say_what_happened_to_a_path() {
    let repo = Repo::new();
    for path in ["kept/a", "edited", "moved/from", "mode", "to_dir", "to_file/x", "to_link"] {
        repo.write(path, format!("content of {path}"));
    }
    let first = repo.commit();
    repo.write("edited", "content of something else");
    repo.git(&["mv", "moved/from", "moved/to"]);
    repo.executable("mode");
    std::fs::remove_file(repo.path().join("to_dir")).unwrap();
    repo.write("to_dir/inner", "x");
    std::fs::remove_dir_all(repo.path().join("to_file")).unwrap();
    repo.write("to_file", "x");
    std::fs::remove_file(repo.path().join("to_link")).unwrap();
    repo.link("to_link", "edited");
    repo.commit();

    let source = repo.source();
    let told: Vec<String> = since(&source, &first)
        .iter()
        .map(|change| match change {
            Change::Put(file) => format!("{:?} {}", file.kind, file.path),
            Change::Remove(path) => format!("- {path}"),
        })
        .collect();
    let expected = [
        "Regular edited",
        "Executable mode",
        "- moved/from",
        "Regular moved/to",
        "- to_dir",
        "Regular to_dir/inner",
        "Regular to_file",
        "- to_file/x",
        "Symlink to_link",
    ];
    assert_eq!(told, expected);
    assert_eq!(since(&source, source.commit()), []);
}

#[test]
fn an_unknown_commit_gives_the_whole_listing() {
    let repo = sample();
    let source = repo.source();
    let tree = repo.id("HEAD^{tree}");
    for unknown in [&[][..], &[7; 20], &[7; 32], &[7; 5], &tree] {
        let changes = source.changes(unknown).unwrap();
        assert!(matches!(changes, Changes::Full(files) if files.len() == 8), "{unknown:?}");
    }
}

#[test]
fn a_source_follows_its_branch_through_commits_and_repacking() {
    let repo = sample();
    let mut source = repo.source();
    let first = source.commit().to_vec();
    assert!(!source.refresh().unwrap());
    repo.write("base/new", "new");
    let second = repo.commit();
    assert_eq!(source.head().unwrap(), second);
    assert_eq!(source.commit(), first, "asking moves nothing");
    repo.git(&["gc", "-q", "--prune=now"]);
    assert!(source.refresh().unwrap());
    assert_eq!(source.commit(), second);
    assert_eq!(since(&source, &first).len(), 1);
    assert_eq!(contents(&source), listed_by_git(&repo, "HEAD"));

    let mut old = source.at(&first).unwrap();
    assert_eq!(old.commit(), first);
    assert_eq!(contents(&old).len(), 8);
    assert!(!old.refresh().unwrap(), "a commit stays what it is");
    assert!(matches!(source.at(&[9; 20]), Err(SourceError::NoRevision { .. })));
    repo.git(&["branch", "abcd"]);
    assert!(matches!(source.at(&[0xab, 0xcd]), Err(SourceError::NoRevision { .. })));

    repo.git(&["checkout", "-q", "--detach"]);
    repo.git(&["branch", "-D", "main"]);
    let mut gone = Source::open(repo.path(), Some("abcd")).unwrap();
    repo.git(&["branch", "-D", "abcd"]);
    assert!(gone.refresh().is_err());
    assert_eq!(gone.commit(), second);
}

#[test]
fn first_parents_come_oldest_first() {
    let repo = sample();
    let mut commits = vec![repo.id("HEAD")];
    repo.git(&["checkout", "-q", "-b", "side"]);
    repo.write("side", "");
    repo.commit();
    repo.git(&["checkout", "-q", "main"]);
    repo.write("own", "");
    commits.push(repo.commit());
    repo.git(&["merge", "-q", "--no-ff", "side", "-m", "merge"]);
    commits.push(repo.id("HEAD"));

    let source = repo.source();
    assert_eq!(source.first_parents(10).unwrap(), commits);
    assert_eq!(source.first_parents(2).unwrap(), commits[1..]);
    assert_eq!(source.first_parents(0).unwrap(), Vec::<Vec<u8>>::new());
    let other = tempfile::tempdir().unwrap();
    let url = format!("file://{}", repo.path().display());
    repo.git(&["clone", "-q", "--depth", "2", &url, other.path().to_str().unwrap()]);
    let shallow = Source::open(other.path(), None).unwrap();
    assert_eq!(shallow.first_parents(10).unwrap(), commits[1..]);
}

#[test]
fn single_files_are_read_by_path() {
    let repo = sample();
    let source = repo.source();
    assert_eq!(source.read_path("rootcast.toml").unwrap().unwrap(), b"channel = 'prod'\n");
    assert_eq!(source.read_path("base/bin/check").unwrap().unwrap(), b"#!/bin/sh\n");
    for missing in ["nope", "base/nope", "rootcast.toml/x", "../rootcast.toml", "", "/"] {
        assert_eq!(source.read_path(missing).unwrap(), None, "{missing:?}");
    }
    for not_a_file in ["base", "base/current"] {
        let error = source.read_path(not_a_file).unwrap_err();
        assert!(matches!(error, SourceError::NotAFile { .. }), "{error}");
    }
    let link = |path: &str| source.link_at(&ConfigPath::new(path).unwrap()).unwrap();
    assert_eq!(link("base/current").as_deref(), Some("nginx/nginx.conf"));
    for other in ["base", "rootcast.toml", "nope", "rootcast.toml/x"] {
        assert_eq!(link(other), None, "{other}");
    }
}

#[test]
fn a_source_can_move_between_threads() {
    let repo = sample();
    let source = repo.source();
    let count = std::thread::spawn(move || contents(&source).len()).join().unwrap();
    assert_eq!(count, 8);
}

#[test]
fn a_file_of_another_kind_of_source_is_not_read() {
    let repo = sample();
    let directory = Source::open_directory(repo.path()).unwrap();
    let file = full(&directory).swap_remove(0);
    assert!(matches!(repo.source().read(&file), Err(SourceError::ForeignFile { .. })));
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Put { path: String, mode: &'static str, content: u8 },
    Remove { path: String },
}

fn step() -> impl Strategy<Value = Step> {
    // Few names, so that paths meet, and files and directories take each other's place.
    let name = prop::sample::select(vec!["a", "b", "a.b", "a-", "ab"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|segments| segments.join("/"));
    let mode = prop::sample::select(vec!["100644", "100755", "120000"]);
    prop_oneof![
        3 => (path.clone(), mode, 0..4u8)
            .prop_map(|(path, mode, content)| Step::Put { path, mode, content }),
        1 => path.prop_map(|path| Step::Remove { path }),
    ]
}

/// Makes the history with one git process. Commits are `refs/heads/c0`, `c1`, …
fn import(history: &[Vec<Step>]) -> Repo {
    let repo = Repo::new();
    let mut stream = String::new();
    for (n, steps) in history.iter().enumerate() {
        stream += &format!("commit refs/heads/c{n}\ncommitter C <c@x> 1700000000 +0000\ndata 1\nx\n");
        if n > 0 {
            stream += &format!("from refs/heads/c{}\n", n - 1);
        }
        for step in steps {
            stream += &match step {
                Step::Put { path, mode, content } => {
                    format!("M {mode} inline {path}\ndata 2\nc{content}\n")
                }
                Step::Remove { path } => format!("D {path}\n"),
            };
        }
        stream.push('\n');
    }
    repo.git_bytes(&["fast-import", "--quiet"], stream.as_bytes());
    repo
}

/// What turns one listing into another.
fn difference(old: &[SourceFile], new: &[SourceFile]) -> Vec<Change> {
    let map = |files: &[SourceFile]| -> BTreeMap<_, _> {
        files.iter().map(|file| (file.path.clone(), file.clone())).collect()
    };
    let (old, new) = (map(old), map(new));
    let mut changes: BTreeMap<_, _> = old
        .keys()
        .filter(|path| !new.contains_key(*path))
        .map(|path| (path.clone(), Change::Remove(path.clone())))
        .collect();
    let put = new.iter().filter(|(path, file)| old.get(*path) != Some(*file));
    changes.extend(put.map(|(path, file)| (path.clone(), Change::Put(file.clone()))));
    changes.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn since_is_the_difference_of_two_listings(
        history in prop::collection::vec(prop::collection::vec(step(), 1..8), 2..7)
    ) {
        let repo = import(&history);
        let open = |n: usize| Source::open(repo.path(), Some(&format!("c{n}"))).unwrap();
        let sources: Vec<Source> = (0..history.len()).map(open).collect();
        let listings: Vec<Vec<SourceFile>> = sources.iter().map(full).collect();
        prop_assert_eq!(
            contents(sources.last().unwrap()),
            listed_by_git(&repo, &format!("c{}", history.len() - 1))
        );
        for (new, source) in sources.iter().enumerate() {
            for (old, before) in sources.iter().enumerate() {
                let expected = difference(&listings[old], &listings[new]);
                prop_assert_eq!(since(source, before.commit()), expected, "{} to {}", old, new);
            }
        }
    }
}

/// Runs this test again as a child process that `GIT_…` variables point elsewhere.
#[test]
fn threat_18_the_environment_has_no_say() {
    const REPO: &str = "ROOTCAST_TEST_REPOSITORY";
    if let Some(path) = std::env::var_os(REPO) {
        let source = Source::open(Path::new(&path), None).unwrap();
        assert_eq!(contents(&source)["file"].1, b"right");
        return;
    }
    let (right, wrong) = (Repo::new(), Repo::new());
    right.write("file", "right");
    right.commit();
    wrong.write("file", "wrong");
    wrong.commit();
    let wrong = wrong.path().join(".git");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "threat_18_the_environment_has_no_say"])
        .env(REPO, right.path())
        .env("GIT_DIR", &wrong)
        .env("GIT_OBJECT_DIRECTORY", wrong.join("objects"))
        .env("GIT_NAMESPACE", "elsewhere")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "core.worktree")
        .env("GIT_CONFIG_VALUE_0", "/nowhere")
        .status()
        .unwrap();
    assert!(status.success());
}
