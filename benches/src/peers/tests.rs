//! Every installed peer over a small history: what it costs and what the client then holds.

use super::program::Call;
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

/// A repository with three commits, oldest first.
struct History {
    directory: tempfile::TempDir,
    commits: Vec<CommitId>,
}

impl History {
    fn repository(&self) -> PathBuf {
        self.directory.path().join("repository")
    }
}

/// Bytes that do not compress.
fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Files and programs, links, a name with blanks, an empty file; changes, additions, removals, a program that
/// becomes a file, a directory that becomes a file and the other way round.
fn history() -> History {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("repository");
    fs::create_dir_all(root.join("roles/web")).unwrap();
    let git = |arguments: &[&str]| {
        let call = Call::git(directory.path()).arg("-C").arg(&root);
        let named = call.args(["-c", "user.name=n", "-c", "user.email=e@example.org"]);
        String::from_utf8(named.args(arguments).run().unwrap()).unwrap()
    };
    let write = |path: &str, content: &[u8]| {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), content).unwrap();
    };
    git(&["init", "--quiet"]);
    let mut commits = Vec::new();
    let mut commit = || {
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "m"]);
        commits.push(git(&["rev-parse", "HEAD"]).trim().to_owned());
    };
    for host in 0..40 {
        write(
            &format!("hosts/host {host}.yaml"),
            format!("port: {}\nhost: {host}\n", 9000 + host).as_bytes(),
        );
    }
    write("data.bin", &noise(600_000, 1));
    write("empty", b"");
    write("run.sh", b"#!/bin/sh\n");
    fs::set_permissions(root.join("run.sh"), Permissions::from_mode(0o755)).unwrap();
    write("turns/a", b"a directory\n");
    write("roles/web/only", b"goes with its directories\n");
    write("becomes", b"a file\n");
    symlink("hosts/host 1.yaml", root.join("link")).unwrap();
    commit();

    // The same length, so that nothing but the content (and the time) tells it from the one before.
    write("hosts/host 7.yaml", b"port: 8007\nhost: 7\n");
    commit();

    fs::remove_dir_all(root.join("roles")).unwrap();
    fs::remove_dir_all(root.join("turns")).unwrap();
    write("turns", b"a file\n");
    fs::remove_file(root.join("becomes")).unwrap();
    write("becomes/a/directory", b"deep\n");
    fs::set_permissions(root.join("run.sh"), Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(root.join("link")).unwrap();
    symlink("becomes/a", root.join("link")).unwrap();
    write("hosts/host 3.yaml", b"port: 1\n");
    commit();
    History { directory, commits }
}

#[derive(Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File { content: Vec<u8>, program: bool },
    Link(PathBuf),
}

/// All that is below a directory, git's own files left out.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut nodes = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let node = if kind.is_dir() {
                open.push(path.clone());
                Node::Directory
            } else if kind.is_symlink() {
                Node::Link(fs::read_link(&path).unwrap())
            } else {
                let program = entry.metadata().unwrap().permissions().mode() & 0o100 != 0;
                Node::File { content: fs::read(&path).unwrap(), program }
            };
            nodes.insert(path.strip_prefix(root).unwrap().to_owned(), node);
        }
    }
    nodes
}

/// The files of a commit, by `git archive`.
fn truth(repository: &Path, commit: &CommitId, scratch: &Path) -> BTreeMap<PathBuf, Node> {
    let (tar, files) = (scratch.join("truth.tar"), scratch.join("truth"));
    worktree::clear(&files).unwrap();
    fs::create_dir_all(&files).unwrap();
    Call::git(scratch)
        .arg("-C")
        .arg(repository)
        .arg("archive")
        .arg("-o")
        .arg(&tar)
        .arg(commit)
        .run()
        .unwrap();
    Call::new("tar", scratch).arg("-xf").arg(&tar).arg("-C").arg(&files).run().unwrap();
    snapshot(&files)
}

/// Makes a step, and insists on what the client then holds.
fn checked_step(peer: &mut dyn Peer, history: &History, from: Option<usize>, to: usize) -> Cost {
    let (commits, scratch) = (&history.commits, history.directory.path());
    let cost = peer.step(from.map(|from| &commits[from]), &commits[to]).unwrap();
    let held = scratch.join("held");
    peer.held(&held).unwrap();
    let shown = format!("{} from {from:?} to {to}", peer.name());
    let (holds, should) = (snapshot(&held), truth(&history.repository(), &commits[to], scratch));
    let wrong: BTreeSet<_> =
        holds.keys().chain(should.keys()).filter(|path| holds.get(*path) != should.get(*path)).collect();
    assert!(wrong.is_empty(), "{shown}: other than they should be are {wrong:?}");
    worktree::clear(&held).unwrap();
    assert!(cost.down > 0 && !cost.wall.is_zero(), "{shown}: {cost:?}");
    assert!(cost.server_cpu.is_some() && cost.client_cpu.is_some(), "{shown}: {cost:?}");
    cost
}

/// The rows that `name` asks for; those that are not installed are told and left out.
fn rows(name: &str, history: &History) -> Vec<Box<dyn Peer>> {
    let scratch = history.directory.path().join("scratch");
    let found = find(&[name.to_owned()], &history.repository(), &scratch);
    assert!(!found.is_empty(), "{name} is no peer");
    let installed = found.into_iter().filter_map(|found| match found {
        Found::Here(peer) => Some(peer),
        Found::Skipped { name, package } => {
            println!("{name}: skipped, no {package}");
            None
        }
    });
    installed.collect()
}

/// The steps that every peer must make; returns their costs: cold, one file, many, two commits at once.
fn costs(name: &str) -> Vec<[Cost; 4]> {
    let history = history();
    let steps = [(None, 0), (Some(0), 1), (Some(1), 2), (Some(0), 2)];
    let each = |mut peer: Box<dyn Peer>| steps.map(|(from, to)| checked_step(&mut *peer, &history, from, to));
    let costs: Vec<_> = rows(name, &history).into_iter().map(each).collect();
    for [cold, small, ..] in &costs {
        assert!(cold.down > 600_000, "{name}: {cold:?}");
        assert!(small.down * 4 < cold.down, "{name}: {small:?} after {cold:?}");
    }
    costs
}

#[test]
fn git_fetches_what_changed_in_few_requests() {
    let costs = costs("git");
    let [_, small, ..] = costs[0];
    assert!(small.down < 4_000 && small.up > 200, "{small:?}");
    assert!((2..=3).contains(&small.round_trips.unwrap()), "{small:?}");
}

#[test]
fn zstd_sends_little_more_than_the_change() {
    let costs = costs("zstd");
    let [_, small, ..] = costs[0];
    assert!(small.down < 1_000 && small.up == 0, "{small:?}");
}

#[test]
fn rsync_sends_the_list_and_what_changed() {
    for [cold, small, ..] in costs("rsync") {
        assert!(small.down < 4_000 && small.up > 50, "{small:?}");
        assert_eq!((cold.round_trips, small.round_trips), (None, None));
    }
}

#[test]
fn casync_sends_the_index_and_whole_chunks() {
    for [cold, small, ..] in costs("casync") {
        assert!(small.round_trips.unwrap() >= 2, "{small:?}");
        assert!(cold.round_trips > small.round_trips, "{cold:?} {small:?}");
    }
}

#[test]
fn ostree_sends_objects_or_one_delta() {
    let costs = costs("ostree");
    let [[cold, small, ..], [_, delta, ..]] = costs[..] else { return };
    assert!(small.round_trips.unwrap() >= 4 && small.up > 0, "{small:?}");
    assert!(cold.round_trips > small.round_trips, "{cold:?} {small:?}");
    assert!(delta.down < small.down, "{delta:?} {small:?}");
}

#[test]
fn every_name_has_rows_and_every_row_a_name() {
    let nowhere = Path::new("/nonexistent");
    let all: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(find(&all, nowhere, nowhere).len(), ROWS.len());
    assert!(find(&["svn".to_owned()], nowhere, nowhere).is_empty());
    assert!(ROWS.iter().all(|row| NAMES.contains(&row.asked)));
}

#[test]
fn a_peer_that_fails_says_so_and_goes_on() {
    let history = history();
    let unknown = "1".repeat(40);
    for name in NAMES {
        for mut peer in rows(name, &history) {
            let error = peer.step(None, &unknown).unwrap_err();
            assert!(error.to_string().contains(&unknown), "{}: {error}", peer.name());
            checked_step(&mut *peer, &history, None, 0);
            peer.step(Some(&history.commits[0]), &unknown).unwrap_err();
            checked_step(&mut *peer, &history, Some(0), 1);
        }
    }
}

/// Nothing that a peer started outlives it.
#[test]
fn a_peer_leaves_no_process_behind() {
    let history = history();
    let scratch = history.directory.path().join("scratch").display().to_string();
    for name in NAMES {
        let mut peers = rows(name, &history);
        for peer in &mut peers {
            checked_step(&mut **peer, &history, Some(0), 1);
        }
        drop(peers);
        let processes = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        let left = processes.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        let left: Vec<_> = left.filter(|line| line.contains(&scratch)).collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
}

/// Figures of a real history: `HISTORY=dir STEPS=5 EVERY=20 cargo test … -- --ignored --nocapture figures`.
#[test]
#[ignore = "needs a repository, named in the environment"]
fn figures() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<usize>().ok());
    let repository = PathBuf::from(std::env::var("HISTORY").unwrap());
    let (steps, every) = (number("STEPS").unwrap_or(5), number("EVERY").unwrap_or(1));
    let scratch = tempfile::tempdir().unwrap();
    let list = Call::git(scratch.path()).arg("-C").arg(&repository);
    let list = list.args(["rev-list", "--first-parent", "--reverse", "HEAD"]).run().unwrap();
    let commits: Vec<CommitId> = String::from_utf8(list).unwrap().lines().map(str::to_owned).collect();
    let first = commits.len() - 1 - steps * every;
    let names = std::env::var("PEERS").unwrap_or_else(|_| NAMES.join(","));
    let names: Vec<String> = names.split(',').map(str::to_owned).collect();
    for found in find(&names, &repository, scratch.path()) {
        let Found::Here(mut peer) = found else { continue };
        println!("{}", peer.name());
        let start = Instant::now();
        for step in 0..steps {
            let at = first + step * every;
            let cost = peer.step(Some(&commits[at]), &commits[at + 1]).unwrap();
            println!("  {} {cost:?}", &commits[at + 1][..8]);
        }
        println!("  steps took {:?}", start.elapsed());
        println!("  cold {:?}, with all {:?}", peer.step(None, &commits[first]).unwrap(), start.elapsed());
    }
}
