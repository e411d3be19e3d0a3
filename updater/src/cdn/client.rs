//! The HTTP client.

use std::io::{self, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use protocol::url::{HOST_MAX, Origin};
use ureq::http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, PROXY_AUTHORIZATION, RANGE};
use ureq::{Body, Timeout};

use super::error::{CdnError, NetworkConfigError, without_query};
use super::rate::Bucket;
use super::redirect::Refusal;
use super::response::ResponseHead;
use super::retries::Attempts;
use super::route::Routes;
use super::timeouts::Timeouts;
use super::{directory, redirect};
use crate::config::Network;
use crate::wrong_files::Memory;

/// How much of an unexpected body is read to recognize HTML.
pub(super) const HTML_PREFIX: u64 = 512;

/// A client of CDNs. One client is made per run, because the rate limit applies to all its requests
/// together. Requests are sent one at a time, each over its own connection.
pub struct Cdn {
    routes: Routes,
    allowed_origins: Vec<String>,
    pub(super) timeouts: Timeouts,
    pub(super) bucket: Option<Mutex<Bucket>>,
    /// The files that were wrong before, if they are remembered.
    pub(super) wrong: Mutex<Option<Memory>>,
}

/// The validators of a manifest (RFC 9110 section 8.8), for a conditional request.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Validators {
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`
    pub last_modified: Option<String>,
}

/// The response to a manifest request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestResponse {
    /// The manifest still has the validators of the request.
    NotModified,
    /// The server sent a manifest. Its signature is not verified yet.
    Modified {
        /// The manifest, at most one byte longer than the maximum.
        bytes: Vec<u8>,
        /// The validators for the next request.
        validators: Validators,
    },
}

/// A request, which is sent again for each redirect.
#[derive(Clone, Copy, Default)]
pub(super) struct Request<'a> {
    pub(super) url: &'a str,
    /// Sends HEAD instead of GET.
    pub(super) is_head: bool,
    /// The first byte of `Range`. The header field is omitted if this is 0.
    pub(super) from: u64,
    /// The ETag of `If-Range`.
    pub(super) if_range: Option<&'a str>,
    /// The validators of `If-None-Match` and `If-Modified-Since`.
    pub(super) unless: Option<&'a Validators>,
    /// The time for the request, its redirects and its body.
    pub(super) deadline: Option<Duration>,
}

impl Cdn {
    /// Makes a client. It follows redirects to `allowed_origins` (`https://host[:port]`), and reads the
    /// proxy variables of this process's environment. Fails if a proxy or a certificate file in the
    /// configuration is not usable.
    pub fn new(
        network: &Network,
        allowed_origins: &[String],
        timeouts: Timeouts,
    ) -> Result<Self, NetworkConfigError> {
        Self::with_environment(network, allowed_origins, timeouts, &|name| std::env::var(name).ok())
    }

    /// Makes a client that reads the proxy variables with `variable`.
    pub fn with_environment(
        network: &Network,
        allowed_origins: &[String],
        timeouts: Timeouts,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, NetworkConfigError> {
        Ok(Self {
            routes: Routes::new(network, &timeouts, variable)?,
            allowed_origins: allowed_origins.to_vec(),
            timeouts,
            bucket: network.rate_limit.map(|rate| Mutex::new(Bucket::new(rate))),
            wrong: Mutex::new(None),
        })
    }

    /// Gets a manifest, unless it still has the validators `unless`. Reads at most `max + 1` bytes: the
    /// extra byte tells the caller that the manifest is too long.
    pub fn manifest(
        &self,
        url: &str,
        max: usize,
        unless: Option<&Validators>,
    ) -> Result<ManifestResponse, CdnError> {
        let max = (max as u64).saturating_add(1);
        if Origin::of(url).is_none() {
            let (file, _) = directory::open(url, 0)?;
            let bytes = read(url, file, max)?;
            return Ok(ManifestResponse::Modified { bytes, validators: Validators::default() });
        }
        let deadline = Some(self.timeouts.manifest);
        self.with_retries(|| {
            let request = Request { url, unless, deadline, ..Request::default() };
            let (head, body) = self.follow_redirects(&request)?;
            if head.status == 304 {
                return Ok(ManifestResponse::NotModified);
            }
            let bytes = read(url, body.into_reader(), max)?;
            let ResponseHead { etag, last_modified, .. } = head;
            let validators = Validators { etag, last_modified };
            Ok(ManifestResponse::Modified { bytes, validators })
        })
    }

    /// Checks that a file exists and returns its length, if the server sends it, without downloading
    /// the file. Returns `None` if the server does not support HEAD.
    pub fn probe(&self, url: &str) -> Result<Option<u64>, CdnError> {
        if Origin::of(url).is_none() {
            return directory::open(url, 0).map(|(_, length)| Some(length));
        }
        let request = Request { url, is_head: true, ..Request::default() };
        match self.with_retries(|| self.follow_redirects(&request)) {
            // Some servers send the length of the empty HEAD response. GET returns the file's length;
            // its body is not read.
            Ok((ResponseHead { length: Some(0), .. }, _)) => {
                let request = Request { is_head: false, ..request };
                self.with_retries(|| self.follow_redirects(&request)).map(|(head, _)| head.length)
            }
            Ok((head, _)) => Ok(head.length),
            // Some servers forbid HEAD or do not implement it.
            Err(CdnError::Status { status: 403 | 405 | 501, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Repeats a request for as long as it fails with a transient error and retries are left.
    fn with_retries<T>(&self, request: impl Fn() -> Result<T, CdnError>) -> Result<T, CdnError> {
        let mut attempts = Attempts::new(self.timeouts.manifest_retries, Instant::now());
        loop {
            let error = match request() {
                Err(error) if error.is_transient() => error,
                other => return other,
            };
            match attempts.next(error.retry_after(), Instant::now(), fastrand::f64()) {
                Some(pause) => self.sleep_before_retry(&error, pause),
                None => return Err(error),
            }
        }
    }

    /// Logs why a request failed, and sleeps until it is repeated, if possible to another address.
    pub(super) fn sleep_before_retry(&self, error: &dyn std::fmt::Display, pause: Duration) {
        self.routes.addresses.distrust_last();
        log::info!("{error}; retrying in {:.1} s", pause.as_secs_f64());
        std::thread::sleep(pause);
    }

    /// Sends a request and follows allowed redirects. Returns a response with the expected status.
    pub(super) fn follow_redirects(
        &self,
        request: &Request<'_>,
    ) -> Result<(ResponseHead, Body), CdnError> {
        let (mut url, since) = (request.url.to_owned(), Instant::now());
        for _ in 0..=redirect::REDIRECTS_MAX {
            let deadline = request.deadline.map(|time| time.saturating_sub(since.elapsed()));
            let (head, body, via) = self.send(&url, &Request { deadline, ..*request })?;
            if !redirect::is_redirect(head.status) {
                return checked(&url, via, request, head).map(|head| (head, body));
            }
            let location = head.location.as_deref().unwrap_or_default();
            url = match redirect::target(&url, location, &self.allowed_origins) {
                Ok(next) => next,
                Err(refusal) => return Err(self.refuse(&url, &head, body, &refusal)),
            };
        }
        let url = without_query(request.url);
        Err(CdnError::TooManyRedirects { url, max: redirect::REDIRECTS_MAX })
    }

    /// Makes the error for a redirect that is not followed. Reads the beginning of its body, which shows
    /// whether a network answered in the place of the CDN.
    fn refuse(&self, url: &str, head: &ResponseHead, body: Body, refusal: &Refusal) -> CdnError {
        let (status, location) = (head.status, head.location.as_deref().unwrap_or_default());
        let error = || CdnError::redirect(without_query(url), status, refusal);
        let Refusal::Foreign(to) = refusal else { return error() };
        let mut beginning = Vec::new();
        let mut body = body.into_reader().take(HTML_PREFIX);
        // A read error only means that HTML may not be recognized.
        let _ = self.with_deadline(self.timeouts.stall, || body.read_to_end(&mut beginning));
        let is_html = !beginning.is_empty() && head.is_html(&beginning);
        match redirect::is_portal(url, location, to, is_html) {
            true => {
                let to = to.to_string().chars().take(HOST_MAX).collect();
                CdnError::Portal { url: without_query(url), status, to }
            }
            false => error(),
        }
    }

    /// Runs `read`, which must receive its data from the server within `time`.
    pub(super) fn with_deadline<T>(&self, time: Duration, read: impl FnOnce() -> T) -> T {
        self.routes.deadline.set(time, Timeout::PerRead);
        read()
    }

    /// Sends one request. Returns the response's head and body, and the text with which errors name the
    /// proxy.
    fn send(
        &self,
        url: &str,
        request: &Request<'_>,
    ) -> Result<(ResponseHead, Body, String), CdnError> {
        self.routes.addresses.begin();
        let route = self.routes.to(url);
        let via = route.via.map_or(String::new(), |proxy| format!(" through the proxy {proxy}"));
        let mut call = match request.is_head {
            true => route.agent.head(url),
            false => route.agent.get(url),
        };
        if request.from > 0 {
            call = call.header(RANGE, format!("bytes={}-", request.from));
        }
        let unless = request.unless;
        for (name, value) in [
            (IF_RANGE, request.if_range.filter(|_| request.from > 0)),
            (IF_NONE_MATCH, unless.and_then(|unless| unless.etag.as_deref())),
            // A server ignores this field if it supports `If-None-Match` (RFC 9110 section 13.1.3).
            (IF_MODIFIED_SINCE, unless.and_then(|unless| unless.last_modified.as_deref())),
            (PROXY_AUTHORIZATION, route.authorization.as_deref()),
        ] {
            if let Some(value) = value {
                call = call.header(name, value);
            }
        }
        if request.deadline.is_some() {
            call = call.config().timeout_global(request.deadline).build();
        }
        let result = match request.deadline {
            Some(time) => {
                self.routes.deadline.set(time, Timeout::Global);
                call.call()
            }
            // This time is for a proxy and the server behind it together.
            None => self.with_deadline(self.timeouts.connect + self.timeouts.stall, || call.call()),
        };
        match result {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let head = ResponseHead::new(parts.status, &parts.headers, SystemTime::now());
                Ok((head, body, via))
            }
            Err(error) => Err(CdnError::no_response(without_query(url), via, &error)),
        }
    }
}

/// Returns the head if its status and content encoding are ones that the request allows.
fn checked(
    url: &str,
    via: String,
    request: &Request<'_>,
    head: ResponseHead,
) -> Result<ResponseHead, CdnError> {
    let url = without_query(url);
    match head.status {
        200 => {}
        206 | 416 if request.from > 0 => {}
        304 if request.unless.is_some() => {}
        status => {
            return Err(CdnError::Status { url, via, status, retry_after: head.retry_after });
        }
    }
    match &head.encoding {
        Some(encoding) => {
            let encoding = encoding.chars().take(32).collect();
            Err(CdnError::Encoding { url, encoding })
        }
        None => Ok(head),
    }
}

fn read(url: &str, from: impl Read, max: u64) -> Result<Vec<u8>, CdnError> {
    let mut bytes = Vec::new();
    let read = from.take(max).read_to_end(&mut bytes);
    read.map_err(|error: io::Error| CdnError::incomplete(without_query(url), &error))?;
    Ok(bytes)
}
