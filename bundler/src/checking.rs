//! Checks of files before anything is signed (specs/configuration.md, F-65 and F-70 to F-75).
//!
//! Files are checked when they are read, which is when they changed. What hosts make of them
//! is tried for each host that the settings know, where it differs from the release before.

use crate::config::Rootcast;
use crate::source::{Source, SourceError};
use bytes::Bytes;
use jsonschema::{ValidationError, Validator};
use rootcast::limits::{MAX_DERIVED, MAX_REFUSALS_NAMED};
use rootcast::path::ConfigPath;
use rootcast_view::{Fault, Flaw, Format, Node, check_replaced, check_syntax, check_template, merge, read};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// What is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `FILE:LINE:COLUMN: what`, the file from the source's root.
    pub message: String,
    /// A host for which it is so, where it is not so for all.
    pub host: Option<String>,
    /// How many more hosts.
    pub more_hosts: u64,
}

/// Everything that was found: the first are named, all are counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// The first, at most [`MAX_REFUSALS_NAMED`].
    pub named: Vec<Finding>,
    /// How many more there are.
    pub more: u64,
}

impl std::error::Error for Findings {}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.named.len() as u64 + self.more;
        write!(f, "{count} {} not as hosts need it:", if count == 1 { "file is" } else { "things are" })?;
        for finding in &self.named {
            write!(f, "\n  {}", finding.message)?;
            match (&finding.host, finding.more_hosts) {
                (None, _) => {}
                (Some(host), 0) => write!(f, " (host {host})")?,
                (Some(host), more) => write!(f, " (host {host} and {more} more)")?,
            }
        }
        if self.more > 0 {
            write!(f, "\n  and {} more", self.more)?;
        }
        Ok(())
    }
}

impl Findings {
    /// Takes one in. What several hosts have in common is one finding.
    pub(crate) fn add(&mut self, message: String, host: Option<&str>) {
        if let Some(known) = self.named.iter_mut().find(|known| known.message == message) {
            known.more_hosts += u64::from(known.host.as_deref() != host);
        } else if self.named.len() < MAX_REFUSALS_NAMED {
            self.named.push(Finding { message, host: host.map(str::to_owned), more_hosts: 0 });
        } else {
            self.more += 1;
        }
    }

    /// Everything that was found, as an error.
    pub(crate) fn into_result(self) -> Result<(), Self> {
        if self.named.is_empty() { Ok(()) } else { Err(self) }
    }
}

/// The checks of one publication.
pub(crate) struct Checking<'a> {
    source: &'a Source,
    settings: &'a Rootcast,
    /// Schemas that were wanted so far, and why one cannot be used.
    schemas: BTreeMap<ConfigPath, Result<Rc<Validator>, String>>,
    pub(crate) findings: Findings,
}

impl<'a> Checking<'a> {
    pub(crate) fn new(source: &'a Source, settings: &'a Rootcast) -> Self {
        Self { source, settings, schemas: BTreeMap::new(), findings: Findings::default() }
    }

    /// Checks a file as it stands in the source, at `path` on the host.
    pub(crate) fn file(
        &mut self,
        at: &ConfigPath,
        path: &ConfigPath,
        bytes: &[u8],
    ) -> Result<(), SourceError> {
        if self.settings.checks.are_off(path) {
            return Ok(());
        }
        let template = self.settings.views.is_template(path);
        let merged = self.settings.views.merge(path);
        let derived = template || merged.is_some();
        let checked = check_replaced(bytes).and_then(|()| match merged {
            _ if template => check_template(bytes, 0),
            // Alone it has no layers below it, but has to be one that can be merged.
            Some(rule) => match Format::of(path) {
                Some(format) => merge(format, &[Bytes::copy_from_slice(bytes)], &rule.keys).map(drop),
                None => Err(Flaw { place: first(), fault: Fault::NoFormat }),
            },
            None if bytes.len() as u64 > MAX_DERIVED => Ok(()),
            None => check_syntax(path, bytes),
        });
        if let Err(flaw) = checked {
            self.findings.add(format!("{at}:{flaw}"), None);
        } else if !derived {
            self.schema(path, bytes, None, |place| format!("{at}:{}:{}", place.line, place.column), None)?;
        }
        Ok(())
    }

    /// Checks a secret: that it was filled in. Nothing of what it says may be told, so that is all.
    pub(crate) fn secret(&mut self, at: &ConfigPath, path: &ConfigPath, plaintext: &[u8]) {
        if !self.settings.checks.are_off(path)
            && let Err(flaw) = check_replaced(plaintext)
        {
            self.findings.add(format!("{at}:{flaw}"), None);
        }
    }

    /// Checks a file that a host makes of its layers'. `node` is what was merged, with the
    /// places that its values are from; `source_of` names a layer's file.
    pub(crate) fn made(
        &mut self,
        path: &ConfigPath,
        (content, node): (&[u8], Option<&Node>),
        source_of: impl Fn(usize) -> String,
        host: &str,
    ) -> Result<(), SourceError> {
        if self.settings.checks.are_off(path) {
            return Ok(());
        }
        let made = |flaw: Flaw| format!("{path} as it is made, {flaw}");
        if let Err(flaw) = check_replaced(content).and_then(|()| check_syntax(path, content)) {
            self.findings.add(made(flaw), Some(host));
            return Ok(());
        }
        let place = |place: rootcast_view::Place| match node {
            Some(_) => format!("{}:{}:{}", source_of(place.layer), place.line, place.column),
            None => format!("{path} as it is made, {}:{}", place.line, place.column),
        };
        self.schema(path, content, node, place, Some(host))
    }

    /// Holds a document to its schemas.
    fn schema(
        &mut self,
        path: &ConfigPath,
        bytes: &[u8],
        node: Option<&Node>,
        place: impl Fn(rootcast_view::Place) -> String,
        host: Option<&str>,
    ) -> Result<(), SourceError> {
        let settings = self.settings;
        for schema in settings.checks.schemas_of(path) {
            let validator = match self.validator(schema)? {
                Ok(validator) => validator,
                Err(message) => {
                    self.findings.add(message, None);
                    continue;
                }
            };
            let parsed = match (node, Format::of(path)) {
                (Some(node), _) => Ok(node.clone()),
                (None, Some(format)) => read(format, bytes, 0),
                (None, None) => Err(Flaw { place: first(), fault: Fault::NoFormat }),
            };
            let node = match parsed {
                Ok(node) => node,
                Err(flaw) => {
                    self.findings.add(format!("{}: {}", place(flaw.place), flaw.fault), host);
                    continue;
                }
            };
            let document = node.to_json();
            for error in validator.iter_errors(&document) {
                let at = place(place_of(&node, &error));
                self.findings.add(format!("{at}: {} ({schema})", said(&error)), host);
            }
        }
        Ok(())
    }

    /// A schema, read once. The inner error names it: it is reported where it is wanted.
    fn validator(&mut self, schema: &ConfigPath) -> Result<Result<Rc<Validator>, String>, SourceError> {
        if let Some(known) = self.schemas.get(schema) {
            return Ok(known.clone());
        }
        let read = match (self.source.read_path(schema.as_str())?, Format::of(schema)) {
            (None, _) => {
                Err(format!("{schema}: there is no such schema, which `[[validate]]` in rootcast.toml names"))
            }
            (Some(_), None) => Err(format!("{schema}: the name of a schema ends in .json, .yaml or .toml")),
            (Some(bytes), Some(format)) => {
                read(format, &bytes, 0).map_err(|flaw| format!("{schema}:{flaw}")).and_then(|node| {
                    let options = jsonschema::options().offline();
                    options.build(&node.to_json()).map(Rc::new).map_err(|error| {
                        let rootcast_view::Place { line, column, .. } = place_of(&node, &error);
                        format!("{schema}:{line}:{column}: is no JSON Schema: {}", said(&error))
                    })
                })
            }
        };
        self.schemas.insert(schema.clone(), read.clone());
        Ok(read)
    }
}

/// Where in a document what an error is about is.
fn place_of(node: &Node, error: &ValidationError<'_>) -> rootcast_view::Place {
    let pointer = error.instance_path().to_string();
    let names = pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
    node.place_of(names.collect::<Vec<_>>().iter().map(String::as_str))
}

/// What an error says, in one line.
fn said(error: &ValidationError<'_>) -> String {
    error.to_string().chars().take(200).flat_map(char::escape_debug).collect()
}

fn first() -> rootcast_view::Place {
    rootcast_view::Place { layer: 0, line: 1, column: 1 }
}
