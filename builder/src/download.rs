//! Fetches pinned programs.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::image::digest;
use crate::variant::Binary;

/// No pinned program is larger.
const SIZE_MAX: u64 = 512 << 20;
/// A server that sends nothing for this long has stalled.
const STALL: Duration = Duration::from_secs(30);
/// Redirects that release pages of forges need.
const REDIRECTS: u32 = 5;

/// Fetches a program to `to`, if its digest is the pinned one; leaves no file otherwise.
pub fn fetch(binary: &Binary, to: &Path) -> Result<()> {
    let name = &binary.name;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(
            ureq::tls::TlsConfig::builder()
                .provider(ureq::tls::TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(
                    rustls::crypto::aws_lc_rs::default_provider().into(),
                )
                .build(),
        )
        .max_redirects(REDIRECTS)
        .timeout_connect(Some(STALL))
        .timeout_recv_response(Some(STALL))
        .timeout_per_read(Some(STALL))
        .build()
        .into();
    let response = agent
        .get(&binary.url)
        .call()
        .with_context(|| format!("fetching the binary {name:?} from {}", binary.url))?;
    let directory = to.parent().context("a binary needs a directory")?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    let mut body = response.into_body().into_reader().take(SIZE_MAX + 1);
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let count = body.read(&mut block).with_context(|| format!("fetching {name:?}"))?;
        if count == 0 {
            break;
        }
        size += count as u64;
        ensure!(size <= SIZE_MAX, "the binary {name:?} has more than {SIZE_MAX} bytes");
        hasher.update(&block[..count]);
        file.write_all(&block[..count])?;
    }
    let found = digest::hex(hasher.finalize());
    ensure!(
        found == binary.sha256,
        "the binary {name:?} from {} has the SHA-256 {found}, expected {}; if it was released anew, \
         check it and change the variant",
        binary.url,
        binary.sha256
    );
    file.persist(to).with_context(|| format!("writing {}", to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Serves one answer on loopback and returns its URL.
    fn serve(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        format!("http://{address}/tool")
    }

    fn fetch_with(answer: &'static str, sha256: &str) -> (Result<()>, bool) {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("tool");
        let binary = Binary {
            name: "tool".into(),
            url: serve(answer),
            sha256: sha256.into(),
            path: "/usr/bin/tool".into(),
        };
        let result = fetch(&binary, &to);
        let exists = directory.path().read_dir().unwrap().next().is_some();
        (result, exists)
    }

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_pinned_program_is_kept_and_any_other_is_not() {
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        let (result, exists) = fetch_with(good, ABC);
        assert!(result.is_ok() && exists, "{result:?}");

        let (result, exists) = fetch_with(good, &"0".repeat(64));
        let error = result.unwrap_err().to_string();
        assert!(error.contains(ABC) && !exists, "{error}");
    }

    #[test]
    fn a_missing_or_truncated_program_is_an_error() {
        let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let truncated = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nabc";
        for answer in [missing, truncated] {
            let (result, exists) = fetch_with(answer, ABC);
            assert!(result.is_err() && !exists, "{answer}");
        }
    }
}
