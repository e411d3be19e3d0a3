//! A registry that leaves logins to a token server, as most public registries do.

use std::fs;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use crate::logins::from_environment;
use crate::proxy::{Fault, Proxy, request};
use crate::registry::Registry;
use crate::tls::certificate;
use crate::{anonymous, pull, sample};

const PASSWORD: &str = "hunter2";

/// Signs tokens with a key whose certificate the registry knows.
struct TokenServer {
    host: String,
    directory: tempfile::TempDir,
    /// The paths of the requests.
    requests: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        certificate(directory.path(), "token", &[])?;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, files) = (requests.clone(), directory.path().to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &files, &seen).unwrap();
            }
        });
        Some(Self { host, directory, requests })
    }

    fn certificate(&self) -> PathBuf {
        self.directory.path().join("token.pem")
    }
}

/// Gives a token for pulling "public" to everyone, and one for "private" to the user with the password.
fn answer(mut stream: TcpStream, files: &Path, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let (path, headers) = request(&stream)?;
    seen.lock().unwrap().push(path.clone());
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("reader:{PASSWORD}")));
    let login = headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value);
    let name = if path.contains("private") { "private" } else { "public" };
    let allowed = login.map_or(name == "public", |login| *login == basic);
    let (status, body) = if allowed {
        ("200 OK", json!({"token": token(files, name, &["pull"])}))
    } else {
        ("401 Unauthorized", json!({"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}))
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn token(files: &Path, name: &str, actions: &[&str]) -> String {
    let pem = fs::read_to_string(files.join("token.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (now, unique) = (time.as_secs(), time.as_nanos().to_string());
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
    let claims = json!({"iss": "issuer", "aud": "the service", "sub": "", "iat": now, "nbf": now - 10,
        "exp": now + 600, "jti": unique,
        "access": [{"type": "repository", "name": name, "actions": actions}]});
    let input =
        [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(files.join("token.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let signature = openssl.wait_with_output().unwrap().stdout;
    format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn fetches_tokens_without_and_with_a_login() {
    let Some(server) = TokenServer::start() else { return };
    let auth = json!({"token": {
        "realm": format!("http://{}/token?a=b", server.host), "service": "the service", "issuer": "issuer",
        "rootcertbundle": server.certificate(),
    }});
    let Some(registry) = Registry::start_with(auth) else { return };
    for name in ["public", "private"] {
        let token = token(server.directory.path(), name, &["pull", "push"]);
        registry.push_with(name, "1", &sample(), &format!("Bearer {token}"));
    }
    let (public, private) =
        (format!("{}/public:1", registry.host), format!("{}/private:1", registry.host));

    let pulled = pull(&public, anonymous()).unwrap();
    assert_eq!(pulled.read("etc/a"), "1");
    let requests = std::mem::take(&mut *server.requests.lock().unwrap());
    assert_eq!(requests.len(), 1, "one token is enough: {requests:?}");
    for text in ["a=b", "scope=repository%3Apublic%3Apull", "service=the"] {
        assert!(requests[0].contains(text), "no {text:?} in: {requests:?}");
    }

    // A token that expires during the pull is replaced by another one.
    let proxy = Proxy::start(&registry.host, &sample().layer(1), Fault::Expire);
    pull(&format!("{}/public:1", proxy.host), anonymous()).unwrap();
    let requests = std::mem::take(&mut *server.requests.lock().unwrap());
    assert_eq!((requests.len(), proxy.requests()), (2, 2), "{requests:?}");

    let pulled = pull(&private, from_environment(&registry.host, PASSWORD)).unwrap();
    assert_eq!(pulled.read("etc/a"), "1");
    let error = pull(&private, anonymous()).err().unwrap();
    for text in ["token server", &server.host, "401", "without a login", "docker login"] {
        assert!(error.contains(text), "no {text:?} in: {error}");
    }
    let error = pull(&private, from_environment(&registry.host, "wrong-hunter2")).err().unwrap();
    assert!(error.contains("refuses the user \"reader\"") && !error.contains("hunter2"), "{error}");
}

#[test]
fn sends_the_password_to_no_token_server_without_tls() {
    let Some(server) = TokenServer::start() else { return };
    let auth = json!({"token": {
        "realm": "http://192.0.2.1/token", "service": "s", "issuer": "i", "rootcertbundle": server.certificate(),
    }});
    let Some(registry) = Registry::start_with(auth) else { return };
    let image = format!("{}/private:1", registry.host);
    let error = pull(&image, from_environment(&registry.host, PASSWORD)).err().unwrap();
    assert!(
        error.contains("names \"http://192.0.2.1/token\" for tokens, expected an https URL"),
        "{error}"
    );
}
