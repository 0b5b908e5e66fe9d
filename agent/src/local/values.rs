//! One value of a live file (LA-6).

use super::files::decoded;
use hyper::StatusCode;
use rootcast::path::ConfigPath;
use rootcast_view::{Format, Node, Seen, read};
use serde_json::{Number, Value};

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum ValueError {
    /// Its name does not say what it is.
    #[error("`{0}` is not JSON, YAML or TOML by its name; read it whole")]
    Format(ConfigPath),
    /// It does not parse.
    #[error("`{path}` does not parse: {reason}")]
    Syntax {
        /// The file.
        path: ConfigPath,
        /// What is wrong, and where.
        reason: String,
    },
    /// The file has no such key.
    #[error("`{path}` has no `{key}`")]
    Key {
        /// The file.
        path: ConfigPath,
        /// As far as it was followed.
        key: String,
    },
}

impl ValueError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Format(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Syntax { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Key { .. } => StatusCode::NOT_FOUND,
        }
    }
}

/// The key in a query: `key=a.b.c`, or nothing for the whole file.
pub(super) fn key_of(query: &str) -> Result<String, String> {
    let mut key = String::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("key", text)) => {
                key = decoded(text).ok_or("the key is not percent-encoded UTF-8")?;
            }
            _ => return Err(format!("`{}` is not known; there is `key`", part.escape_debug())),
        }
    }
    Ok(key)
}

/// The value at `key`: names of maps and places in lists, joined by dots.
pub(super) fn value(path: &ConfigPath, bytes: &[u8], key: &str) -> Result<Value, ValueError> {
    let format = Format::of(path).ok_or_else(|| ValueError::Format(path.clone()))?;
    let whole = read(format, bytes, 0)
        .map_err(|flaw| ValueError::Syntax { path: path.clone(), reason: flaw.to_string() })?;
    let mut found = &whole;
    let mut followed = String::new();
    for name in key.split('.').filter(|_| !key.is_empty()) {
        if !followed.is_empty() {
            followed.push('.');
        }
        followed.push_str(name);
        let next = match found.seen() {
            Seen::Map(fields) => fields.into_iter().find(|(field, _)| *field == name).map(|(_, node)| node),
            Seen::List(items) => name.parse().ok().and_then(|at: usize| items.get(at)),
            _ => None,
        };
        found = next.ok_or_else(|| ValueError::Key { path: path.clone(), key: followed.clone() })?;
    }
    Ok(in_json(found))
}

/// The same in JSON. What JSON has no form for, as dates and `.inf`, is text.
fn in_json(node: &Node) -> Value {
    match node.seen() {
        Seen::Null => Value::Null,
        Seen::Flag(flag) => flag.into(),
        Seen::Number(written) => number(written).map_or_else(|| written.into(), Value::Number),
        Seen::Text(text) => text.into(),
        Seen::List(items) => items.iter().map(in_json).collect(),
        Seen::Map(fields) => {
            fields.into_iter().map(|(name, node)| (name.to_owned(), in_json(node))).collect()
        }
    }
}

/// A number as any of the formats writes it.
fn number(written: &str) -> Option<Number> {
    let plain = written.trim_start_matches('+').replace('_', "");
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = plain.strip_prefix(prefix) {
            return u64::from_str_radix(digits, radix).ok().map(Number::from);
        }
    }
    let whole = plain.parse::<i64>().ok().map(Number::from);
    let whole = whole.or_else(|| plain.parse::<u64>().ok().map(Number::from));
    whole.or_else(|| Number::from_f64(plain.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn la_6_a_key_leads_through_maps_and_lists_of_each_format() {
        let json = br#"{"a": {"b": [1, {"c": "x"}], "n": 1.5}, "d": null}"#;
        let toml = b"[a]\nb = [1, {c = 'x'}]\nwhen = 2026-01-02\nn = 0xff\n";
        let yaml = b"a:\n  b: [1, {c: x}]\n  yes: true\n  s: '1'\n  n: -1_0\n";
        let value = |path: &str, bytes: &[u8], key: &str| value(&ConfigPath::new(path).unwrap(), bytes, key);
        for (path, bytes) in [("f.json", &json[..]), ("f.toml", toml), ("f.yaml", yaml)] {
            assert_eq!(value(path, bytes, "a.b.1.c").unwrap(), json!("x"));
            assert_eq!(value(path, bytes, "a.b").unwrap(), json!([1, {"c": "x"}]));
            let missing = value(path, bytes, "a.b.7.c").unwrap_err();
            assert_eq!(missing.to_string(), format!("`{path}` has no `a.b.7`"));
            assert!(value(path, b"{", "").is_err());
        }
        assert_eq!(value("f.json", json, "").unwrap()["d"], Value::Null);
        assert_eq!(value("f.json", json, "a.n").unwrap(), json!(1.5));
        assert_eq!(value("f.toml", toml, "a.when").unwrap(), json!("2026-01-02"));
        assert_eq!(value("f.toml", toml, "a.n").unwrap(), json!(255));
        assert_eq!(value("f.yaml", yaml, "a.yes").unwrap(), json!(true));
        assert_eq!(value("f.yaml", yaml, "a.s").unwrap(), json!("1"));
        assert!(matches!(value("f.conf", json, "a"), Err(ValueError::Format(_))));
        assert_eq!(key_of("key=a%2Eb").unwrap(), "a.b");
        assert!(key_of("kye=a").is_err() && key_of("").unwrap().is_empty());
    }
}
