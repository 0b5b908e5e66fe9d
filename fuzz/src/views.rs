//! What hosts make of files: rules, documents and templates.

use bytes::Bytes;
use rootcast::pattern::Pattern;
use rootcast::view_rules::ViewRules;
use rootcast_view::{Format, Keys, Variables, merge, read, render};

use crate::bounded;

/// F-53: rules have one form, and their patterns match or do not.
pub(crate) fn rules(input: &[u8]) {
    let Ok(rules) = bounded(input, ViewRules::decode) else { return };
    assert_eq!(rules.encode(), input, "K-4");
    let patterns = rules.merges.iter().flat_map(|merge| &merge.files).chain(&rules.templates);
    for pattern in patterns {
        assert_eq!(Pattern::new(pattern.as_str()).as_ref(), Ok(pattern), "F-42");
        let _ = pattern.matches("base/app/a.yaml");
    }
}

/// F-54, F-58: documents are read or refused, and a result is read as what it was merged to. The first
/// byte says which format, and `\0` ends a document.
pub(crate) fn document(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let format = [Format::Json, Format::Toml, Format::Yaml];
    let Some(format) = format.get(usize::from(first % 3)) else { return };
    let texts: Vec<Bytes> = rest.split(|byte| *byte == 0).take(4).map(Bytes::copy_from_slice).collect();
    let keys = Keys::from([("l".to_owned(), "n".to_owned())]);
    let Ok(merged) = merge(*format, &texts, &keys) else { return };
    if let Err(flaw) = read(*format, &merged.content, 0) {
        panic!("F-58: {flaw}");
    }
}

/// F-63: a template ends, with a bounded text or an error.
pub(crate) fn template(input: &[u8]) {
    if let Ok(text) = render(input, 0, &Variables { host: "web-1".into(), ..Variables::default() }) {
        assert!(text.len() <= 1 << 20, "F-63");
    }
}
