//! The figures of specs/activation.md, by hand:
//! `cargo test --release -p rootcast-agent figures -- --ignored --nocapture`

use super::*;
use std::time::{Duration, Instant};

/// 10,000 files of about 2 KB, in directories of `width` or all in one.
fn large_view(host: &mut Host, generation: usize, width: usize) -> Files {
    let file = |n: usize, host: &mut Host| {
        let changed = if n < generation { generation } else { 0 };
        (path(&format!("d{}/f{n}", n / width)), host.file(format!("{n} {changed} ").repeat(200), false))
    };
    (0..10_000).map(|n| file(n, host)).collect()
}

#[test]
#[ignore = "measures"]
fn figures_of_ten_thousand_files() {
    for (shape, width) in [("100 a directory", 100), ("one directory", 10_000)] {
        let mut host = Host::new();
        let base = large_view(&mut host, 0, width);
        let mut slots = host.open();
        for what in ["first staging", "second slot", "full staging, nothing to do"] {
            let begin = Instant::now();
            let staged = slots.stage_full(&base, &host.objects).unwrap();
            let (report, stage) = (staged.report(), begin.elapsed());
            slots.activate(staged).unwrap();
            println!("{shape}: {what}: {stage:?}, flipped after {:?}, {report:?}", begin.elapsed());
        }
        let begin = Instant::now();
        slots.check_active(&base, &host.objects).unwrap();
        println!("{shape}: check: {:?}", begin.elapsed());
        let change = changes(&base, &large_view(&mut host, 1, width));
        let back = changes(&large_view(&mut host, 1, width), &base);
        let times = (0..20).map(|round| {
            let change = if round % 4 < 2 { &change } else { &back };
            let begin = Instant::now();
            let staged = slots.stage_changes(change, &host.objects).unwrap();
            let syncs = staged.report().syncs + slots.activate(staged).unwrap().syncs;
            assert_eq!(syncs, 3);
            begin.elapsed()
        });
        println!("{shape}: one file changed and flipped: {}", summary(times));
    }
}

fn summary(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<_> = times.collect();
    times.sort();
    format!("median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1])
}

/// Where syncing one by one stops being cheaper than syncing the file system: run
/// it on an idle disk, and again beside a program that writes and does not sync.
#[test]
#[ignore = "measures"]
fn figures_of_syncing() {
    let mut host = Host::new();
    let base = large_view(&mut host, 0, 100);
    let mut slots = host.open();
    host.run(&mut slots, &base);
    for files in [1, 2, 4, 8, 16, 31] {
        let next = large_view(&mut host, files, 100);
        let mut times = [vec![], vec![]];
        for round in 0..30 {
            let view = if round % 4 < 2 { &next } else { &base };
            let unsynced = [Unsynced::Each(vec![]), Unsynced::All];
            let (which, unsynced) = unsynced.into_iter().enumerate().nth(round % 2).unwrap();
            let root = slots.open_standby(SlotName::A).unwrap();
            let begin = Instant::now();
            let mut standby = Standby::new(&slots.slots, root, slots.contents(&host.objects), unsynced);
            for (path, entry) in view.iter().take(files) {
                standby.put(path, entry).unwrap();
            }
            standby.finish().unwrap();
            times[which].push(begin.elapsed());
        }
        let [each, all] = times.map(|times| summary(times.into_iter()));
        println!("{files} files: one by one: {each}; file system: {all}");
    }
}
