//! An HTTP client for CDNs, which also reads from local directories.
//!
//! A request passes through these modules:
//! 1. `proxy` decides whether a proxy is used. `route` holds one HTTP agent for direct connections,
//!    one for tunnels through a proxy, and one for requests that a proxy forwards (`forward_proxy`).
//! 2. `certificates` loads the trusted certificate authorities.
//! 3. `resolver` looks up the host, `addresses` puts its addresses in order, and `race` connects to the
//!    first that answers; `tcp` is the connection.
//! 4. `client` sends the request; `redirect` decides whether a redirect is followed.
//! 5. `response` and `content_range` parse the response's header fields; `resume` decides whether the
//!    body continues a partial download.
//! 6. `rate` limits the download rate and detects slow servers; `deadline` limits the time of a read.
//! 7. `retries` decides whether and when a failed request is repeated.
//!
//! `download` repeats this until a file is complete, and `mirrors` until its digest is right. `wrong`
//! leaves out what was wrong before. `token_cache` keeps what was fetched for conditional requests. `error` has the
//! errors.

mod addresses;
mod certificates;
mod client;
mod content_range;
mod deadline;
mod directory;
mod download;
mod error;
mod forward_proxy;
mod mirrors;
mod proxy;
mod race;
mod rate;
mod redirect;
mod resolver;
mod response;
mod resume;
mod retries;
mod route;
mod tcp;
mod timeouts;
mod token_cache;
mod wrong;

pub use self::client::{Cdn, ManifestResponse, Validators};
pub use self::download::{FetchError, Sink};
pub(crate) use self::error::HTML_HINT;
pub use self::error::{CdnError, NetworkConfigError};
pub use self::mirrors::ResumableSink;
pub(crate) use self::response::begins_like_html;
pub use self::retries::Retries;
pub use self::timeouts::Timeouts;
pub(crate) use self::token_cache::TokenCache;
