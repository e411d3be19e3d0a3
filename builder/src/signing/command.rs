//! Signatures by an external command, for keys in an HSM or a key service.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The maximum length of the command's output. An RSA-4096 signature in base64 takes 684 bytes.
const OUTPUT_MAX: u64 = 4096;
/// The maximum duration of the command. An HSM may wait for its operator.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Accepts base64 with and without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Runs `command` in a shell with the signing input on its standard input, and returns the signature
/// that it writes to standard output, either its bytes or their base64.
///
/// `is_valid` decides between the two forms. Standard error of the command is not redirected.
///
/// # Errors
/// Fails if the command fails or exceeds its time, or if the output is not a valid signature.
pub(super) fn sign(
    command: &str,
    input: &[u8],
    is_valid: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    let output = run(command, input).with_context(|| format!("signing with {command:?}"))?;
    let candidates = [Some(output.clone()), from_base64(&output)];
    candidates.into_iter().flatten().find(|signature| is_valid(signature)).with_context(|| {
        format!(
            "the signing command {command:?} printed {} bytes, which are not a signature of its input \
             by the key of --signing-key; expected the signature as bytes or in base64",
            output.len()
        )
    })
}

fn from_base64(output: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = output.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    [alphabet::STANDARD, alphabet::URL_SAFE]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(&alphabet, LENIENT).decode(&text).ok())
}

fn run(command: &str, input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting /bin/sh")?;
    let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let input = input.to_owned();
    // A command that does not read its input closes the pipe, which is not an error by itself.
    thread::spawn(move || stdin.take().map(|mut stdin| stdin.write_all(&input)));
    let (send, received) = mpsc::channel();
    thread::spawn(move || {
        let mut output = Vec::new();
        let read = stdout.map(|stdout| stdout.take(OUTPUT_MAX + 1).read_to_end(&mut output));
        let _ = send.send(read.transpose().map(|_| output));
    });
    let Ok(output) = received.recv_timeout(TIMEOUT) else {
        child.kill().and_then(|()| child.wait()).context("ending the command")?;
        bail!("the command did not end within {} s", TIMEOUT.as_secs());
    };
    let output = output.context("reading the signature")?;
    let too_long = output.len() as u64 > OUTPUT_MAX;
    if too_long {
        child.kill().context("ending the command")?;
    }
    let status = child.wait().context("waiting for the command")?;
    ensure!(!too_long, "the command printed more than {OUTPUT_MAX} bytes, expected a signature");
    ensure!(status.success(), "the command ended with {status}");
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(command: &str) -> Result<Vec<u8>> {
        sign(command, b"input", |signature| signature == b"input")
    }

    #[test]
    fn accepts_bytes_and_base64() {
        for command in ["cat", "base64", "cat | base64 -w0 | tr -d =", "printf 'aW5w\ndXQ=\n'"] {
            assert_eq!(printed(command).unwrap(), b"input", "{command}");
        }
    }

    #[test]
    fn rejects_failures_and_output_that_is_no_signature() {
        for (command, expected) in [
            ("false", "exit status: 1"),
            ("cat; exit 3", "exit status: 3"),
            ("echo x", "not a signature"),
            ("true", "not a signature"),
            ("yes", "more than 4096 bytes"),
        ] {
            let error = format!("{:#}", printed(command).unwrap_err());
            assert!(error.contains(expected), "{command}: {error}");
        }
    }
}
