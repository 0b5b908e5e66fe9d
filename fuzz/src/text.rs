//! What people write: paths, names, settings.

use crate::bounded;
use rootcast::join::JoinString;
use rootcast::layers::LayerPattern;
use rootcast::member::Labels;
use rootcast::path::{BundleName, ChannelName, ConfigPath, LinkTarget};
use rootcast_bundler::config::Rootcast;
use rootcast_transport::PeerName;
use std::path::{Component, Path};

/// T-3: a path is what the operating system takes for a plain relative one, and no link resolves
/// to above its root. Up to the first NUL the input is a path, after it a link's target.
pub(crate) fn path(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (Some(at), target) = (parts.next(), parts.next()) else { return };
    let Ok(at) = bounded(at, ConfigPath::from_bytes) else { return };
    // The standard library is the other opinion: it leaves out `.`, `//` and a `/` at the end.
    let components: Vec<_> = Path::new(at.as_str()).components().collect();
    assert!(components.iter().all(|component| matches!(component, Component::Normal(_))), "T-3: {at:?}");
    let joined: std::path::PathBuf = components.iter().collect();
    assert_eq!(joined.to_str(), Some(at.as_str()), "T-3");
    assert!(at.as_str().len() <= 1024 && components.len() <= 64, "T-3: {at:?}");
    assert!(components.iter().all(|component| component.as_os_str().len() <= 255), "T-3: {at:?}");
    assert!(!at.as_str().chars().any(char::is_control), "T-3: {at:?}");
    let Some(Ok(target)) = target.map(str::from_utf8) else { return };
    let Ok(link) = LinkTarget::new(&at, target) else { return };
    let mut depth = components.len() - 1;
    for component in Path::new(link.as_str()).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth = depth.checked_sub(1).expect("T-3: a link that leaves the bundle"),
            other => panic!("T-3: {other:?} in {link:?}"),
        }
    }
}

/// T-3, W-2 and the layers of F-12: a name that is read is printed as it was written.
pub(crate) fn names(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let channel = bounded(input, |_| ChannelName::new(text));
    let bundle = BundleName::new(text);
    assert_eq!(channel.is_ok(), bundle.is_ok(), "T-3: one rule for both");
    if let Ok(channel) = channel {
        assert_eq!(channel.as_str(), text);
        assert!(
            text.len() <= 128
                && text.bytes().all(|byte| b"abcdefghijklmnopqrstuvwxyz0123456789._-/".contains(&byte))
        );
        ConfigPath::new(text).expect("T-3: a name is a path");
        // D-18: what lies under a name is that name and `/`.
        let parent = text.rsplit_once('/').map(|(parent, _)| ChannelName::new(parent).expect("a name"));
        assert!(channel.is_under(&channel) && parent.is_none_or(|parent| channel.is_under(&parent)));
    }
    if let Ok(peer) = PeerName::from_uri(text) {
        assert_eq!(peer.to_uri(), text, "W-2");
        BundleName::new(peer.name()).expect("W-2: a name");
    }
    if let Ok(layer) = LayerPattern::parse(text) {
        assert_eq!(layer.to_string(), text, "F-12");
        assert!(layer.is_alike(&layer) && layer.depth() >= 1);
    }
}

/// F-2 to F-17: `rootcast.toml` is read, or refused in one line that says where; what it places
/// keeps its path.
pub(crate) fn settings(input: &[u8]) {
    let text = match rootcast::settings::text_of(input) {
        Ok(text) => text,
        Err(error) => return says_where(input, &error),
    };
    let settings = match Rootcast::parse(text) {
        Ok(settings) => settings,
        Err(error) => return says_where(input, &error),
    };
    for path in ["rootcast.toml", "base/a", "region/eu/a/b", "host/web-1/x", "role/EU/x", "a"] {
        let path = ConfigPath::new(path).expect("a path");
        let Some((bundle, inner)) = settings.place(&path) else { continue };
        assert!(
            path.as_str() == format!("{bundle}/{inner}") || (settings.layers.is_none() && inner == path),
            "{path} is at {inner} in {bundle}"
        );
    }
}

fn says_where(input: &[u8], error: &rootcast::settings::SettingsError) {
    let lines = input.split(|byte| *byte == b'\n');
    let line = error.line.checked_sub(1).and_then(|line| lines.clone().nth(line));
    let line = line.unwrap_or_else(|| panic!("F-4: line {} of {}", error.line, lines.count()));
    let columns = String::from_utf8_lossy(line).chars().count() + 1;
    assert!((1..=columns).contains(&error.column), "F-4: column {} of {columns}", error.column);
    assert!(!error.to_string().contains('\n'), "F-4: more than one line: {error}");
}

/// J-1 to J-4: a join string that is read is printed as the same one, whatever stood around it.
pub(crate) fn join_string(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(string) = bounded(input, |_| JoinString::parse(text)) {
        assert_eq!(JoinString::parse(&string.to_text()), Ok(string.clone()), "J-1");
        string.check().expect("J-2: what was read is sound");
    }
}

/// W-2: labels that are read are printed as they were written.
pub(crate) fn member(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(labels) = bounded(input, |_| text.parse::<Labels>()) {
        assert_eq!(labels.to_string(), text, "W-2");
    }
}
