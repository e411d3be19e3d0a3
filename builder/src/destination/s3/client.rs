//! The connection to a bucket, which all operations share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use object_store::aws::{
    AmazonS3, AmazonS3Builder, AwsCredentialProvider, Checksum, S3ConditionalPut,
};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::address::Address;
use super::failure::Failure;
use super::settings::{NO_CREDENTIALS, Settings, Source};
use crate::proxy::Proxies;

/// The size of the parts of large files, in bytes. S3 requires at least 5 MiB.
pub(super) const PART_SIZE: u64 = 8 << 20;
/// The number of parts that are in memory at the same time, over all threads.
const PARTS_MAX: usize = 8;
/// The timeout for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of a request that reads at most [`PART_SIZE`] bytes, and for each pause in its answer.
const READ_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(30));
/// The timeout of a request that writes at most [`PART_SIZE`] bytes. The answer comes after the last
/// byte, so pauses cannot be noticed. With eight parts at the same time, 2 Mbit/s are enough.
const WRITE_TIMEOUT: Duration = Duration::from_secs(300);
/// The time after which a failed request is not sent again.
pub(super) const RETRY_TIMEOUT: Duration = Duration::from_secs(180);
/// The pauses between attempts grow from the first to the second value, with a random part.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A client of one bucket. Threads can use it at the same time.
pub(super) struct Client {
    /// Runs the requests. Its threads serve the connections while callers wait for their results.
    pub runtime: Runtime,
    /// The client for requests that read.
    pub reads: AmazonS3,
    /// The client for requests that write.
    pub writes: AmazonS3,
    /// Bounds the number of parts in memory.
    pub parts: Arc<Semaphore>,
    address: Address,
    endpoint: Option<String>,
    secrets: Vec<String>,
}

impl Client {
    /// Prepares a client. Connects to the bucket only later.
    pub(super) fn new(address: Address, settings: Settings) -> Result<Self> {
        // `object_store` reads these variables itself. With an unencoded `#`, `/` or `?` in the password, it
        // would take a part of the credentials for the host and look it up.
        Proxies::check_for_libraries()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("s3")
            .enable_all()
            .build()
            .context("starting the threads of the S3 client")?;
        let (total, pause) = READ_TIMEOUTS;
        let options = ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT);
        let for_writes = options.clone().with_timeout(WRITE_TIMEOUT);
        let for_reads = options.with_timeout(total).with_read_timeout(pause);
        let failed = || {
            format!(
                "preparing the S3 client for the bucket {}; if this machine has no certificates of \
                 authorities, install the package ca-certificates",
                address.bucket
            )
        };
        let mut writes = builder(&address, &settings, for_writes);
        if settings.source != Source::AccessKey {
            writes = writes.with_credentials(cloud_credentials(&runtime, &address, &settings)?);
        }
        let writes = writes.build().with_context(failed)?;
        let reads = builder(&address, &settings, for_reads);
        let reads = reads.with_credentials(writes.credentials().clone());
        let reads = reads.build().with_context(failed)?;
        let Settings { endpoint, secrets, .. } = settings;
        let parts = Arc::new(Semaphore::new(PARTS_MAX));
        Ok(Self { runtime, reads, writes, parts, address, endpoint, secrets })
    }

    /// Returns the URL of a path, without credentials.
    pub(super) fn url(&self, path: &str) -> String {
        let Address { bucket, prefix } = &self.address;
        let parts = [bucket.as_str(), prefix, path];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("s3://{}", parts.join("/"))
    }

    /// Returns the key of a path.
    pub(super) fn key(&self, path: &str) -> Result<Key> {
        ensure!(
            path.split('/').all(protocol::release::is_file_name),
            "{path:?} is not a path of plain file names"
        );
        let prefix = &self.address.prefix;
        let key = if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") };
        Key::parse(&key)
            .with_context(|| format!("{} cannot be the key of an object", self.url(path)))
    }

    /// Returns the key of a directory; `None` for the whole bucket.
    pub(super) fn directory_key(&self, directory: &str) -> Result<Option<Key>> {
        if directory.is_empty() {
            let prefix = Some(&self.address.prefix).filter(|prefix| !prefix.is_empty());
            return Ok(prefix.map(Key::parse).transpose()?);
        }
        Ok(Some(self.key(directory)?))
    }

    /// Returns the path of a key; `None` if no release can have a file with this key.
    pub(super) fn path<'a>(&self, key: &'a Key) -> Option<&'a str> {
        let prefix = &self.address.prefix;
        let path = key.as_ref().strip_prefix(prefix.as_str())?;
        let path = if prefix.is_empty() { path } else { path.strip_prefix('/')? };
        path.split('/').all(protocol::release::is_file_name).then_some(path)
    }

    /// Returns the error of a failed request, for `action` such as `reading`.
    pub(super) fn failed(
        &self,
        action: &str,
        path: &str,
        error: &object_store::Error,
    ) -> anyhow::Error {
        let at = self.endpoint.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
        let explained = Failure::without_secrets(error, &self.secrets).explain();
        anyhow!("{action} {}{at}: {explained}", self.url(path))
    }
}

/// Returns the configuration of a client.
fn builder(address: &Address, settings: &Settings, options: ClientOptions) -> AmazonS3Builder {
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: BACKOFF.0, max_backoff: BACKOFF.1, base: 2.0 },
        max_retries: settings.attempts - 1,
        retry_timeout: RETRY_TIMEOUT,
    };
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&address.bucket)
        .with_client_options(options)
        .with_retry(retry)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_checksum_algorithm(Checksum::SHA256)
        // Some stores do not implement the request that deletes several objects.
        .with_disable_bulk_delete(true);
    let values = settings.values.iter();
    values.fold(builder, |builder, (key, value)| builder.with_config(*key, value))
}

/// Returns the provider of credentials that a service gives, after they were got once.
///
/// # Errors
/// Fails if the service gives none. On a machine that has no such service, this takes a few seconds;
/// without this check, the first request would wait for minutes.
fn cloud_credentials(
    runtime: &Runtime,
    address: &Address,
    settings: &Settings,
) -> Result<AwsCredentialProvider> {
    let mut builder = builder(address, settings, ClientOptions::new());
    if settings.source == Source::Instance {
        let retry_timeout = Duration::from_secs(2);
        let retry = RetryConfig { max_retries: 1, retry_timeout, ..RetryConfig::default() };
        builder = builder.with_retry(retry);
    }
    let credentials = builder.build()?.credentials().clone();
    let found = runtime.block_on(credentials.get_credential());
    found.map_err(|error| {
        let happened = Failure::of(&error).happened();
        match settings.source {
            Source::WebIdentity => anyhow!(
                "exchanging the token in AWS_WEB_IDENTITY_TOKEN_FILE for a session of AWS_ROLE_ARN: \
                 {happened}; check both variables, and that the role trusts the issuer and the \
                 audience of the token"
            ),
            Source::Container => anyhow!(
                "asking the service in AWS_CONTAINER_CREDENTIALS_*_URI for credentials: {happened}; \
                 check the role of this container"
            ),
            Source::Instance | Source::AccessKey => anyhow!(
                "{NO_CREDENTIALS}. The metadata service of a virtual machine has none, either: \
                 {happened}"
            ),
        }
    })?;
    Ok(credentials)
}
