//! Where releases come from: a web server, or a folder.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::release::origin;
use ureq::Agent;
use ureq::http::Response;
use ureq::http::header::{CONTENT_LENGTH, LOCATION};
use ureq::tls::{TlsConfig, TlsProvider};

/// A server that does not take a connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause between two pieces of an answer. A slow download is fine, a stalled one is not.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// From the first packet to the last of a manifest, which has 60 kB and 1 MiB at most: that is 9 kB/s.
/// A server that is slower keeps a host from asking again, and from updates.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(120);

/// A client of a CDN.
pub struct Cdn {
    agent: Agent,
    manifest_timeout: Duration,
}

/// A file of a CDN, not read yet.
pub struct Body {
    /// Its bytes.
    pub reader: Box<dyn Read>,
    /// How many there will be, if the server says.
    pub length: Option<u64>,
}

/// A file that the CDN does not give. URLs are shown without their query.
#[derive(Debug, thiserror::Error)]
pub enum CdnError {
    /// No answer.
    #[error(
        "cannot get {url}: {why}; is the CDN up, and are network, name resolution, proxy and clock as they should be?"
    )]
    Unreachable {
        /// The URL.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// Another answer than 200.
    #[error("the CDN answers {status} for {url}, expected 200; was it published there?")]
    Status {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
    },
    /// An answer that sends us elsewhere.
    #[error(
        "the CDN answers {status} for {url} and redirects to {to}, which is not followed: set \"cdn\" to the address that serves the files"
    )]
    Redirect {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
        /// The other server.
        to: String,
    },
    /// A folder without the file.
    #[error("cannot read {path}: {why}; was it copied to the CDN's folder?")]
    File {
        /// Its path.
        path: String,
        /// What the system says.
        why: std::io::Error,
    },
}

impl Default for Cdn {
    fn default() -> Self {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .build();
        // A proxy is taken from the environment, which is ureq's default.
        let config = Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("etchaos-updater/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(STALL_TIMEOUT))
            .timeout_per_read(Some(STALL_TIMEOUT))
            .build();
        Self { agent: config.into(), manifest_timeout: MANIFEST_TIMEOUT }
    }
}

impl Cdn {
    /// Opens a file by its URL, or by its absolute path.
    pub fn open(&self, url: &str) -> Result<Body, CdnError> {
        match origin(url) {
            Some(_) => self.get(url, None),
            None => open_file(url),
        }
    }

    /// The same for a manifest, which has to be read to its end within two minutes.
    pub fn open_manifest(&self, url: &str) -> Result<Body, CdnError> {
        match origin(url) {
            Some(_) => self.get(url, Some(self.manifest_timeout)),
            None => open_file(url),
        }
    }

    /// Asks whether a file is there and how long it is, without getting it. Servers that do not
    /// answer such questions do not count as an answer.
    pub fn probe(&self, url: &str) -> Result<Option<u64>, CdnError> {
        if origin(url).is_none() {
            return open_file(url).map(|body| body.length);
        }
        let response = checked(url, self.agent.head(url).call());
        match response {
            Ok(response) => {
                let length = response.headers().get(CONTENT_LENGTH);
                Ok(length.and_then(|length| length.to_str().ok()?.parse().ok()))
            }
            // Some forbid HEAD, or do not know it.
            Err(CdnError::Status { status: 403 | 405 | 501, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn get(&self, url: &str, whole: Option<Duration>) -> Result<Body, CdnError> {
        let request = self.agent.get(url).config().timeout_global(whole).build();
        let body = checked(url, request.call())?.into_body();
        Ok(Body { length: body.content_length(), reader: Box::new(body.into_reader()) })
    }
}

fn checked(
    url: &str,
    answer: Result<Response<ureq::Body>, ureq::Error>,
) -> Result<Response<ureq::Body>, CdnError> {
    let url = without_query(url);
    let response = match answer {
        Ok(response) => response,
        Err(error) => return Err(CdnError::Unreachable { url, why: error.to_string() }),
    };
    let status = response.status().as_u16();
    if response.status().is_redirection() {
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
        let to = to.and_then(origin).unwrap_or("another place").to_owned();
        return Err(CdnError::Redirect { url, status, to });
    }
    match status {
        200 => Ok(response),
        _ => Err(CdnError::Status { url, status }),
    }
}

fn open_file(path: &str) -> Result<Body, CdnError> {
    let failed = |why| CdnError::File { path: path.to_owned(), why };
    // Looked at first: opening a pipe would wait for ever.
    let data = std::fs::metadata(Path::new(path)).map_err(failed)?;
    if !data.is_file() {
        return Err(failed(std::io::Error::other("it is not a file")));
    }
    let file = File::open(path).map_err(failed)?;
    Ok(Body { length: Some(data.len()), reader: Box::new(file) })
}

/// A URL for people: a query may be a secret.
pub fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_manifest_that_trickles_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let mut left = stream.write(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n").is_ok();
            let since = Instant::now();
            while left && since.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(20));
                left = stream.write_all(b"x").is_ok();
            }
            since.elapsed()
        });
        let cdn = Cdn { manifest_timeout: Duration::from_millis(500), ..Cdn::default() };
        let mut body = cdn.open_manifest(&url).unwrap();
        let error = body.reader.read_to_end(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("timeout"), "{error}");
        drop(body);
        assert!(served.join().unwrap() < Duration::from_secs(10));
    }
}
