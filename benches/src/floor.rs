//! A lower bound that is found, not proved: the smallest of several coders of
//! the content that changed. None says which file it is for, frames itself or
//! is signed; each could be undone by one who has the old contents. Where
//! Rootcast's own edit is smaller than all of them, that is the bound: what
//! exists is no less possible than what is estimated.

use crate::content::{Changed, Difference};
use crate::error::BenchError;
use std::path::Path;
use std::process::{Command, Stdio};
use zstd::zstd_safe::{CCtx, CParameter, FrameFormat, compress_bound, get_error_name};

/// Above this, old and new contents together, level 22 takes minutes and gains nothing.
const HARDEST_MOST: usize = 8 << 20;
/// Above this the whole of the old contents is no prefix any more, and only the changed spans are coded.
const PREFIX_MOST: usize = 128 << 20;
/// Largest window that zstd has on every machine.
const WINDOW_MOST: u32 = 27;
/// Coders that go with level 19: joint, per file, spans, spans with what is near.
const HARD: [&str; 4] = [
    "zstd -19, joint, old contents as prefix",
    "zstd -19, per file, old content as prefix",
    "changed spans, zstd -19 with old contents",
    "changed spans, zstd -19 with old and nearby contents",
];
/// The same with level 22.
const HARDEST: [&str; 4] = [
    "zstd -22, joint, old contents as prefix",
    "zstd -22, per file, old content as prefix",
    "changed spans, zstd -22 with old contents",
    "changed spans, zstd -22 with old and nearby contents",
];
/// One Ed25519 signature.
pub(crate) const SIGNATURE: u64 = 64;

/// The smallest coding found of a step's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Its bytes; at least one, since a host must learn that there is something.
    pub(crate) bytes: u64,
    /// Which coder it was.
    pub(crate) coder: &'static str,
    /// What every coder took.
    pub(crate) all: Vec<(&'static str, u64)>,
}

/// Codes a step's content in every way.
///
/// # Errors
/// When zstd, or an installed `xdelta3`, fails.
pub(crate) fn floor(
    difference: &Difference,
    bare_diff: Option<&[u8]>,
    scratch: &Path,
) -> Result<Floor, BenchError> {
    let files = &difference.files;
    let total: usize = files.iter().map(|file| file.old.len() + file.new.len()).sum();
    let spans: Vec<Span<'_>> = files.iter().map(Span::of).collect();
    let mut olds = Vec::new();
    if total <= PREFIX_MOST {
        files.iter().for_each(|file| olds.extend_from_slice(&file.old));
    }
    let news: Vec<u8> = files.iter().flat_map(|file| file.new.iter().copied()).collect();
    let middles: Vec<u8> = spans.iter().flat_map(|span| span.middle.iter().copied()).collect();
    let bounds: usize = spans.iter().map(Span::bounds).sum();
    let nearby = [&difference.near[..], &olds].concat();
    let mut all = Vec::new();
    for (level, [joint, each, span, near]) in [(19, HARD), (22, HARDEST)] {
        if level > 19 && total > HARDEST_MOST {
            continue;
        }
        all.push((joint, pack(&news, &olds, level)?));
        let packed: Result<Vec<usize>, _> =
            files.iter().map(|file| pack(&file.new, &file.old, level)).collect();
        all.push((each, packed?.iter().sum()));
        all.push((span, pack(&middles, &olds, level)?.min(middles.len()) + bounds));
        if !difference.near.is_empty() {
            all.push((near, pack(&middles, &nearby, level)?.min(middles.len()) + bounds));
        }
    }
    if let Some(diff) = bare_diff {
        all.push(("diff -U0, zstd -19", pack(diff, &[], 19)?));
        all.push(("diff -U0, zstd -19 with old contents", pack(diff, &olds, 19)?));
    }
    if let Some(bytes) = xdelta(files, scratch)? {
        all.push(("xdelta3 -9, per file", bytes));
    }
    let all: Vec<(&'static str, u64)> = all.into_iter().map(|(coder, bytes)| (coder, bytes as u64)).collect();
    let best = all.iter().min_by_key(|(_, bytes)| *bytes).copied().unwrap_or(("nothing", 0));
    Ok(Floor { bytes: best.1.max(1), coder: best.0, all })
}

impl Floor {
    /// Takes an encoding that exists into account.
    pub(crate) fn consider(&mut self, coder: &'static str, bytes: u64) {
        self.all.push((coder, bytes));
        if bytes < self.bytes {
            (self.bytes, self.coder) = (bytes, coder);
        }
    }
}

/// The part of a file that is new: what stands between the longest beginning and end that stay.
struct Span<'f> {
    start: usize,
    end: usize,
    middle: &'f [u8],
}

impl<'f> Span<'f> {
    fn of(file: &'f Changed) -> Self {
        let (old, new) = (&file.old, &file.new);
        let start = old.iter().zip(new).take_while(|(one, other)| one == other).count();
        let most = old.len().min(new.len()) - start;
        let pairs = old.iter().rev().zip(new.iter().rev());
        let end = pairs.take(most).take_while(|(one, other)| one == other).count();
        let middle = new.get(start..new.len() - end).unwrap_or_default();
        Self { start, end, middle }
    }

    /// Bytes to say where it is.
    fn bounds(&self) -> usize {
        let varint = |number: usize| (usize::BITS - number.leading_zeros()).max(1).div_ceil(7) as usize;
        varint(self.start) + varint(self.end)
    }
}

/// What `content` takes with `prefix` before it in the window, in a frame without header fields.
fn pack(content: &[u8], prefix: &[u8], level: i32) -> Result<usize, BenchError> {
    if content.is_empty() {
        return Ok(0);
    }
    let fail = |code| BenchError::Program { program: "zstd".into(), what: get_error_name(code).to_owned() };
    let total = content.len() + prefix.len();
    let window = total.next_power_of_two().ilog2().clamp(10, WINDOW_MOST);
    let mut context = CCtx::create();
    let mut set = |parameter| context.set_parameter(parameter).map_err(fail);
    set(CParameter::CompressionLevel(level))?;
    set(CParameter::Format(FrameFormat::Magicless))?;
    set(CParameter::ContentSizeFlag(false))?;
    set(CParameter::ChecksumFlag(false))?;
    set(CParameter::DictIdFlag(false))?;
    set(CParameter::WindowLog(window))?;
    // The match finders index only the end of a long prefix; this one covers all of it.
    set(CParameter::EnableLongDistanceMatching(prefix.len() > 2 << 20))?;
    context.set_pledged_src_size(Some(content.len() as u64)).map_err(fail)?;
    context.ref_prefix(prefix).map_err(fail)?;
    let mut packed = Vec::with_capacity(compress_bound(content.len()));
    context.compress2(&mut packed, content).map_err(fail)
}

/// What `xdelta3` makes of the files; `None` where it is not installed.
fn xdelta(files: &[Changed], scratch: &Path) -> Result<Option<usize>, BenchError> {
    let (old, new) = (scratch.join("floor.old"), scratch.join("floor.new"));
    let mut total = 0;
    for file in files {
        std::fs::write(&old, &file.old).map_err(BenchError::io(&old))?;
        std::fs::write(&new, &file.new).map_err(BenchError::io(&new))?;
        // No checksum, no application header.
        let output = Command::new("xdelta3")
            .args(["-e", "-9", "-n", "-A=", "-c", "-s"])
            .args([&old, &new])
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => total += output.stdout.len(),
            Ok(output) => {
                let what = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(BenchError::Program { program: "xdelta3".into(), what });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(BenchError::Program { program: "xdelta3".into(), what: error.to_string() });
            }
        }
    }
    Ok(Some(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(old: &str, new: &str) -> Changed {
        Changed { old: old.into(), new: new.into() }
    }

    fn of(files: &[Changed]) -> Floor {
        floor_of(Difference { files: files.to_vec(), near: Vec::new() })
    }

    fn floor_of(difference: Difference) -> Floor {
        let scratch = tempfile::tempdir().unwrap();
        floor(&difference, None, scratch.path()).unwrap()
    }

    #[test]
    fn a_span_is_what_is_new() {
        let file = changed("port = 8080\n", "port = 8081\n");
        let span = Span::of(&file);
        assert_eq!((span.start, span.middle, span.end), (10, &b"1"[..], 1));
        let grown = changed("aa", "aaa");
        let span = Span::of(&grown);
        assert_eq!((span.start, span.middle, span.end), (2, &b"a"[..], 0));
        let gone = changed("all", "");
        assert_eq!(Span::of(&gone).bounds(), 2);
    }

    #[test]
    fn a_small_change_in_a_large_file_takes_a_few_bytes() {
        let lines: String =
            (0..5000).map(|number| format!("key_{number} = {}\n", number * 7919 % 1009)).collect();
        let floor = of(&[changed(&lines, &lines.replace("key_2500 =", "key_2500x ="))]);
        assert!(floor.bytes <= 8, "{floor:?}");
        assert_eq!(Some(floor.bytes), floor.all.iter().map(|(_, bytes)| *bytes).min());
    }

    #[test]
    fn nothing_new_is_one_byte_at_least_and_noise_is_no_less_than_itself() {
        assert_eq!(of(&[]).bytes, 1);
        let mut noise = vec![0_u8; 4096];
        getrandom::fill(&mut noise).unwrap();
        let floor = of(&[Changed { old: Vec::new(), new: noise }]);
        assert!((4096..4120).contains(&floor.bytes), "{floor:?}");
    }

    #[test]
    fn a_new_file_like_its_neighbour_takes_a_few_bytes() {
        let neighbour = "role: parsercache\nshard: pc3\nnotifications: true\ninnodb_flush: 0\n";
        let files = vec![changed("", &neighbour.replace("pc3", "pc4"))];
        let alone = floor_of(Difference { files: files.clone(), near: Vec::new() });
        let mut floor = floor_of(Difference { files, near: neighbour.into() });
        assert!(floor.bytes * 2 < alone.bytes, "{floor:?} {alone:?}");
        let before = floor.bytes;
        floor.consider("worse", before + 1);
        assert_eq!(floor.bytes, before);
        floor.consider("better", 3);
        assert_eq!((floor.bytes, floor.coder), (3, "better"));
    }
}
