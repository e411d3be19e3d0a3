//! Servers with TLS: certificates, and the exchange of a token for a session.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::server::{ACCESS_KEY, SECRET_KEY};
use super::*;

/// The variable by which a test starts itself with other variables.
const CHILD: &str = "ETCHAOS_TEST_ENDPOINTS";

/// The configuration of `openssl req` for a certificate that is not that of an authority.
const REQUEST: &str = "[req]\ndistinguished_name = dn\nx509_extensions = v3\nprompt = no\n\
    [dn]\nCN = localhost\n[v3]\nsubjectAltName = DNS:localhost\nbasicConstraints = CA:FALSE\n";

/// A server that gives each request the same answer.
struct TlsServer {
    endpoint: String,
    certificate: std::path::PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
}

impl TlsServer {
    /// Starts a server with a new certificate. Returns nothing if `openssl` is not installed.
    fn start(directory: &Path, status: &'static str, body: &str) -> Option<Self> {
        let at = |name| directory.join(name);
        std::fs::write(at("request"), REQUEST).unwrap();
        let created = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-config", "request"])
            .args(["-keyout", "key", "-out", "certificate"])
            .current_dir(directory)
            .output();
        match created {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => {
                crate::judge::skip(&format!("cannot run openssl: {error}"));
                return None;
            }
        }
        let certificates = vec![CertificateDer::from_pem_file(at("certificate")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(at("key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (config, seen, length) = (Arc::new(config), Arc::clone(&requests), body.len());
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, socket.unwrap());
                let mut request = vec![0; 1 << 14];
                // A client that does not trust the certificate ends the connection.
                let Ok(size) = stream.read(&mut request) else { continue };
                seen.lock().unwrap().push(String::from_utf8_lossy(&request[..size]).into_owned());
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Some(Self { endpoint, certificate: at("certificate"), requests })
    }
}

#[test]
fn rejects_certificate_of_an_unknown_authority() {
    let temporary = tempfile::tempdir().unwrap();
    let Some(server) = TlsServer::start(temporary.path(), "200 OK", "") else { return };
    let s3 = open(&server.endpoint, &[("AWS_MAX_ATTEMPTS", "1")]);
    let error = s3.lock().err().unwrap().to_string();
    assert!(error.contains("does not trust the TLS certificate"), "{error}");
    assert!(server.requests.lock().unwrap().is_empty());
}

/// Opens the store with the token in a file, as in a CI system.
fn open_with_token(endpoint: &str, token_service: &str, file: &Path) -> Result<S3> {
    let web = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("AWS_ENDPOINT_URL_STS", token_service),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/publisher"),
    ];
    open_url("s3://releases/cdn", endpoint, &web)
}

#[test]
fn exchanges_the_token_of_a_ci_system_for_a_session() {
    let temporary = tempfile::tempdir().unwrap();
    let token = temporary.path().join("token");
    let secret = format!("hunter2{}", "x".repeat(300));
    std::fs::write(&token, &secret).unwrap();
    if let Ok(endpoints) = std::env::var(CHILD) {
        let (store, token_service) = endpoints.split_once(' ').unwrap();
        return drop(open_with_token(store, token_service, &token).unwrap().lock().unwrap());
    }
    let body = format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>\
         <SessionToken>session</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    );
    let store = Server::start();
    let Some(service) = TlsServer::start(temporary.path(), "200 OK", &body) else { return };
    let name = "destination::s3::tests::tls::exchanges_the_token_of_a_ci_system_for_a_session";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, format!("{} {}", store.endpoint(), service.endpoint))
        .env("SSL_CERT_FILE", &service.certificate)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    let requests = service.requests.lock().unwrap();
    assert!(requests[0].contains("role%2Fpublisher") && requests[0].contains(&secret));
}

#[test]
fn explains_why_there_is_no_session() {
    let (store, temporary) = (Server::start(), tempfile::tempdir().unwrap());
    let file = temporary.path().join("token");
    let error = open_with_token(&store.endpoint(), "https://localhost:9", &file).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("AWS_WEB_IDENTITY_TOKEN_FILE") && error.contains("No such"), "{error}");
    std::fs::write(&file, "hunter2").unwrap();
    let error = open_with_token(&store.endpoint(), "https://localhost:9", &file).unwrap_err();
    let error = format!("{error:#} {error:?}");
    assert!(error.contains("refused") && !error.contains("hunter2"), "{error}");
}
