//! What programs see that read while generations come and go.

use super::*;
use rustix::fs::{CWD, Dir, readlinkat, statat};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::atomic::AtomicBool;
use std::thread;

const FLIPS: u64 = 200;
const FILES: usize = 10;

/// What every file of a generation holds: its number, often enough to be written in pieces.
fn text(generation: u64, file: usize) -> String {
    format!("{generation} {file}\n").repeat(2000)
}

fn view(host: &mut Host, generation: u64) -> Files {
    let mut view = Files::new();
    for file in 0..FILES {
        let text = text(generation, file);
        let entry = if file == 0 { host.chunked(&text, 5000) } else { host.file(&text, false) };
        view.insert(path(&format!("d{}/f{file}", file % 3)), entry);
    }
    view.insert(path(&format!("only-{generation}")), host.file(text(generation, FILES), false));
    view
}

/// What one pass of a reader saw.
struct Pass {
    /// The generations that the files were of.
    generations: BTreeSet<u64>,
    files: usize,
    /// A name was gone between listing and opening.
    lost: bool,
    /// `current` is the same link as before, not just one with the same text.
    undisturbed: bool,
}

/// Opens `current` once and reads all beneath it.
fn pass(home: &Path) -> Pass {
    let mut seen = Pass { generations: BTreeSet::new(), files: 0, lost: false, undisturbed: false };
    let current = home.join("current");
    // Held open, so that the inode number cannot come again while it is compared.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = openat(CWD, &current, flags, Mode::empty()).unwrap();
    let root = openat(CWD, &current, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut todo = vec![(root, String::new())];
    while let Some((dir, prefix)) = todo.pop() {
        for item in Dir::read_from(&dir).unwrap() {
            let Ok(item) = item else {
                seen.lost = true;
                break;
            };
            let name = item.file_name().to_str().unwrap().to_owned();
            if name == "." || name == ".." {
                continue;
            }
            let Ok(fd) = openat(&dir, &*name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
                seen.lost = true;
                continue;
            };
            if item.file_type() == FileType::Directory {
                todo.push((fd, format!("{prefix}{name}/")));
                continue;
            }
            let mut found = String::new();
            fs::File::from(fd).read_to_string(&mut found).unwrap();
            let mut words = found.split_whitespace().map(|word| word.parse::<u64>().unwrap());
            let (generation, file) = (words.next().unwrap(), words.next().unwrap());
            // Never half a file, however late the reader is.
            assert!(found == text(generation, file as usize), "{prefix}{name} is torn");
            seen.generations.insert(generation);
            seen.files += 1;
        }
    }
    let now = statat(CWD, &current, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    seen.undisturbed = now.st_ino == rustix::fs::fstat(&link).unwrap().st_ino;
    assert!(readlinkat(CWD, &current, Vec::new()).is_ok());
    seen
}

impl Pass {
    fn is_whole(&self) -> bool {
        !self.lost && self.generations.len() == 1 && self.files == FILES + 1
    }
}

#[test]
fn readers_see_one_whole_generation_through_200_flips() {
    let mut host = Host::new();
    let mut slots = host.open();
    let mut views = vec![view(&mut host, 0), view(&mut host, 1)];
    host.run(&mut slots, &views[0]);
    host.run(&mut slots, &views[1]);
    let home = host.dir.path().to_owned();
    // The newest generation whose staging has begun.
    let staging = AtomicU64::new(1);
    let ended = AtomicBool::new(false);
    let read = |counts: &mut [u64; 3]| {
        while !ended.load(Ordering::SeqCst) {
            let before = staging.load(Ordering::SeqCst);
            let seen = pass(&home);
            let begun = staging.load(Ordering::SeqCst);
            // Generation `before - 1` or `before` was live at first, and its slot is not
            // written before `before + 1` is staged. What was seen cannot tell: a reader
            // that is late enough finds only what is newer than what it opened.
            let in_time = begun == before;
            if in_time || seen.undisturbed {
                assert!(
                    seen.is_whole(),
                    "{:?} in {} files, lost {}, undisturbed {}, {before} to {begun} begun",
                    seen.generations,
                    seen.files,
                    seen.lost,
                    seen.undisturbed
                );
            }
            counts[0] += u64::from(in_time || seen.undisturbed);
            counts[1] += u64::from(in_time && !seen.undisturbed);
            counts[2] += u64::from(seen.generations.len() > 1);
        }
    };
    let counts = thread::scope(|scope| {
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut counts = [0; 3];
                read(&mut counts);
                counts
            })
        });
        for generation in 2..FLIPS + 2 {
            let next = view(&mut host, generation);
            let change = changes(&views[generation as usize - 2], &next);
            staging.store(generation, Ordering::SeqCst);
            let staged = slots.stage_changes(&change, &host.objects).unwrap();
            slots.activate(staged).unwrap();
            views.push(next);
        }
        ended.store(true, Ordering::SeqCst);
        readers.map(|reader| reader.join().unwrap())
    });
    let [whole, across, mixed] = [0, 1, 2].map(|at| counts.iter().map(|count| count[at]).sum::<u64>());
    println!("{whole} passes in time, {across} of them across a flip; {mixed} late ones saw a mix");
    assert!(whole > 20, "only {whole} passes in time: nothing was shown");
}

#[test]
fn a_reader_that_opened_before_a_flip_ends_on_the_generation_it_began() {
    let mut host = Host::new();
    let mut slots = host.open();
    let views = [view(&mut host, 0), view(&mut host, 1), view(&mut host, 2)];
    host.run(&mut slots, &views[0]);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = openat(CWD, host.at("current"), flags, Mode::empty()).unwrap();
    let mut open_file = fs::File::open(host.at("current/d0/f0")).unwrap();
    host.run(&mut slots, &views[1]);
    // One flip later all of it is there still.
    let number = rustix::fd::AsRawFd::as_raw_fd(&held);
    let held_path = PathBuf::from(format!("/proc/self/fd/{number}/"));
    assert_eq!(read_back(&held_path), host.expected(&views[0]));
    // Two flips later its slot is the next generation, but a file that was opened stays what it was.
    host.run(&mut slots, &views[2]);
    assert_eq!(read_back(&held_path), host.expected(&views[2]));
    let mut found = String::new();
    open_file.read_to_string(&mut found).unwrap();
    assert!(found == text(0, 0));
}
