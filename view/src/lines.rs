//! Lines and columns of bytes of a text.

/// Bytes between two counts of characters.
const STRIDE: usize = 256;

/// Where the lines of a text begin, so that a place costs no look at the whole text.
pub(crate) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
    /// Characters before every [`STRIDE`]th byte.
    before: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(crate) fn of(text: &'t str) -> Self {
        let mut lines = Self { text, starts: vec![0], before: Vec::new() };
        let mut characters = 0;
        for (at, byte) in text.bytes().enumerate() {
            if at % STRIDE == 0 {
                lines.before.push(characters);
            }
            characters += usize::from(byte & 0xc0 != 0x80);
            if byte == b'\n' {
                lines.starts.push(at + 1);
            }
        }
        lines
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub(crate) fn place(&self, at: usize) -> (usize, usize) {
        let at = at.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        (line, self.characters(at).saturating_sub(self.characters(start)) + 1)
    }

    /// Characters that begin before a byte.
    fn characters(&self, at: usize) -> usize {
        let block = (at / STRIDE).min(self.before.len().saturating_sub(1));
        let rest = self.text.as_bytes().get(block * STRIDE..at).unwrap_or_default();
        let begun = rest.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        self.before.get(block).copied().unwrap_or(0) + begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let text = format!("ü{}x\n  y", "é".repeat(400));
        let lines = Lines::of(&text);
        assert_eq!(lines.place(0), (1, 1));
        assert_eq!(lines.place(2), (1, 2));
        assert_eq!(lines.place(802), (1, 402));
        assert_eq!(lines.place(text.len() - 1), (2, 3));
        assert_eq!(lines.place(text.len() + 9), (2, 4));
        assert_eq!(Lines::of("").place(0), (1, 1));
    }
}
