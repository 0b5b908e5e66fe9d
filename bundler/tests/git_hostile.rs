//! Hostile and unfit git repositories: threats 15, 18 and 28 of specs/threats.md.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests start git and make files
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Repo, contents, full, refusals, refused, since};
use rootcast_bundler::source::{Changes, Refusal, SourceError, SourceLimits};

#[test]
fn threat_18_nothing_is_checked_out_and_nothing_is_run() {
    let repo = Repo::new();
    let marker = repo.path().join(".git/ran");
    let touch = format!("touch {}; true", marker.display());
    let filter = format!("touch {}; cat", marker.display());
    repo.write("file", "plain\n");
    repo.write(".gitattributes", "* filter=evil ident eol=crlf diff=evil\n");
    repo.commit();
    for (key, value) in [
        ("filter.evil.smudge", filter.as_str()),
        ("filter.evil.clean", &filter),
        ("filter.evil.required", "true"),
        ("diff.evil.textconv", &filter),
        ("core.fsmonitor", &touch),
        ("core.sshCommand", &touch),
        ("core.pager", &touch),
        ("core.hooksPath", ".git/hooks"),
    ] {
        repo.git(&["config", key, value]);
    }
    for hook in ["post-checkout", "post-index-change", "reference-transaction"] {
        repo.write(&format!(".git/hooks/{hook}"), format!("#!/bin/sh\n{touch}\n"));
        repo.executable(&format!(".git/hooks/{hook}"));
    }
    // The trap works: git itself walks into it.
    repo.git(&["checkout", "-q", "HEAD", "--", "."]);
    repo.git(&["checkout", "-q", "--detach"]);
    assert!(marker.exists());
    std::fs::remove_file(&marker).unwrap();
    std::fs::remove_file(repo.path().join("file")).unwrap();
    std::fs::remove_file(repo.path().join(".git/index")).unwrap();

    let mut source = repo.source();
    assert_eq!(contents(&source)["file"].1, b"plain\n", "as it is in the object");
    assert!(source.read_path("file").unwrap().is_some());
    source.refresh().unwrap();
    source.first_parents(5).unwrap();
    assert!(!marker.exists());
    assert!(!repo.path().join("file").exists());
    assert!(!repo.path().join(".git/index").exists());
}

#[test]
fn threat_18_submodules_and_escaping_links_are_all_named() {
    let repo = Repo::new();
    repo.write("fine", "");
    let commit = repo.commit();
    let empty = repo.blob(b"");
    let link = |target: &[u8]| repo.blob(target);
    let inner = repo.tree(&[
        ("120000", b"absolute", &link(b"/etc/passwd")),
        ("120000", b"empty", &empty),
        ("120000", b"far", &link(b"../../outside")),
        ("120000", b"inside", &link(b"../fine")),
        ("120000", b"not_text", &link(b"\xff")),
        ("120000", b"sly", &link(b"x/../../../outside")),
        ("160000", b"sub", &hex::encode(&commit)),
        ("120000", b"too_long", &link(&[b'x'; 2000])),
    ]);
    let tree = repo.tree(&[
        ("40000", b"dir", &inner),
        ("100644", b"fine", &empty),
        ("160000", b"vendor", &hex::encode(&commit)),
    ]);
    repo.commit_tree(&tree);
    let expected = [
        "`dir/absolute` link target is absolute",
        "`dir/empty` link target is empty",
        "`dir/far` link target is a link that leaves the bundle",
        "`dir/not_text` link target is not UTF-8",
        "`dir/sly` link target is a link ",
        "`dir/sub` is a submodule; commit its files instead, or remove it",
        "`dir/too_long` link target is longer than 1024 bytes",
        "`vendor` is a submodule; commit its files instead, or remove it",
    ];
    let told = refusals(&repo.source());
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}");
    }
    let error = repo.source().changes(&commit).unwrap_err();
    assert!(error.is_invalid_source(), "relative listings judge what changed: {error}");
    assert!(error.to_string().contains("\n  `vendor` is a submodule"), "{error}");
}

#[test]
fn threat_18_variants_of_dot_git_are_named() {
    let repo = Repo::new();
    let empty = repo.blob(b"");
    let inner = repo.tree(&[("100644", b"config", &empty)]);
    let names: [&[u8]; 7] =
        [b".GIT", b".git", b".git ", b".git.", b".git:$DATA", "\u{200c}.git".as_bytes(), b"GIT~1"];
    let mut files: Vec<(&str, &[u8], &str)> =
        names.iter().map(|name| ("100644", *name, empty.as_str())).collect();
    files.push(("100644", b".gitignore", &empty));
    let files = repo.tree(&files);
    let mut directories: Vec<(&str, &[u8], &str)> =
        names.iter().map(|name| ("40000", *name, inner.as_str())).collect();
    directories.push(("40000", b"files", &files));
    repo.commit_tree(&repo.tree(&directories));
    let refused = refusals(&repo.source());
    assert_eq!(refused.len(), 14, "{refused:?}");
    assert!(refused.iter().all(|message| message.contains("take for `.git`")), "{refused:?}");
}

#[test]
fn threat_15_forged_names_are_refused() {
    let repo = Repo::new();
    let empty = repo.blob(b"");
    let inner = repo.tree(&[("100644", b"x", &empty)]);
    let long = [b'n'; 256];
    let files: [(&[u8], &str); 10] = [
        (b"..", "path has a `.` or `..` segment"),
        (b".", "path has a `.` or `..` segment"),
        (b"", "path is empty"),
        (b"a\rb", "path has a control character"),
        (b"a\nb", "path has a control character"),
        (b"\x7f", "path has a control character"),
        (b"\xc3\x28", "path is not UTF-8"),
        (b"a/b", "has a `/` inside one segment; the repository is damaged, try `git fsck`"),
        (b"/etc", ""),
        (&long, "path has a segment longer than 255 bytes"),
    ];
    for mode in ["100644", "40000"] {
        for (name, reason) in files {
            let object = if mode == "40000" { &inner } else { &empty };
            repo.commit_tree(&repo.tree(&[(mode, name, object)]));
            let (refused, _) = refused(&repo.source());
            assert_eq!(refused.len(), 1, "{name:?}");
            let message = refused[0].to_string();
            assert!(message.ends_with(reason), "{mode} {name:?}: {message}");
            assert!(!message.contains(char::is_control), "{message:?}");
        }
    }
}

#[test]
fn threat_15_duplicates_and_odd_order_are_not_trusted() {
    let repo = Repo::new();
    let (one, two) = (repo.blob(b"1"), repo.blob(b"2"));
    let inner = repo.tree(&[("100644", b"x", &one)]);
    repo.commit_tree(&repo.tree(&[
        ("100644", b"a", &one),
        ("100644", b"a", &two),
        ("120000", b"b", &one),
        ("100644", b"b.c", &one),
        ("40000", b"b", &inner),
    ]));
    let refused = refusals(&repo.source());
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].starts_with("`a` is there twice"));
    assert!(refused[1].starts_with("`b` is there twice"), "a link and a directory beneath it");

    // Out of order is odd, but says the same.
    let unsorted = repo.tree(&[("100644", b"z", &one), ("100644", b"a", &two)]);
    let first = repo.commit_tree(&unsorted);
    let source = repo.source();
    let paths: Vec<String> = full(&source).iter().map(|file| file.path.to_string()).collect();
    assert_eq!(paths, ["a", "z"]);
    repo.commit_tree(&repo.tree(&[("100644", b"a", &two), ("100644", b"z", &one)]));
    assert_eq!(since(&repo.source(), &first), []);
}

#[test]
fn threat_17_odd_modes_and_wrong_objects_are_refused() {
    let repo = Repo::new();
    let blob = repo.blob(b"x");
    let tree = repo.tree(&[]);
    let missing = "1".repeat(40);
    repo.commit_tree(&repo.tree(&[
        ("100664", b"fine", &blob),
        ("100700", b"fine_too", &blob),
        ("10644", b"pipe", &blob),
        ("100644", b"gone", &missing),
        ("104755", b"setuid", &blob),
        ("100644", b"tree", &tree),
    ]));
    let expected = [
        format!(
            "`gone` has no object {missing} here; fetch it, as `git fetch` does for a shallow or partial clone"
        ),
        "`pipe` has the unknown mode 10644".into(),
        "`setuid` has the unknown mode 104755".into(),
        format!(
            "`tree` names object {tree}, which is of another type; the repository is damaged, try `git fsck`"
        ),
    ];
    assert_eq!(refusals(&repo.source()), expected);

    repo.commit_tree(&repo.tree(&[("40000", b"dir", &blob)]));
    let error = repo.source().changes(&[]).unwrap_err();
    assert!(matches!(error, SourceError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("directory `dir`"), "{error}");
    for garbage in [&b"100644 name-without-an-id\0short"[..], b"x", b" ", b"100644", b"999 a\0"] {
        repo.commit_tree(&repo.object("tree", garbage));
        let error = repo.source().changes(&[]).unwrap_err();
        assert!(matches!(error, SourceError::Damaged { .. }), "{garbage:?}: {error}");
    }
}

#[test]
fn an_old_side_that_cannot_be_read_is_as_good_as_unknown() {
    let repo = Repo::new();
    let blob = repo.blob(b"x");
    let bad = repo.commit_tree(&repo.tree(&[("100644", b"..", &blob), ("100644", b"a", &blob)]));
    let lost = repo.commit_tree(&repo.tree(&[("40000", b"d", &"2".repeat(40))]));
    repo.commit_tree(&repo.tree(&[("100644", b"b", &blob)]));
    for old in [bad, lost] {
        let changes = repo.source().changes(&old).unwrap();
        assert!(matches!(changes, Changes::Full(files) if files.len() == 1));
    }
}

#[test]
fn threat_18_replaced_objects_are_not_followed() {
    let repo = Repo::new();
    let (right, wrong) = (repo.blob(b"right"), repo.blob(b"wrong"));
    repo.commit_tree(&repo.tree(&[("100644", b"file", &right)]));
    repo.git(&["replace", &right, &wrong]);
    assert_eq!(repo.git(&["cat-file", "blob", "HEAD:file"]), "wrong");
    assert_eq!(contents(&repo.source())["file"].1, b"right");
}

#[test]
fn threat_28_a_path_of_4_kb_is_named_with_its_limit() {
    let repo = Repo::new();
    let blob = repo.blob(b"");
    let name = [b'd'; 200];
    let mut tree = repo.tree(&[("100644", b"file", &blob)]);
    for _ in 0..20 {
        tree = repo.tree(&[("40000", &name, &tree)]);
    }
    let mut deep = repo.tree(&[("100644", b"file", &blob)]);
    for _ in 0..100 {
        deep = repo.tree(&[("40000", b"d", &deep)]);
    }
    repo.commit_tree(&repo.tree(&[("40000", b"deep", &deep), ("40000", b"long", &tree)]));
    let refused = refusals(&repo.source());
    assert_eq!(refused.len(), 2);
    assert!(refused[0].starts_with("`deep/d/d/d/") && refused[0].ends_with("more than 64 segments"));
    assert!(refused[1].starts_with("`long/dddd") && refused[1].ends_with("longer than 1024 bytes"));
    assert!(refused[1].len() < 300, "shortened");
}

#[test]
fn threat_28_files_over_a_limit_are_named_with_it() {
    let repo = Repo::new();
    for n in 0..30 {
        repo.write(&format!("big{n:02}"), vec![b'x'; 101 + n]);
        repo.write(&format!("small{n:02}"), vec![b'y'; 100]);
    }
    repo.commit();
    let mut source = repo.source();
    source.set_limits(SourceLimits { files: 60, file_size: 100 });
    let (files, more) = refused(&source);
    assert_eq!((files.len(), more), (20, 10), "the first are named, all are counted");
    assert_eq!(files[0].reason, Refusal::TooLarge { size: 101, limit: 100 });
    let message = source.changes(&[]).unwrap_err().to_string();
    assert!(message.contains("`big19` has 120 bytes, over the limit of 100"), "{message}");
    assert!(message.ends_with("and 10 more"), "{message}");
    assert!(source.read_path("big00").is_err());
    assert!(source.read_path("small00").unwrap().is_some());

    source.set_limits(SourceLimits { files: 60, file_size: 130 });
    assert_eq!(full(&source).len(), 60);
    source.set_limits(SourceLimits { files: 59, file_size: 130 });
    let error = source.changes(&[]).unwrap_err();
    assert!(matches!(error, SourceError::TooManyFiles { limit: 59, .. }), "{error}");
    assert!(error.is_invalid_source());
}

#[test]
fn threat_28_a_tree_that_repeats_itself_ends_at_the_limit() {
    let repo = Repo::new();
    let blob = repo.blob(b"");
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let grow = |mut tree: String| {
        for _ in 0..20 {
            let entries: Vec<(&str, &[u8], &str)> =
                names.iter().map(|name| ("40000", name.as_bytes(), tree.as_str())).collect();
            tree = repo.tree(&entries);
        }
        tree
    };
    let (files, nothing) = (repo.tree(&[("100644", b"x", &blob)]), repo.tree(&[]));
    let (files, nothing) = (grow(files), grow(nothing));
    for (tree, many) in [(files, true), (nothing, false)] {
        repo.commit_tree(&tree);
        let mut source = repo.source();
        source.set_limits(SourceLimits { files: 1000, file_size: 10 });
        match source.changes(&[]).unwrap_err() {
            SourceError::TooManyFiles { limit: 1000, .. } => assert!(many),
            SourceError::TooManyEntries { .. } => assert!(!many),
            other => panic!("{other}"),
        }
    }
}
