//! The tree of relays and hosts, rebuilt from the rows of a report.

use crate::output::plain;
use rootcast::status::{HostRow, RelayRow};
use std::collections::BTreeMap;

/// Deeper rows are not indented further. No sane tree is this deep.
const MAX_INDENT: usize = 16;

/// A relay or a host, and the relay it is below.
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    /// Empty for the relay that was asked.
    pub(super) parent: &'a str,
    pub(super) relay: Option<&'a RelayRow>,
    pub(super) host: Option<&'a HostRow>,
}

type Children<'a> = BTreeMap<&'a str, Vec<&'a Place<'a>>>;

/// The rows of one channel in the order of the tree, each with its name and
/// what stands before it. `strokes`: drawn with lines, not by indenting alone.
///
/// Every row comes once, whatever a relay may claim: those whose parent is not
/// in the report come last.
pub(super) fn lines<'a>(rows: &'a [Place<'a>], strokes: bool) -> Vec<(String, &'a Place<'a>)> {
    let mut children = Children::new();
    for row in rows {
        children.entry(row.parent).or_default().push(row);
    }
    for siblings in children.values_mut() {
        siblings.sort_by_key(|row| (row.relay.is_none(), row.name));
    }
    let mut drawn = Vec::new();
    for row in children.remove("").unwrap_or_default() {
        drawn.push((plain(row.name), row));
        below(row, &mut children, strokes, &mut drawn);
    }
    // Orphans: first those under parents that no row has, then what is left of circles.
    let named: Vec<&str> = rows.iter().filter(|row| row.relay.is_some()).map(|row| row.name).collect();
    while let Some(parent) =
        children.keys().find(|parent| !named.contains(*parent)).or(children.keys().next())
    {
        let parent = *parent;
        for row in children.remove(parent).unwrap_or_default() {
            drawn.push((format!("{} (below {}, which is not shown)", plain(row.name), plain(parent)), row));
            below(row, &mut children, strokes, &mut drawn);
        }
    }
    drawn
}

/// Draws what is below a row. A relay's children are taken out as they are
/// drawn, so that no circle can hold this up. Not recursive: depth is a peer's claim.
fn below<'a>(
    top: &'a Place<'a>,
    children: &mut Children<'a>,
    strokes: bool,
    drawn: &mut Vec<(String, &'a Place<'a>)>,
) {
    let mut open = vec![(take(top, children), String::new())];
    while let Some((siblings, indent)) = open.last_mut() {
        let Some(row) = siblings.pop() else {
            open.pop();
            continue;
        };
        let last = siblings.is_empty();
        let (here, further) = match (strokes, last) {
            (true, false) => ("├─ ", "│  "),
            (true, true) => ("└─ ", "   "),
            (false, _) => ("  ", "  "),
        };
        drawn.push((format!("{indent}{here}{}", plain(row.name)), row));
        let next = if open.len() < MAX_INDENT {
            open.last().map(|(_, indent)| format!("{indent}{further}")).unwrap_or_default()
        } else {
            open.last().map(|(_, indent)| indent.clone()).unwrap_or_default()
        };
        let below = take(row, children);
        if !below.is_empty() {
            open.push((below, next));
        }
    }
}

/// The children of a row, the last first. Only relays have any.
fn take<'a>(row: &'a Place<'a>, children: &mut Children<'a>) -> Vec<&'a Place<'a>> {
    if row.relay.is_none() {
        return Vec::new();
    }
    let mut taken = children.remove(row.name).unwrap_or_default();
    taken.reverse();
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast::status::{Condition, Serving};
    use std::sync::LazyLock;

    static RELAY: LazyLock<RelayRow> = LazyLock::new(|| RelayRow {
        name: String::new(),
        parent: String::new(),
        place: String::new(),
        condition: Condition::none(0),
        serving: Serving::default(),
    });

    fn row<'a>(name: &'a str, role: &str, parent: &'a str) -> Place<'a> {
        let relay = (role == "relay").then(|| &*RELAY);
        Place { name, parent, relay, host: None }
    }

    fn drawn(rows: &[Place<'_>], strokes: bool) -> Vec<String> {
        lines(rows, strokes).into_iter().map(|(label, _)| label).collect()
    }

    #[test]
    fn three_levels_whatever_the_order_of_the_rows() {
        let rows = [
            row("web-2", "agent", "eu"),
            row("db-1", "agent", "origin"),
            row("eu", "relay", "origin"),
            row("web-1", "agent", "eu"),
            row("origin", "relay", ""),
        ];
        assert_eq!(drawn(&rows, true), ["origin", "├─ eu", "│  ├─ web-1", "│  └─ web-2", "└─ db-1"]);
        assert_eq!(drawn(&rows, false), ["origin", "  eu", "    web-1", "    web-2", "  db-1"]);
    }

    #[test]
    fn a_host_with_a_relays_name_does_not_get_its_children() {
        let rows = [
            row("o", "relay", ""),
            row("eu", "agent", "o"),
            row("eu", "relay", "o"),
            row("web", "agent", "eu"),
        ];
        let order: Vec<_> =
            lines(&rows, false).into_iter().map(|(label, row)| (label, row.relay.is_some())).collect();
        let expected = [("o", true), ("  eu", true), ("    web", false), ("  eu", false)];
        assert_eq!(order, expected.map(|(label, relay)| (label.to_owned(), relay)));
    }

    #[test]
    fn orphans_and_circles_are_shown_once() {
        let rows = [
            row("o", "relay", ""),
            row("a", "relay", "b"),
            row("b", "relay", "a"),
            row("lost", "agent", "gone"),
            row("self", "relay", "self"),
        ];
        let lines = drawn(&rows, false);
        assert_eq!(lines.len(), rows.len(), "{lines:?}");
        assert_eq!(lines.first().map(String::as_str), Some("o"));
        assert!(lines.contains(&"lost (below gone, which is not shown)".into()), "{lines:?}");
    }

    #[test]
    fn depth_and_names_cannot_drive_a_terminal() {
        let names: Vec<String> = (0..4000).map(|at| format!("r{at}")).collect();
        let mut rows = vec![row("r0", "relay", "")];
        rows.extend(names.windows(2).map(|pair| row(&pair[1], "relay", &pair[0])));
        rows.push(row("\x1b[2J\u{202e}x", "agent", "r0"));
        let lines = drawn(&rows, true);
        assert_eq!(lines.len(), rows.len());
        assert!(lines.iter().all(|line| line.chars().count() < 80));
        assert!(lines.contains(&"└─ \\u{1b}[2J\\u{202e}x".into()), "{:?}", lines.last());
    }
}
