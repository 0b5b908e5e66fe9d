//! Seeds of what hosts make files of.

use super::Seeds;
use rootcast::pattern::Pattern;
use rootcast::view_rules::{MergeRule, ViewRules};

pub(super) fn add(seeds: &mut Seeds) {
    let pattern = |text: &str| Pattern::new(text).unwrap();
    let keys = [("servers".to_owned(), "name".to_owned())].into();
    let merge = MergeRule { files: vec![pattern("**/*.{yaml,yml}"), pattern("a/[b-d]?.toml")], keys };
    let rules = ViewRules { merges: vec![merge], templates: vec![pattern("t/**")] };
    seeds.add("view-rules", "none", ViewRules::default().encode());
    seeds.add("view-rules", "some", rules.encode());
    let json = r#"{"l": [{"n": 1}], "a": null}~{"l": [{"n": 1, "$delete": true}]}"#;
    let toml = "# c\na = 1\n[[l]]\nn = 1\n[t.u]\nx = {y = 1}\n~l = [{n = 1, z = 2}]\nt.u.x.q = 3\n";
    let yaml =
        "a: &a {x: 1}\nb:\n  <<: *a\n  y: |\n    t\nl:\n- n: 1\n~l: [{n: 2}]\na: {x: {$delete: true}}\n";
    for (format, name, texts) in [("\0", "json", json), ("\u{1}", "toml", toml), ("\u{2}", "yaml", yaml)] {
        seeds.add("view-document", name, format!("{format}{}", texts.replace('~', "\0")));
    }
    let all = "{% if host == 'x' %}a{% endif %}{% for i in range(3) %}{{ i ~ host|upper }}{% endfor %}\n";
    seeds.add("view-template", "all", all);
    seeds.add("view-template", "undefined", "# {{ labels.region }}\n{{ host.x }}");
}
