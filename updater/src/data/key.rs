//! A key that unlocks the data partition.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// The minimum length of a recovery key in bytes. An attacker who has the disk can try keys without limit.
const LENGTH_MIN: usize = 20;
/// The maximum length, which is also that of a passphrase of cryptsetup.
const LENGTH_MAX: usize = 512;
/// The length of a random key in bytes.
const RANDOM_LENGTH: usize = 32;
/// The random numbers of the kernel. Reading waits until they are unpredictable (random(4)).
const RANDOM: &str = "/dev/random";

/// A key that unlocks the data partition. Its memory is overwritten when it is dropped.
pub(crate) struct Key(Zeroizing<Vec<u8>>);

/// Why a text is not accepted as a recovery key. No message has a part of the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// It cannot be read.
    #[error("cannot read the recovery key from standard input: {0}")]
    Read(#[from] io::Error),
    /// It has an unsuitable length.
    #[error(
        "the recovery key has {found} bytes, expected {LENGTH_MIN} to {LENGTH_MAX}: create one with \"openssl rand -base64 32\""
    )]
    Length {
        /// The length in bytes.
        found: usize,
    },
    /// It has several lines, or characters that terminals change.
    #[error("the recovery key has control characters: expected a single line of text")]
    Control,
}

impl Key {
    /// Creates a random key.
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; RANDOM_LENGTH]);
        File::open(RANDOM)?.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Reads a recovery key from standard input. Asks for it, and does not show it, if that is a terminal.
    ///
    /// # Errors
    /// Fails if the key is not one line of [`LENGTH_MIN`] to [`LENGTH_MAX`] bytes.
    pub(crate) fn from_stdin() -> Result<Self, KeyError> {
        let stdin = io::stdin();
        // `Stdin` has a buffer that is not overwritten.
        let file = File::from(stdin.as_fd().try_clone_to_owned()?);
        if !stdin.is_terminal() {
            return Self::read(file);
        }
        let mut stderr = io::stderr();
        write!(stderr, "recovery key: ")?;
        stderr.flush()?;
        let _silence = Silence::new(&file)?;
        let key = Self::read(&file);
        writeln!(stderr)?;
        key
    }

    /// Reads a key, up to the end of the line.
    fn read(mut reader: impl Read) -> Result<Self, KeyError> {
        // The vector is never enlarged, so that no copy of it stays in memory.
        let mut bytes = Zeroizing::new(vec![0; LENGTH_MAX + 3]);
        let mut length = 0;
        while length < bytes.len() && !bytes[..length].contains(&b'\n') {
            match reader.read(&mut bytes[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(length);
        for end in [b'\n', b'\r'] {
            if bytes.last() == Some(&end) {
                bytes.pop();
            }
        }
        if bytes.iter().any(u8::is_ascii_control) {
            return Err(KeyError::Control);
        }
        match bytes.len() {
            LENGTH_MIN..=LENGTH_MAX => Ok(Self(bytes)),
            found => Err(KeyError::Length { found }),
        }
    }

    /// Returns the bytes of the key.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_key_is_one_long_line() {
        let key = "ten characters and ten more";
        for text in [key.to_owned(), format!("{key}\n"), format!("{key}\r\n")] {
            assert_eq!(Key::read(text.as_bytes()).unwrap().bytes(), key.as_bytes());
        }
        let longest = "x".repeat(LENGTH_MAX);
        assert_eq!(Key::read(format!("{longest}\r\n").as_bytes()).unwrap().bytes().len(), 512);
        for (text, expected) in [
            ("", "0 bytes"),
            ("\n", "0 bytes"),
            ("too short\n", "9 bytes"),
            (&format!("{longest}x"), "513 bytes"),
            (&format!("{longest}x").repeat(9), "bytes"),
            (&format!("{key}\nsecond line"), "control characters"),
            (&format!("{key}\x1b[A"), "control characters"),
        ] {
            let error = Key::read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("ten characters") && !error.contains("too short"), "{error}");
        }
    }

    #[test]
    fn random_keys_differ_and_are_not_shown() {
        let keys = [Key::random().unwrap(), Key::random().unwrap()];
        assert_ne!(keys[0].bytes(), keys[1].bytes());
        assert_eq!(keys[0].bytes().len(), RANDOM_LENGTH);
        assert_eq!(format!("{keys:?}"), "[Key(…), Key(…)]");
    }
}
