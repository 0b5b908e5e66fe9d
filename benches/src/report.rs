//! Every figure of every step, for programs.

use crate::cost::Cost;
use crate::figures::{Column, Figures, Kind, ModeFigures, REFERENCE, Spread};
use crate::floor::{Floor, SIGNATURE};
use crate::ours::{Fanout, FanoutStep, Ours, Way};
use crate::sample::Pair;
use serde_json::{Value, json};
use std::time::Duration;

fn micros(duration: Duration) -> Value {
    // Whole nanoseconds fit: 53 bits of them are a hundred days.
    json!(duration.as_nanos() as f64 / 1e3)
}

/// Everything.
pub(crate) fn json(figures: &Figures) -> Value {
    let skipped: Vec<Value> =
        figures.skipped.iter().map(|(name, package)| json!({ "name": name, "package": package })).collect();
    let mut modes = serde_json::Map::new();
    for mode in &figures.modes {
        modes.insert(mode.mode.as_str().into(), mode_value(mode));
    }
    if let Some((pairs, fanout, notes)) = &figures.fanout {
        modes.insert("fanout".into(), fanout_value(pairs, fanout, notes));
    }
    json!({
        "version": env!("CARGO_PKG_VERSION"), "repository": figures.repository, "head": figures.head,
        "debug_build": cfg!(debug_assertions), "reference": REFERENCE,
        "notes": figures.notes, "skipped": skipped, "modes": modes,
    })
}

fn mode_value(figures: &ModeFigures) -> Value {
    let reference = figures.columns.iter().find(|column| column.name == REFERENCE);
    let samples: Vec<Value> = figures
        .pairs
        .iter()
        .enumerate()
        .map(|(at, pair)| {
            let ours = match figures.measure.samples.get(at) {
                Some(Ok(ours)) => ours_value(ours),
                Some(Err(reason)) => json!({ "failed": reason }),
                None => Value::Null,
            };
            let floor = figures.floors.get(at).and_then(Option::as_ref).map(floor_value);
            let costs: serde_json::Map<String, Value> = figures
                .columns
                .iter()
                .filter(|column| column.kind == Kind::Peer)
                .map(|column| (column.name.clone(), json!(cost_at(column, at))))
                .collect();
            let more = json!({ "rootcast": ours, "floor": floor, "peers": costs });
            merged(pair_value(pair), more)
        })
        .collect();
    let columns: Vec<Value> = figures.columns.iter().map(|column| column_value(column, reference)).collect();
    json!({
        "commits_per_sample": figures.span, "round_trips_measured": figures.measure.round_trips,
        "notes": figures.notes, "columns": columns, "samples": samples,
    })
}

fn pair_value(pair: &Pair) -> Value {
    json!({ "from": pair.from, "to": pair.to(), "commits": pair.commits.len() })
}

fn ours_value(ours: &Ours) -> Value {
    let way = |way: &Way| json!({ "bytes": way.bytes, "datagrams": way.datagrams, "handshake_bytes": way.handshake });
    json!({
        "edit_bytes": ours.edit, "update_bytes": ours.update, "down": ours.down, "up": ours.up,
        "udp": { "down": way(&ours.udp.down), "up": way(&ours.udp.up) },
        "publisher_cpu_us": micros(ours.publisher_cpu), "origin_cpu_us": micros(ours.origin_cpu),
        "client_cpu_us": micros(ours.client_cpu), "wall_us": micros(ours.wall),
        "publish_us": micros(ours.publish), "connected_us": ours.connected.map(micros),
        "first_byte_us": ours.first.map(micros),
    })
}

fn floor_value(floor: &Floor) -> Value {
    let all: serde_json::Map<String, Value> =
        floor.all.iter().map(|(coder, bytes)| ((*coder).to_owned(), json!(bytes))).collect();
    json!({ "bytes": floor.bytes, "signed": floor.bytes + SIGNATURE, "coder": floor.coder, "coders": all })
}

fn cost_at(column: &Column, at: usize) -> Option<Value> {
    column.costs.get(at).copied().flatten().map(|cost| cost_value(&cost))
}

fn cost_value(cost: &Cost) -> Value {
    json!({
        "down": cost.down, "up": cost.up, "round_trips": cost.round_trips,
        "server_cpu_us": cost.server_cpu.map(micros), "client_cpu_us": cost.client_cpu.map(micros),
        "wall_us": micros(cost.wall),
    })
}

fn spread_value(spread: Option<Spread>) -> Value {
    spread.map_or(
        Value::Null,
        |Spread { median, p90, total }| json!({ "median": median, "p90": p90, "total": total }),
    )
}

fn column_value(column: &Column, reference: Option<&Column>) -> Value {
    let kind = match column.kind {
        Kind::Floor => "floor",
        Kind::Ours => "rootcast",
        Kind::Peer => "peer",
    };
    let value = json!({
        "name": column.name, "kind": kind, "samples": column.measured().count(),
        "down": spread_value(column.down()),
        "ratio": reference.and_then(|reference| column.ratio(reference)),
    });
    if column.only_down {
        return value;
    }
    let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
    let more = json!({
        "up": spread_value(column.spread(|cost| Some(cost.up as f64))),
        "round_trips": spread_value(column.spread(|cost| cost.round_trips.map(|trips| trips as f64))),
        "server_cpu_us": spread_value(column.spread(|cost| cost.server_cpu.map(micros))),
        "client_cpu_us": spread_value(column.spread(|cost| cost.client_cpu.map(micros))),
        "wall_us": spread_value(column.spread(|cost| Some(micros(cost.wall)))),
    });
    merged(value, more)
}

/// An object with the fields of another after its own.
fn merged(mut value: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut value, more) {
        fields.extend(more);
    }
    value
}

fn fanout_value(pairs: &[Pair], fanout: &Fanout, notes: &[String]) -> Value {
    let step = |step: &FanoutStep| {
        let links: Vec<Value> = step
            .links
            .iter()
            .map(|link| {
                json!({ "parent": link.parent, "child": link.child, "down": link.down, "up": link.up })
            })
            .collect();
        let times = |times: &[Duration]| -> Vec<Value> { times.iter().map(|time| micros(*time)).collect() };
        json!({
            "links": links, "publisher_cpu_us": micros(step.publisher_cpu),
            "origin_cpu_us": micros(step.origin_cpu), "relay_cpu_us": micros(step.relay_cpu),
            "host_cpu_us": micros(step.host_cpu), "from_publish_us": times(&step.from_publish),
            "from_durable_us": times(&step.from_durable),
        })
    };
    let samples: Vec<Value> = pairs
        .iter()
        .zip(&fanout.steps)
        .map(|(pair, outcome)| {
            let ours = match outcome {
                Ok(measured) => step(measured),
                Err(reason) => json!({ "failed": reason }),
            };
            merged(pair_value(pair), json!({ "rootcast": ours }))
        })
        .collect();
    json!({ "relays": fanout.relays, "hosts": fanout.hosts, "notes": notes, "samples": samples })
}
