//! Downloads of pinned programs.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use protocol::digest::Hasher;

use crate::image::digest;
use crate::partial_file::PartialFile;
use crate::proxy::Proxies;
use crate::variant::Binary;

/// The maximum size of a program, in bytes. It bounds what a faulty server can write to the disk.
const SIZE_MAX: u64 = 512 << 20;
/// The timeout for the connection, for the response, and for each read.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum number of redirects. Release pages of code hosts need a few.
const REDIRECTS_MAX: u32 = 5;

/// Downloads a program to `to`, unless that file already has the pinned digest.
pub(crate) fn fetch_cached(binary: &Binary, to: &Path, proxies: &Proxies) -> Result<()> {
    if to.exists() && digest::of_file(to)?.1 == binary.sha256 {
        return Ok(());
    }
    fetch(binary, to, proxies)
}

/// Returns a client for `url` that neither waits nor redirects without end.
pub(crate) fn agent(proxies: &Proxies, url: &str) -> Result<ureq::Agent> {
    Ok(ureq::Agent::config_builder()
        .tls_config(
            ureq::tls::TlsConfig::builder()
                .provider(ureq::tls::TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(
                    rustls::crypto::aws_lc_rs::default_provider().into(),
                )
                .build(),
        )
        .proxy(proxies.for_url(url)?)
        .max_redirects(REDIRECTS_MAX)
        .timeout_connect(Some(STALL_TIMEOUT))
        .timeout_recv_response(Some(STALL_TIMEOUT))
        .timeout_per_read(Some(STALL_TIMEOUT))
        .build()
        .into())
}

/// Downloads a program to `to`.
///
/// # Errors
/// Fails, and leaves no file, if the download is incomplete or its digest is not the pinned one.
pub(crate) fn fetch(binary: &Binary, to: &Path, proxies: &Proxies) -> Result<()> {
    let name = &binary.name;
    let mut partial = PartialFile::create(to)?;
    let response = agent(proxies, &binary.url)?
        .get(&binary.url)
        .call()
        .map_err(|error| anyhow!("{}", proxies.redact(&error.to_string())))
        .with_context(|| format!("fetching the binary {name:?} from {}", binary.url))?;
    let mut body = response.into_body().into_reader().take(SIZE_MAX + 1);
    let mut hasher = Hasher::default();
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
        let written = partial.file().write_all(&block[..count]);
        written.with_context(|| format!("writing {}", partial.path().display()))?;
    }
    let found = hasher.finish();
    ensure!(
        found == binary.sha256,
        "the binary {name:?} from {} has the SHA-256 {found}, expected {}; if upstream replaced it, \
         check the new file and update the digest in the variant",
        binary.url,
        binary.sha256
    );
    partial.persist()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
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

    /// Fetches `answer` and returns the result and the names of all files but the lock. A download that
    /// was killed before has left a partial file.
    fn fetch_with(answer: &'static str, sha256: &str) -> (Result<()>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".killed.partial"), "x").unwrap();
        let to = directory.path().join("tool");
        let binary = Binary {
            name: "tool".into(),
            url: serve(answer),
            sha256: sha256.into(),
            path: "/usr/bin/tool".into(),
        };
        let result = fetch(&binary, &to, &Proxies::default());
        let entries = directory.path().read_dir().unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        (result, names.filter(|name| name != ".lock").collect())
    }

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn keeps_only_downloads_with_pinned_digest() {
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        let (result, files) = fetch_with(good, ABC);
        assert!(result.is_ok() && files == ["tool"], "{result:?} {files:?}");

        let (result, files) = fetch_with(good, &"0".repeat(64));
        let error = result.unwrap_err().to_string();
        assert!(error.contains(ABC) && files.is_empty(), "{error} {files:?}");
    }

    #[test]
    fn rejects_missing_and_truncated_downloads() {
        let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let truncated = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nabc";
        for answer in [missing, truncated] {
            let (result, files) = fetch_with(answer, ABC);
            assert!(result.is_err() && files.is_empty(), "{answer} {files:?}");
        }
    }
}
