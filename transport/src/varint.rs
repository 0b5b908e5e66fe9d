//! The length before a frame: a QUIC variable-length integer in its shortest
//! form (RFC 9000 section 16; specs/wire.md, W-9).

/// One more than the largest value: the two high bits say how long it is.
const END: u64 = 1 << 62;

/// Appends `value` in its shortest form. A length in memory is always below 2^62.
pub fn put(value: u64, out: &mut Vec<u8>) {
    debug_assert!(value < END);
    let (tag, size): (u64, usize) = match value {
        0..=0x3f => (0, 1),
        0x40..=0x3fff => (1, 2),
        0x4000..=0x3fff_ffff => (2, 4),
        _ => (3, 8),
    };
    let tagged = value | tag << (8 * size - 2);
    out.extend(tagged.to_be_bytes().iter().skip(8 - size));
}

/// Bytes that the integer with this first byte takes: 1, 2, 4 or 8.
pub const fn size_from_first(first: u8) -> usize {
    1 << (first >> 6)
}

/// Reads an integer from exactly its bytes; `None` where a shorter form exists.
pub fn read(bytes: &[u8]) -> Option<u64> {
    let least = match bytes.len() {
        1 => 0,
        2 => 1 << 6,
        4 => 1 << 14,
        8 => 1 << 30,
        _ => return None,
    };
    let tagged = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let value = tagged & !(0b11 << (8 * bytes.len() - 2));
    (value >= least).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 9000, appendix A.1.
    #[test]
    fn w_9_vectors_of_the_rfc() {
        let vectors: [(u64, &[u8]); 4] = [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ];
        for (value, bytes) in vectors {
            let mut out = Vec::new();
            put(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(read(bytes), Some(value));
        }
        assert_eq!(read(&[0x40, 0x25]), None, "37 in two bytes, as the RFC allows and we do not");
    }

    #[test]
    fn w_9_size_changes_exactly_at_the_boundaries() {
        for (value, size) in [
            (0, 1),
            (63, 1),
            (64, 2),
            (16_383, 2),
            (16_384, 4),
            ((1 << 30) - 1, 4),
            (1 << 30, 8),
            (END - 1, 8),
        ] {
            let mut out = Vec::new();
            put(value, &mut out);
            assert_eq!(out.len(), size, "{value}");
        }
    }

    proptest! {
        #[test]
        fn w_9_every_value_has_one_form(value in 0..END, shift in 0u32..62) {
            let value = value >> shift;
            let mut out = Vec::new();
            put(value, &mut out);
            prop_assert_eq!(size_from_first(out[0]), out.len());
            prop_assert_eq!(read(&out), Some(value));
        }

        #[test]
        fn w_9_what_is_read_is_what_would_be_written(bytes in prop::collection::vec(any::<u8>(), 8)) {
            let own = &bytes[..size_from_first(bytes[0])];
            if let Some(value) = read(own) {
                let mut out = Vec::new();
                put(value, &mut out);
                prop_assert_eq!(out, own);
            }
        }
    }
}
