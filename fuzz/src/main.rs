//! The fuzzer's binary: libFuzzer with the one target that `ROOTCAST_FUZZ_TARGET` names.
//! Built and started by `fuzz/run`.

#![no_main]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::panic,
    reason = "libFuzzer has the command line, and its macro a file"
)]

use libfuzzer_sys::fuzz_target;
use rootcast_fuzz::{Run, target};
use std::sync::LazyLock;

static RUN: LazyLock<Run> = LazyLock::new(|| {
    let name = std::env::var("ROOTCAST_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("no target `{name}`; next: fuzz/run without arguments lists them"))
});

fuzz_target!(|input: &[u8]| (*RUN)(input));
