//! What must hold for any bytes at each of the parsers, as functions of bytes.
//!
//! Each function of [`TARGETS`] panics when its property does not hold. A
//! fuzzer looks for bytes that make one panic (`fuzz/run`); the tests of this
//! crate replay what was found worth keeping (`fuzz/corpus`). README.md here
//! says how to run and how to add one.

#![allow(clippy::expect_used, clippy::panic, reason = "a property that does not hold must end the run")]

mod documents;
mod drafts;
mod edit;
pub mod golden;
mod http;
mod messages;
pub mod objects;
mod text;
mod views;

use rootcast::acceptance::Floors;
use rootcast::activation::{History, Journal, Orders};
use rootcast::http::{LeafAnswer, NewsAnswer};
use rootcast::join::{JoinAnswer, PublicDocuments};
use rootcast::protocol::{
    News, ObjectsAnswer, ObjectsRequest, Opening, PublishAnswer, TrustAnswer, UpdateAnswer, Welcome,
};
use rootcast::service::HostPath;
use rootcast::status::{HostsAnswer, Question, Remembered, Report, StatusAnswer};
use rootcast::topology::KeptParents;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

/// A target: panics if its property does not hold for these bytes.
pub type Run = fn(&[u8]);

/// All targets by name: the directory of `fuzz/corpus`, and the argument of `fuzz/run`.
pub const TARGETS: &[(&str, Run)] = &[
    ("children", messages::canonical::<Vec<Remembered>>),
    ("chunks", objects::chunks),
    ("cose", documents::cose),
    ("denials", documents::denials),
    ("edit", edit::edit),
    ("floors", messages::canonical::<Floors>),
    ("frame-length", messages::frame_length),
    ("head", documents::head),
    ("hosts-answer", messages::canonical::<HostsAnswer>),
    ("history", messages::canonical::<History>),
    ("http-edits", http::edits),
    ("http-leaf", messages::canonical::<LeafAnswer>),
    ("http-news", messages::canonical::<NewsAnswer>),
    ("http-token", http::token),
    ("http-url", http::url),
    ("installed", messages::canonical::<Vec<HostPath>>),
    ("join-answer", messages::canonical::<JoinAnswer>),
    ("join-request", documents::join_request),
    ("join-string", text::join_string),
    ("journal", messages::canonical::<Journal>),
    ("kept-parents", messages::canonical::<KeptParents>),
    ("member", text::member),
    ("names", text::names),
    ("news", messages::canonical::<News>),
    ("node", objects::node),
    ("objects-answer", messages::canonical::<ObjectsAnswer>),
    ("objects-request", messages::canonical::<ObjectsRequest>),
    ("opening", messages::canonical::<Opening>),
    ("orders", messages::canonical::<Orders>),
    ("path", text::path),
    ("plan", objects::plan),
    ("public-documents", messages::canonical::<PublicDocuments>),
    ("publish-answer", messages::canonical::<PublishAnswer>),
    ("question", messages::canonical::<Question>),
    ("record", documents::record),
    ("release", documents::release),
    ("release-draft", drafts::release),
    ("report", messages::canonical::<Report>),
    ("secret", objects::secret),
    ("services", objects::services),
    ("settings", text::settings),
    ("status-answer", messages::canonical::<StatusAnswer>),
    ("trust", documents::trust),
    ("trust-answer", messages::canonical::<TrustAnswer>),
    ("trust-next", documents::trust_next),
    ("trust-proposal", drafts::proposal),
    ("update", messages::update),
    ("update-answer", messages::canonical::<UpdateAnswer>),
    ("view-document", views::document),
    ("view-rules", views::rules),
    ("view-template", views::template),
    ("welcome", messages::canonical::<Welcome>),
];

/// The target of a name.
pub fn target(name: &str) -> Option<Run> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, run)| *run)
}

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Decodes `input` and checks what that allocated (specs/limits.md, L-16). The count is of the whole
/// process, so nothing else may run meanwhile.
fn bounded<T>(input: &[u8], decode: impl FnOnce(&[u8]) -> T) -> T {
    let region = Region::new(ALLOCATOR);
    let decoded = decode(input);
    let allocated = region.change().bytes_allocated;
    let allowed = 48 * input.len() + (1 << 20) + (64 << 10);
    assert!(allocated <= allowed, "L-16: {allocated} bytes allocated for {} of input", input.len());
    decoded
}
