//! Measurements as text that Prometheus reads (specs/status.md, ST-42).
//!
//! Written by hand, not with a registry: every number has one owner already, which is
//! asked when somebody looks, and the format is a page long.

use core::fmt::Write;

/// What kind of number a family is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever rises, from 0 at the start of the process; its name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// A page of measurements.
#[derive(Debug, Clone, Default)]
pub struct Exposition {
    text: String,
}

/// A family that samples are added to.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'a str,
    text: &'a mut String,
}

impl Exposition {
    /// What such a page is called in HTTP.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family. Each is begun once, and has all its samples together.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { name, text: &mut self.text }
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Adds a whole number.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) -> &mut Self {
        self.line(labels, &value.to_string())
    }

    /// Adds a number of seconds.
    pub fn seconds(&mut self, labels: &[(&str, &str)], value: core::time::Duration) -> &mut Self {
        self.line(labels, &value.as_secs_f64().to_string())
    }

    fn line(&mut self, labels: &[(&str, &str)], value: &str) -> &mut Self {
        self.text.push_str(self.name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn st_42_families_samples_and_escapes() {
        let mut page = Exposition::default();
        page.family("a_total", Kind::Counter, "Some \\ help\nof two lines.").sample(&[], 3);
        page.family("b_seconds", Kind::Gauge, "B.")
            .seconds(&[("x", "1")], Duration::from_millis(1500))
            .sample(&[("x", "a\"b\\c\n"), ("y", "")], 1 << 53);
        let want = "# HELP a_total Some \\\\ help\\nof two lines.\n# TYPE a_total counter\na_total 3\n\
            # HELP b_seconds B.\n# TYPE b_seconds gauge\nb_seconds{x=\"1\"} 1.5\n\
            b_seconds{x=\"a\\\"b\\\\c\\n\",y=\"\"} 9007199254740992\n";
        assert_eq!(page.into_text(), want);
    }
}
