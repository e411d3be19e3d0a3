//! `testbed push` against servers that answer as listeners and other programs do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use protocol::{Claims, PrivateKey, token};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// How long a request may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A request that a server received: its first line and its body.
type Received = (String, String);

/// A key in a file, and the directory for other files of a test.
struct Operator {
    directory: tempfile::TempDir,
    key: PrivateKey,
}

impl Operator {
    fn new() -> Self {
        let (directory, key) = (tempfile::tempdir().unwrap(), PrivateKey::generate());
        std::fs::write(directory.path().join("ops.key"), key.reveal() + "\n").unwrap();
        Self { directory, key }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, host: &str, pattern: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
        let key = format!("@{}", self.directory.path().join("ops.key").display());
        command.args(["push", host, "ops", pattern]).args(more).env("ETCHAOS_PUSH_KEY", key);
        command
    }

    fn push(&self, host: &str, pattern: &str, more: &[&str]) -> Output {
        self.command(host, pattern, more).output().unwrap()
    }

    /// Returns the claims of a token that this key signed.
    fn claims(&self, token: &str) -> Claims {
        token::verify(token, &self.key.public().clone().into()).unwrap().into_inner()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The answer of Etcha's listener.
fn etcha(change: impl FnOnce(&mut Value)) -> String {
    let mut answer = json!({
        "err": "", "exit": false, "changedIDs": ["etcha push"], "changedOutputs": ["hi"],
        "removedIDs": [], "removedOutputs": [],
    });
    change(&mut answer);
    answer.to_string()
}

/// Reads a request and writes an answer.
fn exchange<S: Read + Write>(mut stream: BufReader<S>, answer: &str) -> std::io::Result<Received> {
    let (mut line, mut header, mut length) = (String::new(), String::new(), 0);
    stream.read_line(&mut line)?;
    while stream.read_line(&mut header)? > 2 {
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        header.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    stream.get_mut().write_all(answer.as_bytes())?;
    stream.get_mut().flush()?;
    Ok((line, String::from_utf8(body).unwrap()))
}

/// Starts a server that gives one answer. Returns its port and the requests.
fn serve(tls: Option<Arc<ServerConfig>>, answer: String) -> (u16, Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let received = match tls {
            None => exchange(BufReader::new(stream), &answer),
            Some(config) => exchange(BufReader::new(secured(config, stream)), &answer),
        };
        if let Ok(received) = received {
            let _ = sender.send(received);
        }
    });
    (port, requests)
}

fn secured(
    config: Arc<ServerConfig>,
    stream: TcpStream,
) -> StreamOwned<ServerConnection, TcpStream> {
    StreamOwned::new(ServerConnection::new(config).unwrap(), stream)
}

/// Pushes to a server without TLS that gives this answer.
fn push_to(answer: String) -> Output {
    let (port, _requests) = serve(None, answer);
    Operator::new().push(&format!("http://127.0.0.1:{port}"), "echo hi", &[])
}

#[test]
fn answers_of_etcha_decide_output_and_exit_code() {
    for (answer, expected, text) in [
        (http("200 OK", &etcha(|_| {})), 0, "changed: etcha push\n  hi\n"),
        (http("200 OK", &etcha(|a| a["changedIDs"] = json!([]))), 0, "  hi\n"),
        (
            http(
                "200 OK",
                &etcha(|a| (a["changedIDs"], a["changedOutputs"]) = (json!([]), json!(null))),
            ),
            0,
            "no changes\n",
        ),
        (
            http(
                "200 OK",
                &etcha(|a| (a["removedIDs"], a["removedOutputs"]) = (json!(["x"]), json!(["y"]))),
            ),
            0,
            "removed: x\n  y\nchanged: etcha push\n  hi\n",
        ),
        (http("304 Not Modified", ""), 0, "no changes\n"),
        (
            http("500 Internal Server Error", &etcha(|a| a["err"] = json!("exit status 7"))),
            1,
            "exit status 7",
        ),
        (http("200 OK", &etcha(|a| a["err"] = json!("exit status 7"))), 1, "exit status 7"),
        (http("404 Not Found", ""), 3, "no such source"),
        (http("429 Too Many Requests", ""), 3, "status 429"),
        (
            http("401 Unauthorized", r#"{"error": "the token has expired"}"#),
            3,
            "the token has expired",
        ),
        (http("409 Conflict", r#"{"error": "another Pattern is running"}"#), 3, "another Pattern"),
    ] {
        let output = push_to(answer.clone());
        let all = stdout(&output) + &stderr(&output);
        assert_eq!(code(&output), expected, "{answer}\n{all}");
        assert!(all.contains(text), "{answer}\n{all}");
    }
}

#[test]
fn an_answer_that_is_not_understood_is_never_success() {
    let bodies = [
        String::new(),
        " ".into(),
        "OK".into(),
        "{}".into(),
        "[]".into(),
        "null".into(),
        "<!DOCTYPE html><html><body>It works!</body></html>".into(),
        "\u{0}\u{1}\u{1b}[2J".into(),
        r#"{"status": "success"}"#.into(),
        r#"{"error": "no"}"#.into(),
        etcha(|answer| answer["err"] = json!(null)),
        etcha(|answer| answer["exit"] = json!("no")),
        etcha(|answer| answer["changedIDs"] = json!("etcha push")),
        etcha(|answer| answer["removedOutputs"] = json!([7])),
        etcha(|answer| _ = answer.as_object_mut().unwrap().remove("err")),
        etcha(|answer| _ = answer.as_object_mut().unwrap().remove("removedIDs")),
        etcha(|_| {})[..40].into(),
    ];
    for body in bodies {
        let output = push_to(http("200 OK", &body));
        assert_eq!(code(&output), 4, "{body}: {}{}", stdout(&output), stderr(&output));
        assert!(stderr(&output).contains("not that of a listener"), "{}", stderr(&output));
        assert!(!stderr(&output).contains('\u{1b}') && stdout(&output).is_empty());
    }
    for status in
        ["201 Created", "204 No Content", "206 Partial Content", "302 Found", "500 Error", "999 X"]
    {
        let output = push_to(http(status, &etcha(|_| {})));
        assert_eq!(code(&output), 4, "{status}: {}", stderr(&output));
    }
    let whole = http("200 OK", &etcha(|_| {}));
    for truncated in ["", "HTTP", "SSH-2.0-OpenSSH\r\n", &whole[..whole.len() - 1]] {
        let output = push_to(truncated.into());
        assert_eq!(code(&output), 4, "{truncated}: {}", stderr(&output));
    }
}

#[test]
fn a_host_that_cannot_be_reached_ran_nothing() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let operator = Operator::new();
    for host in [format!("127.0.0.1:{closed}"), "nowhere.invalid".into()] {
        let output = operator.push(&host, "echo hi", &["--insecure"]);
        assert_eq!(code(&output), 3, "{}", stderr(&output));
        assert!(stderr(&output).contains("cannot connect to"), "{}", stderr(&output));
    }
}

#[test]
fn usage_errors_exit_with_2_and_show_no_key() {
    let operator = Operator::new();
    for (host, pattern, more) in [
        ("web 1", "echo hi", &[][..]),
        ("ftp://web1", "echo hi", &[]),
        ("web1", "", &[]),
        ("web1", "nowhere.jsonnet", &[]),
        ("web1", "echo hi", &["--fingerprint", "12"]),
        ("web1", "echo hi", &["--ca", "/nonexistent"]),
        ("http://web1", "echo hi", &["--fingerprint", &"ab".repeat(32)]),
        ("web1", "echo hi", &["--timeout", "0"]),
        ("web1", "echo hi", &["--key", "@/nonexistent"]),
        ("web1", "echo hi", &["--key", "ed25519private:U0VDUkVU:x"]),
    ] {
        let output = operator.push(host, pattern, more);
        assert_eq!(code(&output), 2, "{host} {pattern} {more:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("U0VDUkVU:x"), "{}", stderr(&output));
    }
}

#[test]
fn request_has_what_etcha_and_etchaos_expect() {
    let operator = Operator::new();
    let (port, requests) = serve(None, http("200 OK", &etcha(|_| {})));
    let host = format!("http://127.0.0.1:{port}");
    let more = ["--check", "--filter", "^web & db$", "--audience", "web1", "--audience", "web2"];
    let output = operator.push(&host, "echo 'hi'", &more);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).starts_with("would change: etcha push\n"), "{}", stdout(&output));
    let (line, token) = requests.recv_timeout(TIMEOUT).unwrap();
    let target = "/etcha/v1/push/ops?check&filter=%5Eweb%20%26%20db%24";
    assert_eq!(line, format!("POST {target} HTTP/1.1\r\n"));
    let claims = operator.claims(&token);
    assert_eq!(claims.aud, ["web1", "web2"]);
    assert!(claims.iat.is_some() && claims.exp > claims.iat && claims.jti.is_some());
    let claims = serde_json::to_value(&claims).unwrap();
    assert_eq!(claims["etchaosMode"], "check");
    assert_eq!(claims["etchaPattern"]["entrypoint"], "/main.jsonnet");
    let pattern = claims["etchaPattern"]["files"]["/main.jsonnet"].as_str().unwrap();
    let expected = json!({"run": [{"id": "etcha push", "always": true, "change": "echo 'hi'"}]});
    assert_eq!(serde_json::from_str::<Value>(pattern).unwrap(), expected);
}

#[test]
fn a_file_is_sent_with_its_imports_and_the_answer_printed_as_json() {
    let operator = Operator::new();
    operator.write("lib.libsonnet", "{ id: 'x', always: true, change: 'true' }");
    let file = operator.write("web.jsonnet", "{ run: [import 'lib.libsonnet'] }");
    let (port, requests) = serve(None, http("200 OK", &etcha(|_| {})));
    let host = format!("http://127.0.0.1:{port}");
    let output = operator.push(&host, file.to_str().unwrap(), &["--json"]);
    let printed: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        printed,
        json!({
            "host": format!("127.0.0.1:{port}"), "source": "ops", "check": false, "error": "",
            "exit": false, "changed": [{"id": "etcha push", "output": "hi"}], "removed": [],
            "failed": [],
        })
    );
    let (line, token) = requests.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(line, "POST /etcha/v1/push/ops HTTP/1.1\r\n");
    let files = operator.claims(&token).etcha_pattern.unwrap();
    assert_eq!(files.entrypoint, "/web.jsonnet");
    assert_eq!(files.files.keys().collect::<Vec<_>>(), ["/lib.libsonnet", "/web.jsonnet"]);
}

/// A certificate, its fingerprint, and the configuration of a server that has it.
struct Certificate {
    pem: String,
    fingerprint: String,
    config: Arc<ServerConfig>,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
        Self::with_key(&made.cert.pem(), certificate, key)
    }

    /// A certificate with a private key that is not its own, as somebody has who copied it.
    fn copied(&self) -> Self {
        let der = rustls::pki_types::CertificateDer::from(pem_bytes(&self.pem));
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self::with_key(&self.pem, der, other.signing_key.serialize_der())
    }

    fn with_key(
        pem: &str,
        certificate: rustls::pki_types::CertificateDer<'static>,
        key: Vec<u8>,
    ) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let fingerprint = protocol::digest::of_bytes(&certificate);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let key = provider.key_provider.load_private_key(key).unwrap();
        let certified = CertifiedKey::new(vec![certificate], key);
        Self { pem: pem.to_owned(), fingerprint, config: Arc::new(server(provider, certified)) }
    }
}

fn pem_bytes(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn server(provider: Arc<CryptoProvider>, certified: CertifiedKey) -> ServerConfig {
    #[derive(Debug)]
    struct Fixed(Arc<CertifiedKey>);
    impl ResolvesServerCert for Fixed {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Fixed(Arc::new(certified))))
}

/// Pushes over TLS. Returns the output and whether the server received a request.
fn push_tls(certificate: &Certificate, more: &[&str]) -> (Output, bool) {
    let (port, requests) = serve(Some(certificate.config.clone()), http("200 OK", &etcha(|_| {})));
    let output = Operator::new().push(&format!("localhost:{port}"), "echo hi", more);
    (output, requests.recv_timeout(TIMEOUT).is_ok())
}

#[test]
fn only_the_certificate_that_was_named_is_trusted() {
    let (own, other) = (Certificate::new(), Certificate::new());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, certificate: &Certificate| {
        let path = directory.path().join(name);
        std::fs::write(&path, &certificate.pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (own_file, other_file) = (file("own.pem", &own), file("other.pem", &other));
    let colons: Vec<&str> =
        own.fingerprint.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap()).collect();
    let colons = colons.join(":").to_uppercase();
    for (more, expected) in [
        (&[][..], 3),
        (&["--fingerprint", &own.fingerprint], 0),
        (&["--fingerprint", &colons], 0),
        (&["--fingerprint", &other.fingerprint], 3),
        (&["--ca", &own_file], 0),
        (&["--ca", &other_file], 3),
        (&["--insecure"], 0),
    ] {
        let (output, received) = push_tls(&own, more);
        assert_eq!(code(&output), expected, "{more:?}: {}", stderr(&output));
        assert_eq!(received, expected == 0, "{more:?}");
        if expected != 0 {
            assert!(stderr(&output).contains(&own.fingerprint), "{}", stderr(&output));
        }
    }
    let (output, received) = push_tls(&own.copied(), &["--fingerprint", &own.fingerprint]);
    assert_eq!((code(&output), received), (3, false), "{}", stderr(&output));
}

#[test]
fn a_certificate_for_another_name_needs_its_fingerprint() {
    let own = Certificate::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("own.pem");
    std::fs::write(&path, &own.pem).unwrap();
    let push = |more: &[&str]| {
        let (port, _requests) = serve(Some(own.config.clone()), http("200 OK", &etcha(|_| {})));
        code(&Operator::new().push(&format!("127.0.0.1:{port}"), "echo hi", more))
    };
    assert_eq!(push(&["--ca", path.to_str().unwrap()]), 3);
    assert_eq!(push(&["--fingerprint", &own.fingerprint]), 0);
}

#[test]
fn says_which_side_has_no_tls() {
    let (port, _requests) =
        serve(None, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".into());
    // A server without TLS reads the first bytes as a request.
    let output = Operator::new().push(
        &format!("127.0.0.1:{port}"),
        "echo hi",
        &["--insecure", "--timeout", "20"],
    );
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let own = Certificate::new();
    let (port, _requests) = serve(Some(own.config), String::new());
    let output = Operator::new().push(&format!("http://127.0.0.1:{port}"), "echo hi", &[]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
}

#[test]
fn a_signal_ends_the_wait_for_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    let operator = Operator::new();
    let mut child = operator.command(&host, "echo hi", &[]).stderr(Stdio::piped()).spawn().unwrap();
    // The client has installed its handlers before it connects.
    let (stream, _) = listener.accept().unwrap();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let status = child.wait().unwrap();
    drop(stream);
    assert_eq!(status.code(), Some(130));
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("may still be running"), "{text}");
}

#[test]
fn a_missing_answer_ends_with_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    let output = Operator::new().push(&host, "echo hi", &["--timeout", "1"]);
    assert_eq!(code(&output), 4);
    assert!(stderr(&output).contains("timeout after 1 s"), "{}", stderr(&output));
}

#[test]
fn the_key_may_be_given_as_an_option() {
    let operator = Operator::new();
    let (port, requests) = serve(None, http("200 OK", &etcha(|_| {})));
    let key = operator.key.reveal();
    let output = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["push", &format!("http://127.0.0.1:{port}"), "ops", "echo hi", "--key", &key])
        .env_remove("ETCHAOS_PUSH_KEY")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    operator.claims(&requests.recv_timeout(TIMEOUT).unwrap().1);
}
