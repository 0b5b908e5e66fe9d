//! Bech32 (BIP 173) without its limit of length, as age writes keys: 32 bytes under a prefix.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM: usize = 6;
const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
/// 32 bytes in groups of five bits.
const GROUPS: usize = 52;

fn step(sum: u32, value: u8) -> u32 {
    let top = sum >> 25;
    let sum = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
    GENERATOR.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1).fold(sum, |sum, (_, term)| sum ^ term)
}

/// The checksum's state after the prefix.
fn begin(prefix: &str) -> u32 {
    let high = prefix.bytes().map(|byte| byte >> 5);
    high.chain([0]).chain(prefix.bytes().map(|byte| byte & 31)).fold(1, step)
}

fn character(group: u8) -> char {
    ALPHABET.get(usize::from(group & 31)).map_or('q', |byte| char::from(*byte))
}

/// Writes 32 bytes under a prefix, in lower case.
pub(crate) fn encode(prefix: &str, bytes: &[u8; 32]) -> Zeroizing<String> {
    // Its final length from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 1 + GROUPS + CHECKSUM));
    text.push_str(prefix);
    text.push('1');
    let mut sum = begin(prefix);
    let mut put = |group: u8| {
        sum = step(sum, group);
        text.push(character(group));
    };
    let (mut held, mut bits) = (0u16, 0);
    for byte in bytes {
        held = held << 8 & 0xfff | u16::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            put((held >> bits & 31) as u8);
        }
    }
    put((held << (5 - bits) & 31) as u8);
    let sum = (0..CHECKSUM).fold(sum, |sum, _| step(sum, 0)) ^ 1;
    text.extend((0..CHECKSUM).rev().map(|at| character((sum >> (5 * at) & 31) as u8)));
    text
}

/// Reads 32 bytes under a prefix, all in lower case; or says what is wrong.
pub(crate) fn decode(prefix: &str, text: &str) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    let data = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('1')).ok_or("another prefix")?;
    if data.len() != GROUPS + CHECKSUM {
        return Err("another length");
    }
    let mut bytes = Zeroizing::new([0; 32]);
    let mut places = bytes.iter_mut();
    let (mut sum, mut held, mut bits) = (begin(prefix), 0u16, 0);
    for (at, byte) in data.bytes().enumerate() {
        let group =
            ALPHABET.iter().position(|known| *known == byte).ok_or("a character that it never has")?;
        let group = group as u8;
        sum = step(sum, group);
        if at >= GROUPS {
            continue;
        }
        held = held << 5 & 0xfff | u16::from(group);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            if let Some(place) = places.next() {
                *place = (held >> bits & 0xff) as u8;
            }
        }
    }
    if sum != 1 {
        return Err("a mistyped character: the checksum does not fit");
    }
    // 52 groups are 260 bits; the last four stand for nothing.
    if held & 0xf != 0 { Err("bits after the end") } else { Ok(bytes) }
}
