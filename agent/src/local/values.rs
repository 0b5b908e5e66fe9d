//! One value of a live file (L-6).

use super::files::decoded;
use hyper::StatusCode;
use serde_json::Value;

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum ValueError {
    /// Its name does not say what it is.
    #[error("`{0}` is not JSON or TOML by its name; read it whole")]
    Format(String),
    /// It does not parse.
    #[error("`{path}` does not parse: {reason}")]
    Syntax {
        /// The file.
        path: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// The file has no such key.
    #[error("`{path}` has no `{key}`")]
    Key {
        /// The file.
        path: String,
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
pub(super) fn value(path: &str, bytes: &[u8], key: &str) -> Result<Value, ValueError> {
    let syntax = |reason: String| ValueError::Syntax { path: path.into(), reason };
    let whole = match path.rsplit('.').next() {
        Some("json") => serde_json::from_slice(bytes).map_err(|error| syntax(error.to_string()))?,
        Some("toml") => {
            let text = std::str::from_utf8(bytes).map_err(|error| syntax(error.to_string()))?;
            let table: toml::Table = toml::from_str(text).map_err(|error| syntax(error.to_string()))?;
            of_toml(toml::Value::Table(table))
        }
        _ => return Err(ValueError::Format(path.into())),
    };
    let mut found = whole;
    let mut followed = String::new();
    for name in key.split('.').filter(|_| !key.is_empty()) {
        if !followed.is_empty() {
            followed.push('.');
        }
        followed.push_str(name);
        let next = match found {
            Value::Object(mut map) => map.remove(name),
            Value::Array(list) => name.parse().ok().and_then(|at: usize| list.into_iter().nth(at)),
            _ => None,
        };
        found = next.ok_or_else(|| ValueError::Key { path: path.into(), key: followed.clone() })?;
    }
    Ok(found)
}

/// The same in JSON; dates and times as text.
fn of_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(list) => list.into_iter().map(of_toml).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(name, value)| (name, of_toml(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn l_6_a_key_leads_through_maps_and_lists_of_json_and_toml() {
        let json = br#"{"a": {"b": [1, {"c": "x"}]}, "d": null}"#;
        let toml = b"[a]\nb = [1, {c = 'x'}]\nwhen = 2026-01-02\n";
        for (path, bytes) in [("f.json", &json[..]), ("f.toml", toml)] {
            assert_eq!(value(path, bytes, "a.b.1.c").unwrap(), json!("x"));
            assert_eq!(value(path, bytes, "a.b").unwrap(), json!([1, {"c": "x"}]));
            let missing = value(path, bytes, "a.b.7.c").unwrap_err();
            assert_eq!(missing.to_string(), format!("`{path}` has no `a.b.7`"));
            assert!(value(path, b"{", "").is_err());
        }
        assert_eq!(value("f.json", json, "").unwrap()["d"], Value::Null);
        assert_eq!(value("f.toml", toml, "a.when").unwrap(), json!("2026-01-02"));
        assert!(matches!(value("f.conf", json, "a"), Err(ValueError::Format(_))));
        assert_eq!(key_of("key=a%2Eb").unwrap(), "a.b");
        assert!(key_of("kye=a").is_err() && key_of("").unwrap().is_empty());
    }
}
