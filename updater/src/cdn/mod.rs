//! Where releases come from: a web server, or a directory.
//!
//! What happens to a request, and where it is decided:
//! 1. `proxy`: which way it goes: by a tunnel, by asking a proxy (`forward`), or straight; `route` has
//!    the agents
//! 2. `authorities`: whose certificate is good on that way
//! 3. `redirect`: whether the answer may send us elsewhere
//! 4. `answer`, `range`: what the answer's head is good for
//! 5. `rate`: how fast the body is read; `deadline`: how long is waited for a piece of it
//! 6. `retry`: whether to ask again, and when
//!
//! `download` does that until a whole file is there, `mirrors` until it is the right one; `error` is
//! what can go wrong.

mod answer;
mod authorities;
mod deadline;
mod directory;
mod download;
mod error;
mod forward;
mod mirrors;
mod proxy;
mod range;
mod rate;
mod redirect;
mod retry;
mod route;

use std::io::{self, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use protocol::url::{HOST_MAX, origin};
use ureq::http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, PROXY_AUTHORIZATION, RANGE};
use ureq::{Body, Timeout};

pub(crate) use self::answer::{begins_like_html, is_etag, is_validator};
pub use self::download::{FetchError, Sink};
pub(crate) use self::error::HTML;
pub use self::error::{CdnError, SetupError};
pub use self::mirrors::Partial;
pub use self::retry::Retries;

use self::answer::Head;
use self::rate::Bucket;
use self::retry::Attempts;
use self::route::Routes;
use crate::config::Network;

/// How long things may take. The defaults are for hosts; tests have less time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// A server that does not take a connection in this time is not there.
    pub connect: Duration,
    /// The longest pause between two pieces of an answer. A slow download is fine, a stalled one is not.
    pub stall: Duration,
    /// From the first packet to the last of a manifest, which has 60 kB, and 1 MiB at most: that is
    /// 9 kB/s. A server that is slower keeps a host from asking another one, and from updates.
    pub manifest: Duration,
    /// How often to ask for a manifest. The timer asks again anyway, and other mirrors are waiting.
    pub manifest_retries: Retries,
    /// How often to ask for the rest of an artifact.
    pub download_retries: Retries,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        let first = seconds(1);
        Self {
            connect: seconds(30),
            stall: seconds(60),
            manifest: seconds(120),
            manifest_retries: Retries {
                attempts: 4,
                first,
                longest: seconds(8),
                patience: seconds(120),
            },
            download_retries: Retries {
                attempts: 9,
                first,
                longest: seconds(60),
                patience: seconds(1800),
            },
        }
    }
}

impl Times {
    /// The same with no pause between two attempts longer than this, unless the server asks for it.
    pub fn with_longest_pause(mut self, longest: Duration) -> Self {
        for retries in [&mut self.manifest_retries, &mut self.download_retries] {
            retries.longest = retries.longest.min(longest);
        }
        self
    }
}

/// A client of CDNs. One is made for a run: it holds the limits that hold for all its requests
/// together. They are made one after another, each over a connection of its own.
pub struct Cdn {
    routes: Routes,
    allowed_origins: Vec<String>,
    times: Times,
    bucket: Option<Mutex<Bucket>>,
}

/// What tells whether a manifest is still the same, as its server named it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Validators {
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`
    pub last_modified: Option<String>,
}

/// The answer to a question for a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// It is the one that the validators are of.
    Unchanged,
    /// It is this one; not verified.
    Changed {
        /// At most one byte more than was wanted.
        bytes: Vec<u8>,
        /// For the next time.
        validators: Validators,
    },
}

/// A question.
#[derive(Clone, Copy, Default)]
struct Request<'a> {
    url: &'a str,
    /// Only the head of the answer.
    is_head: bool,
    /// From this byte on.
    from: u64,
    /// If it is still this one; else from the first byte on.
    if_range: Option<&'a str>,
    /// Unless it is still this one.
    unless: Option<&'a Validators>,
    /// Everything in this time.
    deadline: Option<Duration>,
}

impl Cdn {
    /// A client for this network. Redirects may lead to `allowed_origins` (`https://host[:port]`).
    pub fn new(
        network: &Network,
        allowed_origins: &[String],
        times: Times,
    ) -> Result<Self, SetupError> {
        Self::with_environment(network, allowed_origins, times, &|name| std::env::var(name).ok())
    }

    /// The same with another environment than this process's; it may name proxies.
    pub fn with_environment(
        network: &Network,
        allowed_origins: &[String],
        times: Times,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            routes: Routes::new(network, &times, variable)?,
            allowed_origins: allowed_origins.to_vec(),
            times,
            bucket: network.rate_limit.map(|rate| Mutex::new(Bucket::new(rate))),
        })
    }

    /// Gets a manifest, unless it is the one that `unless` was given with. Not more than `max` bytes
    /// and one are read, which shows that there are more.
    pub fn manifest(
        &self,
        url: &str,
        max: usize,
        unless: Option<&Validators>,
    ) -> Result<Answered, CdnError> {
        let max = (max as u64).saturating_add(1);
        if origin(url).is_none() {
            let (file, _) = directory::open(url, 0)?;
            let bytes = read(url, file, max)?;
            return Ok(Answered::Changed { bytes, validators: Validators::default() });
        }
        let deadline = Some(self.times.manifest);
        self.insist(|| {
            let (head, body) =
                self.ask(&Request { url, unless, deadline, ..Request::default() })?;
            if head.status == 304 {
                return Ok(Answered::Unchanged);
            }
            let bytes = read(url, body.into_reader(), max)?;
            let Head { etag, last_modified, .. } = head;
            Ok(Answered::Changed { bytes, validators: Validators { etag, last_modified } })
        })
    }

    /// Asks whether a file is there and how long it is, without getting it. Servers that do not
    /// answer such questions do not count as an answer.
    pub fn probe(&self, url: &str) -> Result<Option<u64>, CdnError> {
        if origin(url).is_none() {
            return directory::open(url, 0).map(|(_, length)| Some(length));
        }
        let question = Request { url, is_head: true, ..Request::default() };
        match self.insist(|| self.ask(&question)) {
            // Some tell the length of the answer that they give, which has no body. GET tells more;
            // what comes with it is not read.
            Ok((Head { length: Some(0), .. }, _)) => {
                let question = Request { is_head: false, ..question };
                self.insist(|| self.ask(&question)).map(|(head, _)| head.length)
            }
            Ok((head, _)) => Ok(head.length),
            // Some forbid HEAD, or do not know it.
            Err(CdnError::Status { status: 403 | 405 | 501, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks a small question until it is answered, or it is of no use.
    fn insist<T>(&self, question: impl Fn() -> Result<T, CdnError>) -> Result<T, CdnError> {
        let mut attempts = Attempts::new(self.times.manifest_retries, Instant::now());
        loop {
            let error = match question() {
                Err(error) if error.is_transient() => error,
                other => return other,
            };
            match attempts.next(error.retry_after(), Instant::now(), fastrand::f64()) {
                Some(pause) => pause_after(&error, pause),
                None => return Err(error),
            }
        }
    }

    /// Asks once, and goes where the answer sends us, if it may.
    fn ask(&self, request: &Request<'_>) -> Result<(Head, Body), CdnError> {
        let (mut url, since) = (request.url.to_owned(), Instant::now());
        for _ in 0..=redirect::REDIRECTS_MAX {
            let deadline = request.deadline.map(|time| time.saturating_sub(since.elapsed()));
            let (head, body, via) = self.exchange(&url, &Request { deadline, ..*request })?;
            if !redirect::is_redirect(head.status) {
                return checked(&url, via, request, head).map(|head| (head, body));
            }
            let to = head.location.as_deref().unwrap_or_default();
            url = match redirect::target(&url, to, &self.allowed_origins) {
                Some(next) => next,
                None => {
                    let to = origin(to).filter(|place| place.len() <= HOST_MAX);
                    let to = to.unwrap_or("another place").to_owned();
                    let (url, status) = (without_query(&url), head.status);
                    return Err(CdnError::Redirect { url, status, to });
                }
            };
        }
        let url = without_query(request.url);
        Err(CdnError::Redirects { url, max: redirect::REDIRECTS_MAX })
    }

    /// What is read now must have come in this time.
    fn expect_in(&self, time: Duration) {
        self.routes.deadline.set(time, Timeout::PerRead);
    }

    /// One request and the head of its answer.
    fn exchange(&self, url: &str, request: &Request<'_>) -> Result<(Head, Body, String), CdnError> {
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
            // A server that knows ETags goes by them (RFC 9110 section 13.1.3).
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
        // Whoever may be on the way gets no more time than the two of them together.
        match request.deadline {
            Some(all) => self.routes.deadline.set(all, Timeout::Global),
            None => self.expect_in(self.times.connect + self.times.stall),
        }
        match call.call() {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Ok((Head::new(parts.status, &parts.headers, SystemTime::now()), body, via))
            }
            Err(error) => Err(CdnError::unanswered(without_query(url), via, &error)),
        }
    }
}

/// Whether the answer is one to this question.
fn checked(url: &str, via: String, request: &Request<'_>, head: Head) -> Result<Head, CdnError> {
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
    read.map_err(|error: io::Error| CdnError::cut(without_query(url), &error))?;
    Ok(bytes)
}

fn pause_after(error: &dyn std::fmt::Display, pause: Duration) {
    log::info!("{error}; asking again in {:.1} s", pause.as_secs_f64());
    std::thread::sleep(pause);
}

/// A URL for people: a query may be a secret.
pub fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}
