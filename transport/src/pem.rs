//! Writing PEM (RFC 7468). Reading it is rustls's.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Characters of one line.
const LINE: usize = 64;

/// `bytes` in PEM under a label.
pub(crate) fn encode(label: &str, bytes: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in bytes.chunks(LINE / 4 * 3) {
        for group in line.chunks(3) {
            let joined = (0..3).fold(0u32, |all, at| all << 8 | group.get(at).map_or(0, |b| u32::from(*b)));
            for at in 0..4 {
                let index = (joined >> (18 - 6 * at)) & 0x3f;
                let letter = ALPHABET.get(index as usize).copied().unwrap_or(b'=');
                text.push(if at <= group.len() { char::from(letter) } else { '=' });
            }
        }
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn what_is_written_is_read_back_at_every_length() {
        for length in 0..200u8 {
            let bytes: Vec<u8> = (0..length).map(|at| at.wrapping_mul(37)).collect();
            let pem = encode("CERTIFICATE", &bytes);
            assert!(pem.lines().all(|line| line.len() <= LINE));
            let read = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            assert_eq!(&*read, &bytes[..], "{pem}");
        }
    }
}
