//! What the user watches: a table that redraws itself on a terminal, a line
//! per release elsewhere.

use super::Member;
use crate::output::bytes;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

pub(super) struct Table {
    live: bool,
    drawn: usize,
}

impl Table {
    pub(super) fn new(json: bool) -> Self {
        Self { live: !json && io::stdout().is_terminal(), drawn: 0 }
    }

    /// Draws the members anew in the place of the last drawing.
    pub(super) fn draw(&mut self, members: &BTreeMap<String, Member>) {
        if !self.live {
            return;
        }
        let mut out = self.up();
        let head = ["HOST", "FOLLOWS", "RELEASE", "FILES", "RECEIVED", "ACTIVE AFTER"];
        out.push_str(&row(head.map(String::from)));
        for (name, member) in members {
            let files = if member.labels.is_some() { member.files.to_string() } else { "-".into() };
            let after = member.ms.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
            let release = if member.up { member.release.to_string() } else { "down".into() };
            out.push_str(&row([
                name.clone(),
                member.parent.clone(),
                release,
                files,
                bytes(member.received),
                after,
            ]));
        }
        self.drawn = members.len() + 1;
        let _ = write!(io::stdout(), "{out}");
        let _ = io::stdout().flush();
    }

    /// Prints a line above the table.
    pub(super) fn line(&mut self, text: &str, members: &BTreeMap<String, Member>) {
        if self.live {
            let up = self.up();
            let _ = writeln!(io::stdout(), "{up}{text}");
            self.drawn = 0;
            self.draw(members);
        } else {
            let _ = writeln!(io::stdout(), "{text}");
        }
    }

    fn up(&self) -> String {
        match self.drawn {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}

fn row([name, parent, release, files, received, after]: [String; 6]) -> String {
    format!("{name:<12} {parent:<10} {release:>8} {files:>8} {received:>11} {after:>13}\n")
}
