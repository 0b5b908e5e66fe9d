//! The tree of relays and hosts, rebuilt from the rows of a report.

use crate::output::plain;
use rootcast::protocol::HostStatus;
use std::collections::BTreeMap;

/// Deeper rows are not indented further. No sane tree is this deep.
const MAX_INDENT: usize = 16;

type Children<'a> = BTreeMap<&'a str, Vec<&'a HostStatus>>;

/// The rows of one channel in the order of the tree, each with its name and
/// what stands before it. `strokes`: drawn with lines, not by indenting alone.
///
/// Every row comes once, whatever a relay may claim: those whose parent is not
/// in the report come last.
pub(super) fn lines<'a>(rows: &[&'a HostStatus], strokes: bool) -> Vec<(String, &'a HostStatus)> {
    let mut children = Children::new();
    for row in rows {
        children.entry(&row.parent).or_default().push(row);
    }
    for siblings in children.values_mut() {
        siblings.sort_by_key(|row| (row.role != "relay", &row.name));
    }
    let mut drawn = Vec::new();
    for row in children.remove("").unwrap_or_default() {
        drawn.push((plain(&row.name), row));
        below(row, &mut children, strokes, &mut drawn);
    }
    // Orphans: first those under parents that no row has, then what is left of circles.
    let named: Vec<&str> =
        rows.iter().filter(|row| row.role == "relay").map(|row| row.name.as_str()).collect();
    while let Some(parent) =
        children.keys().find(|parent| !named.contains(*parent)).or(children.keys().next())
    {
        let parent = *parent;
        for row in children.remove(parent).unwrap_or_default() {
            drawn.push((format!("{} (below {}, which is not shown)", plain(&row.name), plain(parent)), row));
            below(row, &mut children, strokes, &mut drawn);
        }
    }
    drawn
}

/// Draws what is below a row. A relay's children are taken out as they are
/// drawn, so that no circle can hold this up. Not recursive: depth is a peer's claim.
fn below<'a>(
    top: &'a HostStatus,
    children: &mut Children<'a>,
    strokes: bool,
    drawn: &mut Vec<(String, &'a HostStatus)>,
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
        drawn.push((format!("{indent}{here}{}", plain(&row.name)), row));
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
fn take<'a>(row: &'a HostStatus, children: &mut Children<'a>) -> Vec<&'a HostStatus> {
    if row.role != "relay" {
        return Vec::new();
    }
    let mut taken = children.remove(row.name.as_str()).unwrap_or_default();
    taken.reverse();
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast::path::ChannelName;
    use rootcast::protocol::HostState;

    fn row(name: &str, role: &str, parent: &str) -> HostStatus {
        HostStatus {
            name: name.into(),
            role: role.into(),
            parent: parent.into(),
            channel: ChannelName::new("main").unwrap(),
            release: 1,
            state: HostState::Active,
            files: 0,
            healed: 0,
            received: 0,
            refused: 0,
        }
    }

    fn drawn(rows: &[HostStatus], strokes: bool) -> Vec<String> {
        let rows: Vec<_> = rows.iter().collect();
        lines(&rows, strokes).into_iter().map(|(label, _)| label).collect()
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
        let rows: Vec<_> = rows.iter().collect();
        let order: Vec<_> = lines(&rows, false).into_iter().map(|(label, row)| (label, &*row.role)).collect();
        let expected = [("o", "relay"), ("  eu", "relay"), ("    web", "agent"), ("  eu", "agent")];
        assert_eq!(order, expected.map(|(label, role)| (label.to_owned(), role)));
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
        let mut rows = vec![row("r0", "relay", "")];
        rows.extend((1..4000).map(|at| row(&format!("r{at}"), "relay", &format!("r{}", at - 1))));
        rows.push(row("\x1b[2J\u{202e}x", "agent", "r0"));
        let lines = drawn(&rows, true);
        assert_eq!(lines.len(), rows.len());
        assert!(lines.iter().all(|line| line.chars().count() < 80));
        assert!(lines.contains(&"└─ \\u{1b}[2J\\u{202e}x".into()), "{:?}", lines.last());
    }
}
