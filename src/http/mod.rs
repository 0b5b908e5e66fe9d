//! What a relay serves over HTTPS: the names of resources, what their answers
//! hold, and the token of those who cannot show a certificate (specs/http.md).
//!
//! Formats and decisions only; sockets are the transport's.

mod answer;
mod bearer;
mod url;

pub use answer::{EditBody, LeafAnswer, NewsAnswer, entity_tag, has_tag};
pub use bearer::{Bearer, BearerError, Token};
pub use url::{After, Resource, Target, Url, UrlError};
