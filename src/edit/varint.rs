//! Integers of an edit: unsigned LEB128 in its shortest form, zigzag for signed ones.

use super::EditError;

/// Appends an integer.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the difference of two integers.
pub(super) fn put_difference(out: &mut Vec<u8>, value: u64, from: u64) {
    let difference = value.wrapping_sub(from) as i64;
    put(out, ((difference << 1) ^ (difference >> 63)) as u64);
}

/// Bytes that are read from the front.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, EditError> {
        let (first, rest) = self.0.split_first().ok_or(EditError::Malformed("ends early"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn bytes(&mut self, count: u64) -> Result<&'a [u8], EditError> {
        let early = EditError::Malformed("ends early");
        let count = usize::try_from(count).map_err(|_| early.clone())?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(early)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn integer(&mut self) -> Result<u64, EditError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(EditError::Malformed("integer over 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(EditError::Malformed("integer not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(EditError::Malformed("integer over 64 bits"))
    }

    pub(super) fn difference(&mut self, from: u64) -> Result<u64, EditError> {
        let zigzag = self.integer()?;
        let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        from.checked_add_signed(difference).ok_or(EditError::Malformed("difference out of range"))
    }
}
