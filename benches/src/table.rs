//! The figures as Markdown.

use crate::figures::{Column, Figures, Mode, ModeFigures, REFERENCE, Spread, bytes, duration, time};
use crate::ours::{Fanout, FanoutStep};
use std::fmt::Write;
use std::time::Duration;

/// What stands where there is no figure.
const NONE: &str = "—";

/// All tables.
pub(crate) fn markdown(figures: &Figures) -> String {
    let mut text = String::new();
    let commit: String = figures.head.chars().take(12).collect();
    let _ = writeln!(text, "## Delivering {} at {commit}", figures.repository);
    for mode in &figures.modes {
        mode_table(&mut text, mode);
    }
    if let Some((_, fanout, notes)) = &figures.fanout {
        fanout_tables(&mut text, fanout);
        list(&mut text, notes);
    }
    let skipped = figures.skipped.iter();
    let mut notes: Vec<String> = skipped
        .map(|(name, package)| format!("{name}: skipped, it is not installed (`apt-get install {package}`)"))
        .collect();
    notes.extend(figures.notes.iter().cloned());
    list(&mut text, &notes);
    text
}

fn list(text: &mut String, notes: &[String]) {
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
}

/// What a mode is, in a few words.
pub(crate) fn title(figures: &ModeFigures) -> String {
    let count = figures.measure.samples.iter().filter(|sample| sample.is_ok()).count();
    let samples = if count == 1 { "sample" } else { "samples" };
    match figures.mode {
        Mode::Step => format!("step: one commit to a connected host ({count} {samples})"),
        Mode::Jump => format!("jump: a stopped host, {} commits behind ({count} {samples})", figures.span),
        Mode::Cold => format!("cold: an empty host joins ({count} {samples})"),
    }
}

fn mode_table(text: &mut String, figures: &ModeFigures) {
    let _ = writeln!(text, "\n### {}\n", title(figures));
    let heads = [
        "",
        "down, median",
        "p90",
        "total",
        "up, median",
        "p90",
        "total",
        "round trips",
        "server CPU",
        "client CPU",
        "wall",
        "× ours",
    ];
    header(text, &heads);
    let reference = figures.columns.iter().find(|column| column.name == REFERENCE);
    for column in &figures.columns {
        row(text, &cells(column, reference));
    }
    if let Some(note) = first_byte(figures) {
        let _ = writeln!(text, "\n{note}");
    }
    list(text, &figures.notes);
}

fn header(text: &mut String, heads: &[&str]) {
    let _ = writeln!(text, "| {} |", heads.join(" | "));
    let rules: Vec<&str> =
        heads.iter().enumerate().map(|(at, _)| if at == 0 { "---" } else { "---:" }).collect();
    let _ = writeln!(text, "|{}|", rules.join("|"));
}

fn row(text: &mut String, cells: &[String]) {
    // A bar in a name would be a cell's border.
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn three(spread: Option<Spread>) -> [String; 3] {
    match spread {
        Some(Spread { median, p90, total }) => [bytes(median), bytes(p90), bytes(total)],
        None => [NONE; 3].map(str::to_owned),
    }
}

fn cells(column: &Column, reference: Option<&Column>) -> Vec<String> {
    let applies = |spread: Option<Spread>| spread.filter(|_| !column.only_down);
    let seconds = |of: fn(&crate::cost::Cost) -> Option<Duration>| {
        let spread = applies(column.spread(|cost| of(cost).map(|time| time.as_secs_f64())));
        spread.map_or(NONE.to_owned(), |spread| time(spread.median))
    };
    let trips = applies(column.spread(|cost| cost.round_trips.map(|trips| trips as f64)));
    let measured = column.measured().count();
    let name = match column.costs.len() {
        all if all == measured => column.name.clone(),
        all => format!("{} ({measured} of {all})", column.name),
    };
    let mut cells = vec![name];
    cells.extend(three(column.down()));
    // Who sends nothing at all has no protocol to send it by.
    let up = column.spread(|cost| Some(cost.up as f64)).filter(|up| up.total > 0.0);
    cells.extend(three(applies(up)));
    cells.push(trips.map_or(NONE.to_owned(), |trips| format!("{:.0}", trips.median)));
    cells.push(seconds(|cost| cost.server_cpu));
    cells.push(seconds(|cost| cost.client_cpu));
    cells.push(seconds(|cost| Some(cost.wall)));
    let ratio = reference.and_then(|reference| column.ratio(reference));
    cells.push(ratio.map_or(NONE.to_owned(), |ratio| format!("{ratio:.2}")));
    cells
}

/// When a host that starts has its first byte, and all.
fn first_byte(figures: &ModeFigures) -> Option<String> {
    let ours = || figures.measure.samples.iter().flatten();
    let median = |of: fn(&crate::ours::Ours) -> Option<Duration>| {
        Spread::of(ours().filter_map(of).map(|time| time.as_secs_f64())).map(|spread| time(spread.median))
    };
    let (first, connected) = (median(|ours| ours.first)?, median(|ours| ours.connected)?);
    let active = median(|ours| Some(ours.wall))?;
    Some(format!(
        "Rootcast, medians from the start of the agent's process: connected after {connected}, first byte of the update after {first}, active after {active}."
    ))
}

fn fanout_tables(text: &mut String, fanout: &Fanout) {
    let steps: Vec<&FanoutStep> = fanout.steps.iter().flatten().collect();
    let (relays, hosts) = (fanout.relays, fanout.hosts);
    let _ = writeln!(
        text,
        "\n### fanout: one commit, {relays} relays, {hosts} hosts ({} samples)\n",
        steps.len()
    );
    header(text, &["link, stream bytes", "down, median", "p90", "total", "up, median", "p90", "total"]);
    for (name, links) in link_rows(fanout) {
        let mut cells = vec![name];
        cells.extend(three(Spread::of(links.iter().map(|(down, _)| *down as f64))));
        cells.extend(three(Spread::of(links.iter().map(|(_, up)| *up as f64))));
        row(text, &cells);
    }
    text.push('\n');
    header(text, &["from publish to active on a host", "p50", "p99", "max"]);
    let mut delays = |name: &str, of: fn(&FanoutStep) -> &Vec<Duration>| {
        let all: Vec<f64> = steps.iter().flat_map(|step| of(step)).map(Duration::as_secs_f64).collect();
        let at = |percent| crate::figures::percentile(&all, percent).map_or(NONE.to_owned(), time);
        row(text, &[name.to_owned(), at(50), at(99), at(100)]);
    };
    delays("from the call to publish (read, compile, sign, durable)", |step| &step.from_publish);
    delays("from durable at the origin", |step| &step.from_durable);
    let per_step = |of: fn(&FanoutStep) -> Duration| {
        let spread = Spread::of(steps.iter().map(|step| of(step).as_secs_f64()));
        spread.map_or(Duration::ZERO, |spread| Duration::from_secs_f64(spread.median))
    };
    let origin = per_step(|step| step.origin_cpu);
    let _ = writeln!(
        text,
        "\nCPU time of a step, medians: publisher {}, origin {} ({} for each host), relays {} together, hosts {} each.",
        duration(per_step(|step| step.publisher_cpu)),
        duration(origin),
        duration(origin / u32::try_from(hosts.max(1)).unwrap_or(u32::MAX)),
        duration(per_step(|step| step.relay_cpu)),
        duration(per_step(|step| step.host_cpu) / u32::try_from(hosts.max(1)).unwrap_or(u32::MAX)),
    );
}

/// Links of a kind, with the bytes down and up of each in each step; at last all that the origin has.
pub(crate) fn link_rows(fanout: &Fanout) -> Vec<(String, Vec<(u64, u64)>)> {
    let steps = || fanout.steps.iter().flatten();
    let between = |from_origin: bool, to_relay: bool| -> Vec<(u64, u64)> {
        let links = steps().flat_map(|step| &step.links);
        links
            .filter(|link| {
                (link.parent == "origin") == from_origin && link.child.starts_with("relay-") == to_relay
            })
            .map(|link| (link.down, link.up))
            .collect()
    };
    let sum = |step: &FanoutStep| {
        let own = step.links.iter().filter(|link| link.parent == "origin");
        own.fold((0, 0), |(down, up), link| (down + link.down, up + link.up))
    };
    let rows = [
        ("origin → relay, each", between(true, true)),
        ("origin → host, each", between(true, false)),
        ("relay → host, each", between(false, false)),
        ("all links of the origin", steps().map(sum).collect()),
    ];
    rows.into_iter()
        .filter(|(_, links)| !links.is_empty())
        .map(|(name, all)| (name.to_owned(), all))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::figures::Kind;
    use crate::figures::tests::column;
    use crate::ours::{LinkCost, Measure, Ours};

    /// Figures of one mode with these columns.
    pub(crate) fn figures(mode: Mode, columns: Vec<Column>) -> Figures {
        let samples = columns.first().map_or(0, |column| column.costs.len());
        let measure = Measure { samples: vec![Ok(Ours::default()); samples], round_trips: None };
        let (pairs, floors, notes) = (Vec::new(), Vec::new(), vec!["a note".to_owned()]);
        let mode = ModeFigures { mode, span: 1, pairs, measure, floors, columns, notes };
        let (repository, head) = ("/srv/config".to_owned(), "0123456789abcdef".to_owned());
        Figures { repository, head, modes: vec![mode], ..Figures::default() }
    }

    #[test]
    fn a_table_has_a_row_for_each_tool_and_as_many_cells_as_heads() {
        let mut git = column("git | smart", Kind::Peer, &[1000, 3000]);
        git.costs[1] = None;
        let mut floor = column("floor: content", Kind::Floor, &[10, 20]);
        floor.only_down = true;
        let mut figures = figures(Mode::Step, vec![floor, column(REFERENCE, Kind::Ours, &[200, 300]), git]);
        figures.skipped.push(("casync".into(), "casync".into()));
        let text = markdown(&figures);
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 5, "{text}");
        for row in &rows {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 13, "{row}");
        }
        assert!(rows[2].starts_with("| floor: content | 10 B | 20 B | 30 B | — | — | — | — |"), "{text}");
        assert!(
            rows[3].contains("| 200 B | 300 B | 500 B | 10 B | 10 B | 20 B |")
                && rows[3].ends_with("| 1.00 |")
        );
        assert!(rows[4].starts_with("| git \\| smart (1 of 2) | 1000 B |") && rows[4].ends_with("| 5.00 |"));
        assert!(text.contains("## Delivering /srv/config at 0123456789ab\n"));
        assert!(text.contains("- a note") && text.contains("`apt-get install casync`"));
    }

    #[test]
    fn links_are_grouped_by_what_they_join() {
        let link = |parent: &str, child: &str, down, up| LinkCost {
            parent: parent.into(),
            child: child.into(),
            down,
            up,
        };
        let links = vec![
            link("origin", "relay-1", 200, 50),
            link("relay-1", "host-1", 210, 20),
            link("relay-1", "host-2", 220, 30),
        ];
        let step =
            FanoutStep { links, from_publish: vec![Duration::from_millis(4)], ..FanoutStep::default() };
        let fanout = Fanout { relays: 1, hosts: 2, steps: vec![Ok(step), Err("why".into())] };
        let rows = link_rows(&fanout);
        assert_eq!(rows[0], ("origin → relay, each".to_owned(), vec![(200, 50)]));
        assert_eq!(rows[1], ("relay → host, each".to_owned(), vec![(210, 20), (220, 30)]));
        assert_eq!(rows[2], ("all links of the origin".to_owned(), vec![(200, 50)]));
        let figures = Figures { fanout: Some((Vec::new(), fanout, Vec::new())), ..Figures::default() };
        let text = markdown(&figures);
        assert!(text.contains("| relay → host, each | 210 B | 220 B | 430 B | 20 B |"), "{text}");
        assert!(text.contains("(read, compile, sign, durable) | 4.0 ms | 4.0 ms | 4.0 ms |"), "{text}");
    }
}
