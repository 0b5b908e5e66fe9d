//! The medians as a picture: one panel for each mode, one bar for each column, the smallest first.

use crate::figures::{Figures, Kind, ModeFigures, Spread, bytes};
use crate::table;
use std::fmt::Write;

const WIDTH: f64 = 980.0;
/// Where bars begin; the names stand left of it.
const LEFT: f64 = 290.0;
/// Where the largest power of ten ends; the values stand right of their bars.
const RIGHT: f64 = 800.0;
const ROW: f64 = 24.0;
const BAR: f64 = 15.0;
/// Above the bars of a panel: its title and the labels of its scale.
const HEAD: f64 = 56.0;
/// Below them.
const FOOT: f64 = 22.0;
/// Above all panels.
const TOP: f64 = 64.0;
/// Below them: what the colours mean.
const LEGEND: f64 = 34.0;
const FONT: &str = "font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\"";

struct Bar {
    name: String,
    kind: Kind,
    spread: Spread,
}

struct Panel {
    title: String,
    bars: Vec<Bar>,
}

const fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Floor => "#8b949e",
        Kind::Ours => "#1f6feb",
        Kind::Peer => "#c2570c",
    }
}

/// Draws everything that was measured.
pub(crate) fn svg(figures: &Figures) -> String {
    let mut panels: Vec<Panel> = figures.modes.iter().map(panel).collect();
    panels.extend(figures.fanout.as_ref().map(|(_, fanout, _)| {
        let title = format!("fanout: {} relays, {} hosts, stream bytes a step", fanout.relays, fanout.hosts);
        let bar = |(name, links): (String, Vec<(u64, u64)>)| {
            let spread = Spread::of(links.iter().map(|(down, _)| *down as f64))?;
            Some(Bar { name, kind: Kind::Ours, spread })
        };
        Panel { title, bars: ordered(table::link_rows(fanout).into_iter().filter_map(bar).collect()) }
    }));
    panels.retain(|panel| !panel.bars.is_empty());
    let height = |panel: &Panel| HEAD + panel.bars.len() as f64 * ROW + FOOT;
    let total = TOP + panels.iter().map(height).sum::<f64>() + LEGEND;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" viewBox=\"0 0 {WIDTH} {total}\" role=\"img\" {FONT} font-size=\"13\" fill=\"#1f2328\">"
    );
    let commit: String = figures.head.chars().take(12).collect();
    let subject = format!("{} at {commit}", figures.repository);
    let _ = writeln!(text, "<title>{}</title>", escaped(&format!("Bytes to a host: {subject}")));
    let _ = writeln!(text, "<rect width=\"{WIDTH}\" height=\"{total}\" fill=\"#ffffff\"/>");
    label(
        &mut text,
        20.0,
        28.0,
        "start",
        "font-size=\"18\" font-weight=\"600\"",
        "Bytes to a host, by the real programs",
    );
    let subtitle = format!("{subject}; medians, logarithmic scale, thin line to the 90th percentile");
    label(&mut text, 20.0, 48.0, "start", "fill=\"#59636e\"", &subtitle);
    let mut y = TOP;
    for panel in &panels {
        draw(&mut text, panel, y);
        y += height(panel);
    }
    let mut x = LEFT;
    for (kind, meaning) in
        [(Kind::Ours, "Rootcast"), (Kind::Peer, "other tools"), (Kind::Floor, "floor, no protocol")]
    {
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{}\"/>",
            y + 6.0,
            colour(kind)
        );
        label(&mut text, x + 18.0, y + 17.0, "start", "", meaning);
        x += 150.0;
    }
    text.push_str("</svg>\n");
    text
}

fn panel(figures: &ModeFigures) -> Panel {
    let bars = figures.columns.iter().filter_map(|column| {
        Some(Bar { name: column.name.clone(), kind: column.kind, spread: column.down()? })
    });
    Panel { title: table::title(figures), bars: ordered(bars.collect()) }
}

fn ordered(mut bars: Vec<Bar>) -> Vec<Bar> {
    bars.sort_by(|one, other| one.spread.median.total_cmp(&other.spread.median));
    bars
}

fn draw(text: &mut String, panel: &Panel, top: f64) {
    let values =
        || panel.bars.iter().flat_map(|bar| [bar.spread.median, bar.spread.p90]).map(|value| value.max(1.0));
    let low = values().fold(f64::MAX, f64::min).log10().floor().min(6.0);
    let high = values().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let x = |value: f64| LEFT + (value.max(1.0).log10() - low) / (high - low) * (RIGHT - LEFT);
    label(text, 20.0, top + 18.0, "start", "font-size=\"15\" font-weight=\"600\"", &panel.title);
    let (first, last) = (top + HEAD - 4.0, top + HEAD + panel.bars.len() as f64 * ROW);
    for decade in low as i32..=high as i32 {
        let value = 10_f64.powi(decade);
        let at = x(value);
        let _ = writeln!(
            text,
            "<line x1=\"{at:.1}\" y1=\"{first:.1}\" x2=\"{at:.1}\" y2=\"{last:.1}\" stroke=\"#d1d9e0\"/>"
        );
        label(text, at, top + HEAD - 10.0, "middle", "font-size=\"11\" fill=\"#59636e\"", &power(decade));
    }
    for (at, bar) in panel.bars.iter().enumerate() {
        let y = top + HEAD + at as f64 * ROW;
        let (end, far) = (x(bar.spread.median), x(bar.spread.p90));
        let (middle, colour) = (y + BAR / 2.0, colour(bar.kind));
        let weight = if bar.kind == Kind::Ours { "font-weight=\"600\"" } else { "" };
        label(text, LEFT - 10.0, y + 12.0, "end", weight, &bar.name);
        // A bar on the edge of the scale is still to be seen.
        let width = (end - LEFT).max(1.5);
        let _ = writeln!(
            text,
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{colour}\"/>"
        );
        let (from, to) = (middle - 4.0, middle + 4.0);
        let _ = writeln!(
            text,
            "<path d=\"M{end:.1} {middle:.1}H{far:.1}M{far:.1} {from:.1}V{to:.1}\" stroke=\"{colour}\" fill=\"none\"/>"
        );
        let value = format!("{} (p90 {})", bytes(bar.spread.median), bytes(bar.spread.p90));
        label(text, far.max(end) + 8.0, y + 12.0, "start", "font-size=\"12\"", &value);
    }
}

/// A power of ten bytes.
fn power(decade: i32) -> String {
    let digits = |rest: i32| 10_i64.pow(u32::try_from(rest).unwrap_or(0));
    match decade {
        ..=2 => format!("{} B", digits(decade)),
        3..=5 => format!("{} KB", digits(decade - 3)),
        6..=8 => format!("{} MB", digits(decade - 6)),
        _ => format!("{} GB", digits(decade - 9)),
    }
}

fn label(text: &mut String, x: f64, y: f64, anchor: &str, more: &str, words: &str) {
    let space = if more.is_empty() { "" } else { " " };
    let _ = writeln!(
        text,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{space}{more}>{}</text>",
        escaped(words)
    );
}

/// Text as XML takes it.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            character if character.is_control() => safe.push('\u{fffd}'),
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::column;
    use crate::figures::{Mode, REFERENCE};

    fn drawn() -> String {
        let columns = vec![
            column("git <smart> & \"http\"", Kind::Peer, &[40_000, 50_000]),
            column(REFERENCE, Kind::Ours, &[212, 480]),
            column("floor: content", Kind::Floor, &[51, 60]),
        ];
        let mut figures = table::tests::figures(Mode::Step, columns.clone());
        figures.modes.extend(table::tests::figures(Mode::Cold, columns).modes);
        svg(&figures)
    }

    /// The attribute of every element of a kind, in order.
    fn attributes(svg: &str, element: &str, attribute: &str) -> Vec<String> {
        let elements = svg.lines().filter(|line| line.starts_with(&format!("<{element} ")));
        let value = |line: &str| {
            let (_, rest) = line.split_once(&format!(" {attribute}=\""))?;
            Some(rest.split('"').next()?.to_owned())
        };
        elements.filter_map(value).collect()
    }

    #[test]
    fn bars_are_ordered_and_labelled() {
        let svg = drawn();
        for words in [
            "step: one commit",
            "cold: an empty host",
            "212 B (p90 480 B)",
            "40.0 KB (p90 50.0 KB)",
            "100 B",
            "10 KB",
        ] {
            assert!(svg.contains(words), "{words} is not in {svg}");
        }
        let order: Vec<usize> = ["floor: content", REFERENCE, "git &lt;smart&gt; &amp; &quot;http&quot;"]
            .iter()
            .map(|name| svg.find(&format!(">{name}<")).unwrap())
            .collect();
        assert!(order.is_sorted(), "{order:?}");
        let bars: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("height=\"15\""))
            .flat_map(|line| attributes(line, "rect", "width"))
            .map(|width| width.parse().unwrap())
            .collect();
        assert_eq!(bars.len(), 6);
        assert!(bars.chunks(3).all(|panel| panel.is_sorted() && panel[0] > 1.5), "{bars:?}");
    }

    #[test]
    fn it_is_well_formed_and_inside_its_frame() {
        let svg = drawn();
        let opened = ["svg", "title", "text"];
        for element in opened {
            assert_eq!(
                svg.matches(&format!("<{element}")).count(),
                svg.matches(&format!("</{element}>")).count()
            );
        }
        for line in svg.lines() {
            let inside = line.strip_prefix('<').unwrap();
            assert!(line.ends_with('>') && line.matches('"').count() % 2 == 0, "{line}");
            let has_end = line.ends_with("/>") || line.contains("</") || inside.starts_with("svg");
            assert!(has_end, "{line}");
        }
        let height: f64 = attributes(&svg, "svg", "height")[0].parse().unwrap();
        let inside = |at: &String, most: f64| (0.0..=most).contains(&at.parse::<f64>().unwrap());
        assert!(attributes(&svg, "text", "y").iter().all(|y| inside(y, height)));
        assert!(attributes(&svg, "text", "x").iter().all(|x| inside(x, WIDTH - 100.0)));
        assert!(svg.contains("fill=\"#ffffff\""));
    }
}
