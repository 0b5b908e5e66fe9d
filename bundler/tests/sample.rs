//! The sample configuration repository is what its README says.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests start git and make files
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use rootcast::path::ConfigPath;
use rootcast_bundler::config::Rootcast;
use rootcast_bundler::source::{Changes, FileKind, Source, SourceFile, twins};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn sample() -> (Rootcast, Vec<SourceFile>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/sample");
    let source = Source::open(&root, None).unwrap();
    assert!(source.commit().is_empty(), "a plain directory, inside whatever repository");
    let Changes::Full(files) = source.changes(&[]).unwrap() else { panic!("not whole") };
    for file in &files {
        assert_eq!(source.read(file).unwrap().len() as u64, file.size);
    }
    (Rootcast::read(&source).unwrap(), files)
}

#[test]
fn its_directories_become_bundles() {
    let (config, files) = sample();
    assert_eq!(config.channel.as_str(), "prod");
    let mut bundles: BTreeMap<String, u64> = BTreeMap::new();
    let mut left = Vec::new();
    for file in &files {
        match config.place(&file.path) {
            Some((bundle, _)) => *bundles.entry(bundle.to_string()).or_default() += 1,
            None => left.push(file.path.as_str()),
        }
    }
    let expected =
        [("base", 9), ("host/web-1", 1), ("region/eu", 3), ("region/us", 3), ("role/db", 2), ("role/web", 2)];
    assert_eq!(bundles, expected.map(|(bundle, files)| (bundle.to_owned(), files)).into());
    assert_eq!(left, ["README.md", "rootcast.toml"]);
    let kinds = |kind| files.iter().filter(|file| file.kind == kind).count();
    assert_eq!((kinds(FileKind::Executable), kinds(FileKind::Symlink)), (1, 1));
    assert_eq!(twins(files.iter().map(|file| &file.path)), []);
    assert!(files.iter().all(|file| config.misplaced(&file.path).is_none()));
}

#[test]
fn a_host_gets_what_the_readme_says() {
    let (config, files) = sample();
    let labels = [("region", "eu"), ("role", "web"), ("host", "web-1"), ("datacenter", "fra")];
    let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
    let mut view: BTreeMap<ConfigPath, String> = BTreeMap::new();
    for layer in config.layers.as_ref().unwrap() {
        let bundle = layer.bundle_for(&labels).unwrap();
        let placed = files.iter().filter_map(|file| config.place(&file.path));
        let own = placed.filter(|(of, _)| *of == bundle);
        view.extend(own.map(|(bundle, path)| (path, bundle.to_string())));
    }
    let from: BTreeSet<(&str, &str)> =
        view.iter().map(|(path, bundle)| (path.as_str(), bundle.as_str())).collect();
    let expected = BTreeSet::from([
        ("app/app.yaml", "host/web-1"),
        ("app/features.json", "base"),
        ("app/logging.yaml", "base"),
        ("app/region.yaml", "region/eu"),
        ("bin/check-app", "base"),
        ("motd", "region/eu"),
        ("nginx/conf.d/default.conf", "base"),
        ("nginx/conf.d/limits.conf", "role/web"),
        ("nginx/conf.d/shop.conf", "role/web"),
        ("nginx/mime.types", "base"),
        ("nginx/nginx.conf", "base"),
        ("nginx/resolver.conf", "region/eu"),
    ]);
    assert_eq!(from, expected);
}
