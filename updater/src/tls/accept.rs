//! Connections that begin with a handshake of TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::shell::{Binding, EXPORTER_LABEL};
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::{Identity, TlsError};

/// The first byte of a handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 0x16;
/// The protocol that clients may negotiate (RFC 7301). A client that negotiates none gets the same.
const ALPN: &[u8] = b"http/1.1";

/// Accepts connections with TLS 1.2 or 1.3 that present the certificate of this host.
#[derive(Clone)]
pub(crate) struct Acceptor(TlsAcceptor);

/// A connection of a client.
pub(crate) enum Incoming {
    /// The handshake is complete.
    Tls(Box<TlsStream<TcpStream>>),
    /// The client sent something other than a handshake, such as a request in plain HTTP. Nothing was read.
    Plain(TcpStream),
}

/// Returns what a token of a shell on this connection is bound to. There is none before TLS 1.3: a relay could make
/// two connections that have the same (RFC 7627 section 1).
pub(crate) fn binding(stream: &TlsStream<TcpStream>) -> Option<Binding> {
    let (_, connection) = stream.get_ref();
    let is_suitable = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let export = || connection.export_keying_material([0; 32], EXPORTER_LABEL, None);
    is_suitable.then(export)?.ok().map(Binding)
}

impl Acceptor {
    /// Creates an acceptor. Sessions are not resumed: clients connect rarely, and a server without sessions has
    /// no state that strangers could fill, and no data before the end of a handshake, which could be replayed.
    pub(crate) fn new(identity: &Identity) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let resolver = SingleCertAndKey::from(identity.certified_key());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Completes the handshake of a connection within a time limit.
    ///
    /// # Errors
    /// Fails if the handshake fails or takes too long.
    pub(crate) async fn accept(&self, stream: TcpStream, limit: Duration) -> io::Result<Incoming> {
        let handshake = async {
            let mut first = [0];
            match stream.peek(&mut first).await? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ if first != [HANDSHAKE] => Ok(Incoming::Plain(stream)),
                _ => Ok(Incoming::Tls(Box::new(self.0.accept(stream).await?))),
            }
        };
        timeout(limit, handshake).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}
