//! An S3 server on the loopback interface, and a proxy that disturbs the connections to it.
//!
//! The server is `s3s`, a program that we did not write: it checks signatures, clocks, checksums and
//! conditions as S3 does, and stores the objects as files.

#![allow(dead_code, unused_imports, reason = "each test file uses only some of these items")]

mod proxy;

use std::net::SocketAddr;
use std::path::PathBuf;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::runtime::Runtime;

pub(crate) use proxy::{Fault, Proxy, Rule};

/// The access key that the server knows.
pub(crate) const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
/// The secret key that belongs to it.
pub(crate) const SECRET_KEY: &str = "very+secret/key0123456789";
/// The bucket of the server.
pub(crate) const BUCKET: &str = "releases";

/// A server with one empty bucket, which everybody may read, as hosts do. Only the owner of the access
/// key may list and write. The server ends when it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    root: tempfile::TempDir,
    _runtime: Runtime,
}

impl Server {
    /// Starts a server.
    pub(crate) fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        service.set_access(PublicRead);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, service.build()));
        Self { address, root, _runtime: runtime }
    }

    /// Returns the URL of the server.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address of the server.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL under which hosts read the bucket.
    pub(crate) fn public_url(&self) -> String {
        format!("{}/{BUCKET}", self.endpoint())
    }

    /// Returns the local file that stores an object.
    pub(crate) fn object(&self, key: &str) -> PathBuf {
        self.root.path().join(BUCKET).join(key)
    }

    /// Returns how many parts of incomplete uploads the server stores.
    pub(crate) fn incomplete_parts(&self) -> usize {
        let entries = std::fs::read_dir(self.root.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".upload_id-") && name.contains(".part-")).count()
    }
}

/// Returns the environment variables of a client of the server at `endpoint`.
pub(crate) fn variables(endpoint: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_ENDPOINT_URL_S3", endpoint.to_owned()),
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_MAX_ATTEMPTS", "4".to_owned()),
    ]
}

async fn serve(listener: tokio::net::TcpListener, service: S3Service) {
    while let Ok((socket, _)) = listener.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            // A connection that a fault breaks ends with an error.
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

struct PublicRead;

#[async_trait::async_trait]
impl S3Access for PublicRead {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let is_read = matches!(context.s3_op().name(), "GetObject" | "HeadObject");
        if is_read || context.credentials().is_some() {
            return Ok(());
        }
        Err(s3_error!(AccessDenied, "Signature is required"))
    }
}
