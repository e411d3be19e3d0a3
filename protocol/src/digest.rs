//! SHA-256 in the form that manifests use: 64 lower-case hexadecimal digits.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// Computes the SHA-256 of the bytes that are written to it.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds bytes to the digest.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of everything that was added.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the SHA-256 of `bytes` as bytes.
pub fn raw(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Returns the SHA-256 of `bytes`.
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Reads `reader` to its end and returns the number of bytes and their SHA-256.
///
/// # Errors
/// Fails if a read fails.
pub fn of_reader(mut reader: impl Read) -> io::Result<(u64, String)> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((length, hasher.finish())),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn matches_the_example_of_fips_180() {
        assert_eq!(of_bytes(b"abc"), ABC);
        assert_eq!(of_reader(&b"abc"[..]).unwrap(), (3, ABC.to_owned()));
        let mut hasher = Hasher::default();
        hasher.write_all(b"a").unwrap();
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), ABC);
    }
}
