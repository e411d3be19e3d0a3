//! Reads user data from the metadata service of a cloud platform.
//!
//! Every service has the same link-local address, and some have an address of IPv6 too. On the platforms of
//! [`Platform`] these belong to the hypervisor. They are asked by plain HTTP and without a proxy, as the
//! platforms document.

use std::io::{ErrorKind, Read};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ureq::http::HeaderMap;
use ureq::{Agent, RequestBuilder};

use super::platform::Platform;
use super::user_data::USER_DATA_MAX;

/// The address of every service. Tests own it in a network namespace.
const BASE: &str = "http://169.254.169.254";
/// The second address of AWS's service, for machines without IPv4 (EC2 User Guide, "Access instance
/// metadata for an EC2 instance").
const AWS_IPV6: &str = "http://[fd00:ec2::254]";
/// The second address of GCP's service ("View and query VM metadata").
const GCP_IPV6: &str = "http://[fd20:ce::254]";
/// The time for a connection. The service is on the same machine, or one hop away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The time for a request and its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// The maximum size of a token. Tokens of AWS have 56 characters.
const TOKEN_MAX: u64 = 4096;
/// The name of the header field with the token, for `token` and as the prefix of others.
const AWS_TOKEN: &str = "X-aws-ec2-metadata-token";
/// The header field that GCP's service requires and sends.
const GCP_FLAVOR: (&str, &str) = ("Metadata-Flavor", "Google");

/// The answer of a metadata service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The user data, at most one byte longer than [`USER_DATA_MAX`].
    Data(Vec<u8>),
    /// The machine has no user data, and the reason for that conclusion.
    Nothing(String),
}

/// Asks the service for the user data. Repeats failed attempts for as long as `patience`, because the
/// network may not be up yet. One attempt is always made. It takes at most two requests, after a connection
/// to another address that failed.
///
/// # Errors
/// Returns the reason of the last failure.
pub(super) fn fetch(platform: Platform, patience: Duration) -> Result<Answer, String> {
    let since = Instant::now();
    let agent = agent();
    loop {
        let error = match attempt(&agent, platform) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if since.elapsed() + PAUSE >= patience {
            return Err(error);
        }
        sleep(PAUSE);
    }
}

/// Asks the service at the first of its addresses that accepts a connection.
fn attempt(agent: &Agent, platform: Platform) -> Result<Answer, String> {
    let bases: &[&'static str] = match platform {
        Platform::Aws => &[BASE, AWS_IPV6],
        Platform::Gcp => &[BASE, GCP_IPV6],
        Platform::Azure | Platform::Hetzner | Platform::OpenStack => &[BASE],
    };
    let mut unreachable = None;
    for base in bases {
        let Failure { reason, is_unreachable } = match (Service { agent, base }).user_data(platform)
        {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let error =
            format!("{base} did not send the user data of this {platform} machine: {reason}");
        if !is_unreachable {
            return Err(error);
        }
        // The first address is the one that most machines can reach.
        unreachable.get_or_insert(error);
    }
    Err(unreachable.unwrap_or_default())
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        // The environment's proxy would send the request, and the token, to another machine.
        .proxy(None)
        .http_status_as_error(false)
        // A redirect would lead to another machine.
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(REQUEST_TIMEOUT))
        .build();
    config.new_agent()
}

/// The service at an address.
struct Service<'a> {
    agent: &'a Agent,
    base: &'static str,
}

/// Why there is no answer.
struct Failure {
    reason: String,
    /// Whether no connection was made.
    is_unreachable: bool,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, is_unreachable: false }
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        let is_unreachable = match &error {
            ureq::Error::ConnectionFailed | ureq::Error::Timeout(ureq::Timeout::Connect) => true,
            ureq::Error::Io(error) => matches!(
                error.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::HostUnreachable
                    | ErrorKind::AddrNotAvailable
            ),
            _ => false,
        };
        Self { reason: error.to_string(), is_unreachable }
    }
}

/// A response with its body.
struct Response {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Service<'_> {
    fn user_data(&self, platform: Platform) -> Result<Answer, Failure> {
        match platform {
            Platform::Aws => self.aws(),
            Platform::Azure => self.azure(),
            Platform::Gcp => self.gcp(),
            // https://docs.hetzner.cloud: "Server Metadata". The limit is 32 KiB.
            Platform::Hetzner => answer(self.get("/hetzner/v1/userdata", &[])?),
            // docs.openstack.org, Nova, "Metadata": the same files as on the config drive, and 404 without
            // user data. The limit is 65535 bytes.
            Platform::OpenStack => answer(self.get("/openstack/latest/user_data", &[])?),
        }
    }

    /// EC2 User Guide, "Use the Instance Metadata Service": version 2 needs a token, which a PUT request
    /// returns; version 1 needs none. Status 403 means that the service is turned off. "Work with instance
    /// user data": the limit is 16 KiB, the text is decoded, and the status is 404 without user data.
    fn aws(&self) -> Result<Answer, Failure> {
        let ttl = format!("{AWS_TOKEN}-ttl-seconds");
        let request = self.agent.put(format!("{}/latest/api/token", self.base)).header(ttl, "60");
        let token = match read(request.send_empty(), TOKEN_MAX) {
            Ok(Response { status: 200, body, .. }) => Some(
                str::from_utf8(&body)
                    .map(|token| token.trim().to_owned())
                    .ok()
                    .filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
                    .ok_or("the session token is not text")?,
            ),
            Ok(Response { status: 403, .. }) => {
                return Ok(Answer::Nothing(
                    "the instance metadata service is turned off".to_owned(),
                ));
            }
            // Services that imitate version 1 do not know the request.
            Ok(Response { status: 404 | 405 | 501, .. }) => None,
            Ok(response) => {
                let status = response.status;
                return Err(format!("a session token is refused with status {status}").into());
            }
            Err(error) => return Err(error),
        };
        let fields: Vec<(&str, &str)> =
            token.iter().map(|token| (AWS_TOKEN, token.as_str())).collect();
        answer(self.get("/latest/user-data", &fields)?)
    }

    /// Google's "View and query VM metadata": an attribute that does not exist is 404, and both sides send
    /// the header field. User data is the attribute `user-data`, as for cloud-init; the limit is 256 KiB.
    fn gcp(&self) -> Result<Answer, Failure> {
        let path = "/computeMetadata/v1/instance/attributes/user-data";
        let response = self.get(path, &[GCP_FLAVOR])?;
        let (name, expected) = GCP_FLAVOR;
        if response.headers.get(name).is_none_or(|value| value != expected) {
            return Err(format!("the response has no header field {name}: {expected}").into());
        }
        answer(response)
    }

    /// Microsoft's "User Data for Azure Virtual Machine": in base64, at most 64 KiB, and empty without user
    /// data. "Azure Instance Metadata Service": the header field is required, and no proxy may be used.
    fn azure(&self) -> Result<Answer, Failure> {
        let path = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text";
        // The encoding is one that user data may always have.
        answer(self.get(path, &[("Metadata", "true")])?)
    }

    fn get(&self, path: &str, fields: &[(&str, &str)]) -> Result<Response, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let with = |request: RequestBuilder<_>, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        read(fields.iter().fold(request, with).call(), USER_DATA_MAX as u64 + 1)
    }
}

/// Reads at most `max` bytes of a body.
fn read(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    max: u64,
) -> Result<Response, Failure> {
    let (parts, body) = response?.into_parts();
    let mut bytes = Vec::new();
    let read = body.into_reader().take(max).read_to_end(&mut bytes);
    read.map_err(|error| format!("the response is not complete: {error}"))?;
    Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body: bytes })
}

fn answer(response: Response) -> Result<Answer, Failure> {
    match response.status {
        200 if response.body.is_empty() => Ok(Answer::Nothing("it is empty".to_owned())),
        200 => Ok(Answer::Data(response.body)),
        204 | 404 => Ok(Answer::Nothing("this machine has none".to_owned())),
        status => Err(format!("the service refused the request with status {status}").into()),
    }
}
