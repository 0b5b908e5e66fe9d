//! The figures of a measurement, and what is read from them.

use crate::cost::Cost;
use crate::floor::{Floor, SIGNATURE};
use crate::ours::{Fanout, Measure, Ours, Way};
use crate::sample::Pair;
use std::time::Duration;

/// How one host gets a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is up to date and connected, and gets one commit.
    Step,
    /// It was stopped some commits ago, and starts again.
    Jump,
    /// It is empty, and joins.
    Cold,
}

impl Mode {
    /// One word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Jump => "jump",
            Self::Cold => "cold",
        }
    }
}

/// What a column is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bound that no tool reaches.
    Floor,
    /// Rootcast.
    Ours,
    /// Another tool.
    Peer,
}

/// The costs of one tool, or of one way to count them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Whether only `down` means anything.
    pub(crate) only_down: bool,
    /// One for each sample, as far as it was measured.
    pub(crate) costs: Vec<Option<Cost>>,
}

/// The name of the column that all others are compared with.
pub(crate) const REFERENCE: &str = "Rootcast: protocol";

/// What one mode came to.
pub(crate) struct ModeFigures {
    pub(crate) mode: Mode,
    /// Commits that a sample spans.
    pub(crate) span: usize,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) measure: Measure,
    /// One for each sample, where there is something to bound.
    pub(crate) floors: Vec<Option<Floor>>,
    pub(crate) columns: Vec<Column>,
    /// What a reader must know.
    pub(crate) notes: Vec<String>,
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) repository: String,
    pub(crate) head: String,
    pub(crate) modes: Vec<ModeFigures>,
    pub(crate) fanout: Option<(Vec<Pair>, Fanout, Vec<String>)>,
    /// Peers that are not installed: name and Debian package.
    pub(crate) skipped: Vec<(String, String)>,
    /// What a reader must know of all modes.
    pub(crate) notes: Vec<String>,
}

/// Median, ninth decile and sum.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) p90: f64,
    pub(crate) total: f64,
}

/// The smallest value that at least `percent` of all are not above.
pub(crate) fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

impl Spread {
    /// Of some values; `None` of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let (median, p90) = (percentile(&values, 50)?, percentile(&values, 90)?);
        Some(Self { median, p90, total: values.iter().sum() })
    }
}

impl Column {
    fn new(name: &str, kind: Kind, costs: Vec<Option<Cost>>) -> Self {
        Self { name: name.to_owned(), kind, only_down: false, costs }
    }

    fn bytes(name: &str, kind: Kind, down: impl Iterator<Item = Option<u64>>) -> Self {
        let cost = |down| Cost { down, ..Cost::default() };
        Self { only_down: true, ..Self::new(name, kind, down.map(|down| down.map(cost)).collect()) }
    }

    /// Another tool's.
    pub(crate) fn peer(name: &str, costs: Vec<Option<Cost>>) -> Self {
        Self::new(name, Kind::Peer, costs)
    }

    /// What was measured.
    pub(crate) fn measured(&self) -> impl Iterator<Item = &Cost> {
        self.costs.iter().flatten()
    }

    /// A figure of every measured sample; `None` where it does not apply or is not known of any.
    pub(crate) fn spread(&self, of: impl Fn(&Cost) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.measured().filter_map(of))
    }

    /// Bytes down.
    pub(crate) fn down(&self) -> Option<Spread> {
        self.spread(|cost| Some(cost.down as f64))
    }

    /// How many times the reference's median of bytes down this one's is. Both over the samples
    /// that both measured.
    pub(crate) fn ratio(&self, reference: &Self) -> Option<f64> {
        let both = || self.costs.iter().zip(&reference.costs).filter_map(|(one, other)| one.zip(*other));
        let one = Spread::of(both().map(|(one, _)| one.down as f64))?.median;
        let other = Spread::of(both().map(|(_, other)| other.down as f64))?.median;
        (other > 0.0).then_some(one / other)
    }
}

/// The floors and Rootcast's own columns.
pub(crate) fn own_columns(mode: Mode, measure: &Measure, floors: &[Option<Floor>]) -> Vec<Column> {
    let ours: Vec<Option<&Ours>> = measure.samples.iter().map(|sample| sample.as_ref().ok()).collect();
    let bytes = |name, of: fn(&Ours) -> u64| Column::bytes(name, Kind::Ours, ours.iter().map(|o| o.map(of)));
    let round_trips = measure.round_trips.map(|trips| trips as u64);
    let protocol = |ours: &Ours| Cost {
        down: ours.down,
        up: ours.up,
        round_trips,
        server_cpu: Some(ours.publisher_cpu + ours.origin_cpu),
        client_cpu: Some(ours.client_cpu),
        wall: ours.wall,
    };
    let udp = |bytes: fn(&Way) -> u64| {
        let cost = move |ours: &Ours| Cost {
            down: bytes(&ours.udp.down),
            up: bytes(&ours.udp.up),
            ..protocol(ours)
        };
        ours.iter().map(|ours| ours.map(cost)).collect::<Vec<_>>()
    };
    let mut columns = Vec::new();
    if floors.iter().any(Option::is_some) {
        let floor = |name, more: u64| {
            let down = floors.iter().map(move |floor| floor.as_ref().map(|floor| floor.bytes + more));
            Column::bytes(name, Kind::Floor, down)
        };
        columns.push(floor("floor: content", 0));
        columns.push(floor("floor: content + signature", SIGNATURE));
    }
    columns.push(bytes("Rootcast: edit", |ours| ours.edit));
    let costs = ours.iter().map(|ours| ours.map(protocol)).collect();
    columns.push(Column::new(REFERENCE, Kind::Ours, costs));
    columns.push(Column::new("Rootcast: UDP", Kind::Ours, udp(|way| way.bytes)));
    if mode != Mode::Step {
        let costs = udp(|way| way.bytes - way.handshake);
        columns.push(Column::new("Rootcast: UDP without handshake", Kind::Ours, costs));
    }
    columns
}

/// A count of bytes for people.
pub(crate) fn bytes(count: f64) -> String {
    match count {
        count if count < 10_000.0 => format!("{count:.0} B"),
        count if count < 10_000_000.0 => format!("{:.1} KB", count / 1e3),
        count => format!("{:.1} MB", count / 1e6),
    }
}

/// A time for people.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

/// [`time`] of a duration.
pub(crate) fn duration(duration: Duration) -> String {
    time(duration.as_secs_f64())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A column of one peer with these bytes down.
    pub(crate) fn column(name: &str, kind: Kind, down: &[u64]) -> Column {
        let cost = |down: &u64| Some(Cost { down: *down, up: 10, ..Cost::default() });
        Column::new(name, kind, down.iter().map(cost).collect())
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(percentile(&values, 50), Some(5.0));
        assert_eq!(percentile(&values, 90), Some(9.0));
        assert_eq!(percentile(&values, 99), Some(10.0));
        assert_eq!(percentile(&[3.0, 1.0], 50), Some(1.0));
        assert_eq!(percentile(&[7.0], 90), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
        let spread = Spread::of([4.0, 1.0, 1.0]).unwrap();
        assert_eq!(spread, Spread { median: 1.0, p90: 4.0, total: 6.0 });
    }

    #[test]
    fn ratios_are_over_what_both_measured() {
        let reference = column(REFERENCE, Kind::Ours, &[100, 200, 300]);
        let mut other = column("other", Kind::Peer, &[1000, 400, 900]);
        assert_eq!(other.ratio(&reference), Some(4.5));
        other.costs[0] = None;
        assert_eq!(other.ratio(&reference), Some(2.0));
        other.costs = vec![None; 3];
        assert_eq!(other.ratio(&reference), None);
        assert_eq!(reference.ratio(&reference), Some(1.0));
    }

    #[test]
    fn numbers_have_units_that_fit() {
        assert_eq!([bytes(212.0), bytes(12_345.0), bytes(3e7)], ["212 B", "12.3 KB", "30.0 MB"]);
        assert_eq!([time(42e-6), time(0.0123), time(2.5)], ["42 µs", "12.3 ms", "2.50 s"]);
    }

    #[test]
    fn a_handshake_can_be_left_out() {
        let way = |bytes, handshake| Way { bytes, handshake, datagrams: 1 };
        let udp = crate::ours::Tally { down: way(3000, 2000), up: way(2500, 2400) };
        let ours = Ours { edit: 50, down: 400, up: 90, udp, ..Ours::default() };
        let measure = Measure { samples: vec![Ok(ours), Err("why".into())], round_trips: Some(2.5) };
        let columns = own_columns(Mode::Jump, &measure, &[None, None]);
        let down: Vec<(String, f64)> =
            columns.iter().map(|column| (column.name.clone(), column.down().unwrap().median)).collect();
        let expected = [
            ("Rootcast: edit", 50.0),
            (REFERENCE, 400.0),
            ("Rootcast: UDP", 3000.0),
            ("Rootcast: UDP without handshake", 1000.0),
        ];
        assert_eq!(down, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
        assert_eq!(columns[1].costs[0].unwrap().round_trips, Some(2));
        assert_eq!(columns[1].costs[1], None);
    }
}
