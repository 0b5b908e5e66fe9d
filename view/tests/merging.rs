//! What merging promises, for each format.

#![allow(clippy::unwrap_used, clippy::panic)] // tests

use bytes::Bytes;
use proptest::prelude::*;
use rootcast_view::{Fault, Format, Keys, merge, read};
use serde_json::{Map, Value, json};

fn keys(pairs: &[(&str, &str)]) -> Keys {
    pairs.iter().map(|(list, field)| (list.to_string(), field.to_string())).collect()
}

fn merged(format: Format, texts: &[&str], by: &[(&str, &str)]) -> String {
    let texts: Vec<Bytes> = texts.iter().map(|text| Bytes::from(text.to_string())).collect();
    let merged = merge(format, &texts, &keys(by)).unwrap_or_else(|flaw| panic!("{flaw}: {texts:?}"));
    String::from_utf8(merged.content.to_vec()).unwrap()
}

fn refused(format: Format, texts: &[&str], by: &[(&str, &str)]) -> (usize, String) {
    let texts: Vec<Bytes> = texts.iter().map(|text| Bytes::from(text.to_string())).collect();
    let flaw = merge(format, &texts, &keys(by)).map(|merged| merged.content).unwrap_err();
    (flaw.place.layer, flaw.to_string())
}

#[test]
fn f_54_maps_merge_lists_replace_and_order_is_the_lowest_layers() {
    let base = "# kept by nobody\nb: 1\na:\n  x: yes\n  y: 'on'\n  list: [1, 2]\n";
    let over = "a:\n  y: no\n  z: |\n    two\n    lines\n  list: [3]\nc: {d: e}\n";
    let expected = "b: 1\na:\n  x: yes\n  y: no\n  list:\n    - 3\n  z: |\n    two\n    lines\nc:\n  d: e\n";
    assert_eq!(merged(Format::Yaml, &[base, over], &[]), expected);
    let json = merged(Format::Json, &[r#"{"b":1.50,"a":{"x":1}}"#, r#"{"a":{"y":[1e400]},"b":2}"#], &[]);
    assert_eq!(json, "{\n  \"b\": 2,\n  \"a\": {\n    \"x\": 1,\n    \"y\": [\n      1e400\n    ]\n  }\n}\n");
}

#[test]
fn f_54_toml_keeps_comments_and_order() {
    let base = "# the head\nb = 1 # why one\n\n# a table\n[a]\nx = 1\n# y is here\ny = 2\n\n[z]\nq = 1\n";
    let over = "b = 3\n[a]\ny = 5\nnew = 'n'\n[a.sub]\nk = true\n[other]\nv = [1]\n";
    let expected = "# the head\nb = 3 # why one\n\n# a table\n[a]\nx = 1\n# y is here\ny = 5\nnew = 'n'\n[a.sub]\nk = true\n\n[z]\nq = 1\n[other]\nv = [1]\n";
    assert_eq!(merged(Format::Toml, &[base, over], &[]), expected);
}

#[test]
fn f_55_items_of_keyed_lists_are_told_apart_by_their_field() {
    let by = [("servers", "name"), ("servers.ports", "port")];
    let base = "servers:\n- name: a\n  ports: [{port: 1, tls: false}]\n- {name: b}\n- {name: c}\n";
    let over = "servers:\n- {name: c, $delete: true}\n- {name: d}\n- name: a\n  ports: [{port: 2}, {port: 1, tls: true}]\n";
    let expected = "servers:\n  - name: a\n    ports:\n      - port: 1\n        tls: true\n      - port: 2\n  - name: b\n  - name: d\n";
    assert_eq!(merged(Format::Yaml, &[base, over], &by), expected);
    let base = "[[servers]]\nname = 'a' # first\nn = 1\n\n[[servers]]\nname = 'b'\n";
    let over = "servers = [{name = 'b', '$delete' = true}, {name = 'a', n = 2}, {name = 'c'}]\n";
    let expected = "[[servers]]\nname = 'a' # first\nn = 2\n\n[[servers]]\nname = 'c'\n";
    assert_eq!(merged(Format::Toml, &[base, over], &by).replace("\n\n\n", "\n\n"), expected);
    let inline = "servers = [\n  {name = 'a'},\n  {name = 'b'},\n]\n";
    let over = "[[servers]]\nname = 'b'\nn = 1\n[[servers]]\nname = 'c'\n";
    let text = merged(Format::Toml, &[inline, over], &by);
    assert!(text.contains("{name = 'a'},\n") && text.contains("n = 1") && text.contains("'c'"), "{text}");
}

#[test]
fn f_56_delete_takes_away_what_is_below_and_is_never_delivered() {
    let gone = merged(
        Format::Yaml,
        &["a: {x: 1, y: 2}\nb: 1\n", "a: {x: {$delete: true}}\nb: {$delete: true}\n"],
        &[],
    );
    assert_eq!(gone, "a:\n  y: 2\n");
    let back = merged(Format::Yaml, &["a: {x: 1}\n", "a: {$delete: true}\n", "a: {z: 1}\n"], &[]);
    assert_eq!(back, "a:\n  z: 1\n");
    assert_eq!(merged(Format::Yaml, &["a: {x: {$delete: true}, y: 1}\n"], &[]), "a:\n  y: 1\n");
    assert_eq!(
        merged(Format::Json, &[r#"{"a":1,"b":2}"#, r#"{"b":{"$delete":true}}"#], &[]),
        "{\n  \"a\": 1\n}\n"
    );
    let toml = merged(
        Format::Toml,
        &["[a]\nx = 1\n[b]\ny = 1\n", "[b]\n'$delete' = true\n[a]\nx = {'$delete' = true}\n"],
        &[],
    );
    assert_eq!(toml, "[a]\n");
    for text in ["a: {$delete: true, b: 1}", "a: {$delete: 'true'}", "$delete: true", "a: [{$delete: true}]"]
    {
        let (_, message) = refused(Format::Yaml, &["{}", text], &[]);
        assert!(message.contains("$delete"), "{text}: {message}");
    }
}

#[test]
fn f_57_every_flaw_names_layer_line_and_column() {
    let by = [("l", "n")];
    let cases: &[(Format, &[&str], usize, &str)] = &[
        (Format::Yaml, &["a: 1\n", "a: 1\nb: 2\na: 3\n"], 1, "3:1: duplicate key `a`"),
        (Format::Yaml, &["a: [1\n"], 0, "2:1: "),
        (Format::Yaml, &["a: 1\n---\nb: 1\n"], 0, "3:1: has several documents"),
        (Format::Yaml, &["- 1\n"], 0, "1:1: only documents that are a map"),
        (Format::Yaml, &["a: *b\n"], 0, "1:4: "),
        (Format::Yaml, &["a: &b [*b]\n"], 0, "1:"),
        (Format::Yaml, &["? [a]\n: 1\n"], 0, "1:3: a key that is a map or list"),
        (
            Format::Yaml,
            &["l: [{n: 1}]", "l:\n  - {m: 1}\n"],
            1,
            "2:5: the items of this list are told apart by `n`",
        ),
        (Format::Yaml, &["l:\n - n: 1\n - n: 1\n"], 0, "3:4: two items of this list have `n` `1`"),
        (Format::Json, &["{\"ü\": 1,\n \"a\": tru}"], 0, "2:7: a value is wanted"),
        (Format::Json, &["{\"a\": 1, \"a\": 2}"], 0, "1:10: duplicate key `a`"),
        (Format::Json, &["{\"a\": 01}"], 0, "1:7: "),
        (Format::Json, &["{} x"], 0, "1:4: more after"),
        (Format::Json, &["{\"a\": \"\\ud800\"}"], 0, "1:8: half of a surrogate"),
        (Format::Toml, &["a = 1\n", "b = 1\n a = 2\na = 3\n"], 1, "3:1: duplicate key `a`"),
        (Format::Toml, &["a = \n"], 0, "1:"),
    ];
    for (format, texts, layer, start) in cases {
        let (at, message) = refused(*format, texts, &by);
        assert!(message.starts_with(start) && at == *layer, "{texts:?}: {at} {message}");
    }
    let flaw = read(Format::Json, b"{\"a\":\n \"\xff\"}", 3).unwrap_err();
    assert_eq!((flaw.place.layer, flaw.place.line, flaw.place.column), (3, 2, 3));
    assert_eq!(flaw.fault, Fault::NotUtf8);
}

#[test]
fn f_58_bombs_and_depth_are_bounded() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(",")));
    }
    let (_, message) = refused(Format::Yaml, &[&bomb], &[]);
    assert!(message.contains("more than 200000 values"), "{message}");
    for (format, open) in
        [(Format::Yaml, "["), (Format::Json, "["), (Format::Yaml, "- "), (Format::Yaml, "{a: ")]
    {
        let (_, message) = refused(format, &[&open.repeat(100_000)], &[]);
        // The scanner of YAML has a bound of its own for brackets.
        assert!(
            message.contains("deeper than 64") || message.contains("recursion limit"),
            "{open}: {message}"
        );
    }
    let toml = format!("a = {}", "[".repeat(100_000));
    refused(Format::Toml, &[&toml], &[]);
    let mut deep = String::from("a: &a [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]\n");
    for (to, from) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d")] {
        deep.push_str(&format!("{to}: &{to} [[[[[[[[[[[[[[[[[[[[*{from}]]]]]]]]]]]]]]]]]]]]\n"));
    }
    assert!(
        refused(Format::Yaml, &[&deep], &[]).1.contains("deeper"),
        "aliases count as what they stand for"
    );
}

#[test]
fn f_58_aliases_and_merge_keys_are_written_out() {
    let text = "base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nquoted:\n  \"<<\": 1\n";
    let expected = "base:\n  x: 1\n  y: 2\nuse:\n  y: 3\n  x: 5\nquoted:\n  \"<<\": 1\n";
    assert_eq!(merged(Format::Yaml, &[text, "use: {x: 5}\n"], &[]), expected);
}

#[test]
fn f_54_yaml_scalars_mean_what_they_meant() {
    let odd = "a: !!str 012\nb: \"yes\"\nc: '#'\nd: !Ref x\ne: >-\n  folded\n  text\nf:\ng: ~\nh: \"\\u0085\\e\"\ni: \"- x\"\nj: |2\n    x\n";
    let text = merged(Format::Yaml, &[odd, "z: 1\n"], &[]);
    for line in [
        "a: !!str 012",
        "b: \"yes\"",
        "c: \"#\"",
        "d: !Ref x",
        "e: |-\n  folded text",
        "f:\n",
        "g: ~",
        "i: \"- x\"",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

/// Documents without markers whose shape at each path is one and the same, so that a merge has no change of kind.
fn shaped(depth: u32) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![Just(json!(1)), Just(json!("two")), Just(json!(true)), Just(json!([1, {"x": 2}]))];
    let names = prop::sample::subsequence(vec!["a", "b", "c"], 0..=3);
    if depth == 0 {
        (names, prop::collection::vec(leaf, 3)).prop_map(map).boxed()
    } else {
        (names, prop::collection::vec(shaped(depth - 1), 3)).prop_map(map).boxed()
    }
}

fn map((names, values): (Vec<&str>, Vec<Value>)) -> Value {
    Value::Object(names.into_iter().map(String::from).zip(values).collect::<Map<_, _>>())
}

fn join(texts: &[&str]) -> String {
    merged(Format::Json, texts, &[])
}

fn meaning(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

proptest! {
    #[test]
    fn f_54_a_merge_with_nothing_is_what_was_there(document in shaped(2), format in 0..3) {
        let (format, text, nothing) = match format {
            0 => (Format::Json, document.to_string(), "{}"),
            // JSON is YAML.
            1 => (Format::Yaml, document.to_string(), "# nothing\n"),
            _ => (Format::Toml, format!("# all\nroot = 1\n[x]\nn = {}\n", document.as_object().unwrap().len()), "# nothing\n"),
        };
        prop_assert_eq!(&merged(format, &[&text, nothing], &[]), &text);
        if meaning(&document.to_string()) != json!({}) {
            prop_assert_eq!(&merged(format, &[nothing, &text], &[]), &text);
        }
    }

    #[test]
    fn f_54_without_changes_of_kind_it_is_no_matter_what_is_merged_first(a in shaped(2), b in shaped(2), c in shaped(2)) {
        let (a, b, c) = (a.to_string(), b.to_string(), c.to_string());
        let left = join(&[&join(&[&a, &b]), &c]);
        let right = join(&[&a, &join(&[&b, &c])]);
        prop_assert_eq!(meaning(&left), meaning(&right));
        prop_assert_eq!(meaning(&left), meaning(&join(&[&a, &b, &c])));
    }

    #[test]
    fn f_54_the_three_formats_agree(a in shaped(2), b in shaped(2)) {
        let json = join(&[&a.to_string(), &b.to_string()]);
        let yaml = merged(Format::Yaml, &[&a.to_string(), &b.to_string()], &[]);
        let of = |format, text: &str| {
            let mut values: Vec<_> = read(format, text.as_bytes(), 0).unwrap().values().into_iter().map(|(key, _, text)| (key, text)).collect();
            values.sort();
            values
        };
        prop_assert_eq!(of(Format::Json, &json), of(Format::Yaml, &yaml));
    }

    #[test]
    fn f_58_any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), more in "[ab:{}\\[\\],&*!?|>'\"#\n -]{0,48}") {
        for format in [Format::Json, Format::Toml, Format::Yaml] {
            let _ = merge(format, &[Bytes::from(bytes.clone()), Bytes::from(more.clone())], &keys(&[]));
            // What can be read can be merged with another, or is refused: never written as something else.
            let _ = merge(format, &[Bytes::from(more.clone()), Bytes::from_static(b"zz: 1\n")], &keys(&[]));
        }
    }
}
