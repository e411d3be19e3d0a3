//! Certificate authorities, and requests through tinyproxy.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::Artifact;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use updater::cdn::{Cdn, FetchError, ManifestResponse, Retries, Timeouts};
use updater::config::Network;

use crate::network::{Memory, artifact, bytes, client, timeouts};
use crate::server::{End, Reply, Server};
use crate::world::World;

const SIZE: usize = 300_000;

/// A private certificate authority.
pub(crate) struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pem = format!("# Our own\n{}", certificate.pem());
        fs::write(directory.path().join("ca.pem"), pem).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    pub(crate) fn network(&self) -> Network {
        Network { authorities: vec![self.path()], ..Network::default() }
    }

    /// Starts a server with a certificate for this name.
    fn serve(&self, name: &str) -> Server {
        serving(Server::start_tls(self.config(name)))
    }

    pub(crate) fn config(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap()
    }
}

fn serving(server: Server) -> Server {
    server.answer("/x", |r| Reply::file(r, &bytes(SIZE), "\"1\""));
    server
}

fn file() -> Artifact {
    artifact(&bytes(SIZE))
}

fn get(cdn: &Cdn, url: &str) -> Result<(), FetchError> {
    let mut sink = Memory::default();
    cdn.download(&[format!("{url}/x")], &file(), &mut sink)?;
    assert!(sink.bytes == bytes(SIZE));
    Ok(())
}

/// Gets the file as a manifest, whose request has a deadline.
fn get_small(cdn: &Cdn, url: &str) {
    let response = cdn.manifest(&format!("{url}/x"), SIZE, None).unwrap();
    assert!(
        matches!(response, ManifestResponse::Modified { bytes: found, .. } if found == bytes(SIZE))
    );
}

#[track_caller]
fn assert_fails(cdn: &Cdn, url: &str, message_parts: &[&str]) {
    let error = get(cdn, url).unwrap_err().to_string();
    for text in message_parts {
        assert!(error.contains(text), "no {text:?} in: {error}");
    }
    assert!(!error.contains("SECRET"), "{error}");
}

#[test]
fn trusts_configured_authority() {
    // Both authorities have the same name, as after a new key was generated.
    let (ours, other) = (Authority::new(), Authority::new());
    let server = ours.serve("127.0.0.1");
    get(&client(&ours.network()), &server.url).unwrap();
    let both = Network { authorities: vec![other.path(), ours.path()], ..Network::default() };
    get(&client(&both), &server.url).unwrap();
    get_small(&client(&both), &server.url);
    let before = server.received().len();
    for network in [Network::default(), other.network()] {
        assert_fails(
            &client(&network),
            &server.url,
            &["not trusted here", "\"ca\"", "intercepted"],
        );
    }
    let misnamed = ours.serve("other.example");
    assert_fails(&client(&ours.network()), &misnamed.url, &["cannot get", "not valid for name"]);
    assert_eq!(server.received().len() + misnamed.received().len(), before);
    // A server without TLS.
    let plain = serving(Server::start()).url.replace("http:", "https:");
    assert_fails(&client(&ours.network()), &plain, &["cannot get"]);
    let gone = Network { authorities: vec!["/no/such/ca.pem".into()], ..Network::default() };
    let error = Cdn::new(&gone, &[], timeouts()).err().unwrap().to_string();
    assert!(error.contains("\"ca\" in /no/such/ca.pem: No such file"), "{error}");
}

#[test]
fn rejects_redirect_from_https_to_http() {
    let ours = Authority::new();
    let (server, plain) = (ours.serve("127.0.0.1"), serving(Server::start()));
    server.put("/x", Reply::status(302).header(format!("Location: {}/x", plain.url)));
    let allowed = [plain.url.clone()];
    let cdn = Cdn::with_environment(&ours.network(), &allowed, timeouts(), &|_| None).unwrap();
    assert_fails(&cdn, &server.url, &["302", &plain.url, "not followed"]);
    assert!(plain.received().is_empty());
}

#[test]
fn resumes_after_interruption_of_tls() {
    let ours = Authority::new();
    let server = ours.serve("127.0.0.1");
    for end in [End::Close, End::Reset] {
        server.answer("/x", move |r| Reply::file(r, &bytes(SIZE), "\"1\"").cut(SIZE / 3, end));
        get(&client(&ours.network()), &server.url).unwrap();
    }
    assert_eq!(server.received().len(), 6);
}

/// A running tinyproxy.
struct Tinyproxy {
    directory: TempDir,
    child: Child,
    port: u16,
}

impl Tinyproxy {
    /// Starts tinyproxy with additional lines of configuration. If it is not installed, returns `None` with a
    /// message, or panics in CI.
    fn start(additional: &str) -> Option<Self> {
        let is_installed =
            Command::new("tinyproxy").arg("-v").stdout(Stdio::null()).status().is_ok();
        if !is_installed {
            assert!(std::env::var("CI").is_err(), "this test needs tinyproxy");
            eprintln!("SKIPPED: tinyproxy is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let at = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "Listen 127.0.0.1\nPort {port}\nTimeout 60\nLogLevel Connect\nLogFile \"{}\"\nPidFile \"{}\"\n{additional}\n",
            at("log"),
            at("pid")
        );
        fs::write(directory.path().join("conf"), config).unwrap();
        let mut command = Command::new("tinyproxy");
        command.args(["-d", "-c", &at("conf")]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut proxy = Self { child: command.spawn().unwrap(), directory, port };
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(proxy.child.try_wait().unwrap().is_none(), "tinyproxy has ended");
            assert!(since.elapsed() < Duration::from_secs(60), "tinyproxy does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(proxy)
    }

    fn network(&self, credentials: &str) -> Network {
        let proxy = Some(format!("http://{credentials}127.0.0.1:{}", self.port));
        Network { proxy, ..Network::default() }
    }

    /// Returns the request lines in its log.
    fn request_lines(&self) -> Vec<String> {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap();
        let line = |line: &str| Some(line.split_once("Request (file descriptor")?.1.to_owned());
        let lines = log.lines().filter_map(line);
        lines.filter_map(|line| Some(line.split_once("): ")?.1.to_owned())).collect()
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        // Fails if it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn proxy_forwards_http_and_tunnels_https() {
    // Like most proxies, it allows tunnels to one port only.
    let ours = Authority::new();
    let (plain, tls) = (serving(Server::start()), ours.serve("127.0.0.1"));
    let port = tls.url.rsplit(':').next().unwrap();
    let Some(proxy) = Tinyproxy::start(&format!("ConnectPort {port}")) else { return };
    let network = Network { authorities: vec![ours.path()], ..proxy.network("") };
    let cdn = client(&network);
    for end in [End::Close, End::Reset] {
        for server in [&plain, &tls] {
            server.answer("/x", move |r| Reply::file(r, &bytes(SIZE), "\"1\"").cut(SIZE / 3, end));
            get(&cdn, &server.url).unwrap();
        }
    }
    assert_eq!(cdn.probe(&format!("{}/x", plain.url)).unwrap(), Some(SIZE as u64));
    for server in [&plain, &tls] {
        server.put("/x", Reply::ok(bytes(SIZE)));
        get_small(&cdn, &server.url);
    }
    let lines = proxy.request_lines();
    let count = |request: String| lines.iter().filter(|line| **line == request).count();
    assert_eq!(count(format!("GET {}/x HTTP/1.1", plain.url)), 7, "{lines:?}");
    assert_eq!(count(format!("HEAD {}/x HTTP/1.1", plain.url)), 1, "{lines:?}");
    assert_eq!(count(format!("CONNECT 127.0.0.1:{port} HTTP/1.1")), 7, "{lines:?}");
    assert_eq!(lines.len(), 15);

    // A host in no_proxy is reached directly.
    let direct = Network { no_proxy: vec!["127.0.0.0/8".into()], ..network };
    get(&client(&direct), &plain.url).unwrap();
    get(&client(&direct), &tls.url).unwrap();
    assert_eq!(proxy.request_lines().len(), 15);
}

#[test]
fn authenticates_to_proxy() {
    let ours = Authority::new();
    let (plain, tls) = (serving(Server::start()), ours.serve("127.0.0.1"));
    let Some(proxy) = Tinyproxy::start("BasicAuth etcha SECRET1") else { return };
    let with = |credentials| {
        let authorities = vec![ours.path()];
        client(&Network { authorities, ..proxy.network(credentials) })
    };
    let address = format!("through the proxy http://127.0.0.1:{}", proxy.port);
    for (credentials, is_good) in
        [("etcha:%53ECRET1@", true), ("etcha:SECRET@", false), ("", false), ("SECRET@", false)]
    {
        for server in [&plain, &tls] {
            match is_good {
                true => get(&with(credentials), &server.url).unwrap(),
                false => assert_fails(&with(credentials), &server.url, &[&address]),
            }
        }
    }
    assert_fails(&with(""), &plain.url, &["407", &address, "user:password@host:port"]);
    assert_fails(&with(""), &tls.url, &["407", &address, "proxy"]);
    // Tinyproxy responds with 401 to a wrong password.
    assert_fails(&with("etcha:SECRET@"), &plain.url, &["401", &address, "or a proxy"]);
    assert!(plain.received().iter().all(|r| r.header("proxy-authorization").is_none()));
}

/// A password that is sent again and again may lock an account.
#[test]
fn asks_a_proxy_again_only_if_that_may_help() {
    let proxy = Server::start();
    let network = Network { proxy: Some(proxy.url.clone()), ..Network::default() };
    let cdn = client(&network);
    let url = "https://cdn.example";
    for (status, requests, advice) in [
        (407, 1, "user and a password"),
        (403, 1, "reject this host"),
        (404, 1, "does not allow"),
        (511, 1, "captive portal"),
        (502, 5, "overloaded or broken"),
        (503, 5, "overloaded or broken"),
    ] {
        proxy.put("cdn.example:443", Reply::status(status));
        let before = proxy.received().len();
        let through = format!("through the proxy {}", proxy.url);
        assert_fails(&cdn, url, &[&status.to_string(), &through, advice]);
        assert_eq!(proxy.received().len() - before, requests, "{status}");
    }
}

#[test]
fn a_proxy_that_accepts_and_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Some(format!("http://{}", silent.local_addr().unwrap()));
    let network = Network { proxy, ..Network::default() };
    let second = Duration::from_secs(1);
    let retries = Retries { attempts: 2, ..timeouts().download_retries };
    let timeouts = Timeouts {
        connect: second,
        stall: second,
        manifest_retries: retries,
        download_retries: retries,
        ..timeouts()
    };
    let cdn = Cdn::with_environment(&network, &[], timeouts, &|_| None).unwrap();
    for url in ["http://cdn.example", "https://cdn.example"] {
        let since = Instant::now();
        assert_fails(&cdn, url, &["timeout", "through the proxy"]);
        cdn.manifest(&format!("{url}/x"), 1000, None).unwrap_err();
        assert!(since.elapsed() < Duration::from_secs(12), "{:?}", since.elapsed());
    }
}

#[test]
fn names_a_network_that_answers_for_an_https_server() {
    let ours = Authority::new();
    let portal = ours.serve("portal.example");
    assert_fails(
        &client(&ours.network()),
        &portal.url,
        &["not valid for name", "captive portal", "name resolution"],
    );
    assert_fails(&client(&Network::default()), &portal.url, &["not trusted", "captive portal"]);
    assert!(portal.received().is_empty());
}

#[test]
fn error_names_unreachable_proxy() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = serving(Server::start());
    let proxy = Some(format!("http://user:SECRET@{free}"));
    let cdn = client(&Network { proxy, ..Network::default() });
    let message_part = format!("through the proxy http://{free}");
    assert_fails(&cdn, &server.url, &[&message_part, "refused"]);
    assert_fails(&cdn, &server.url.replace("http:", "https:"), &[&message_part, "refused"]);
    assert!(server.received().is_empty());
}

#[test]
fn updater_uses_proxy_of_environment() {
    let Some(proxy) = Tinyproxy::start("") else { return };
    let world = World::new();
    let run = |proxy: &str, no_proxy: &str| {
        let mut command = world.command(&["check"]);
        command.env("http_proxy", proxy).env("no_proxy", no_proxy);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let address = format!("http://127.0.0.1:{}", proxy.port);
    assert_eq!(run(&address, "").0, Some(0));
    assert_eq!(proxy.request_lines().len(), 1);
    assert_eq!(run(&address, "other, 127.0.0.1").0, Some(0));
    assert_eq!(proxy.request_lines().len(), 1);
    let (code, stderr) = run("socks5://SECRET@x", "");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("http_proxy") && !stderr.contains("SECRET"), "{stderr}");
}

/// A general URL parser takes "user" for the host of these, and the beginning of the password for the port.
#[test]
fn shows_nothing_of_a_password_with_special_characters() {
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for password in
        ["1234#s3cret", "1234/s3cret", "1234?s3cret", "1@s3cret", "s3cret:1234", "/s3cret"]
    {
        let proxy = format!("http://zeduser:{password}@{free}");
        let run = |arguments: &[&str]| {
            let mut command = world.command(arguments);
            let output = command.env("http_proxy", &proxy).output().unwrap();
            let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            for secret in ["zeduser", ":1234", "s3cret"] {
                assert!(!text.contains(secret), "{password}: {text}");
            }
            (output.status.code(), text)
        };
        let (code, text) = run(&["check"]);
        assert_eq!(code, Some(1));
        assert!(text.contains(&format!("through the proxy http://{free}")), "{text}");
        assert_eq!(run(&["status"]).0, Some(0));
        for arguments in [&["status", "--json"][..], &["config"], &["config", "--json"]] {
            let (code, text) = run(arguments);
            assert_eq!(code, Some(0), "{text}");
            assert!(text.contains(&format!("http://{free} (with credentials)")), "{text}");
        }
        // Without the host, the password's beginning looks like a port.
        if password.contains('@') {
            continue;
        }
        let mut command = world.command(&["check"]);
        let proxy = format!("http://zeduser:{password}");
        let output = command.env("http_proxy", proxy).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
    }
    assert!(world.cdn.received().is_empty());
}

#[test]
fn sends_special_characters_of_a_password_to_the_proxy() {
    let world = World::new();
    let proxy = Server::start();
    proxy.put("/", Reply::status(404));
    let address = proxy.url.strip_prefix("http://").unwrap();
    for (written, meant) in [("1234#s3/?", "1234#s3/?"), ("%31%23", "1#"), ("a@b:c", "a@b:c")] {
        let mut command = world.command(&["check"]);
        command.env("http_proxy", format!("http://me:{written}@{address}")).output().unwrap();
        let received = proxy.received().pop().unwrap();
        let expected = STANDARD.encode(format!("me:{meant}"));
        let found = received.header("proxy-authorization");
        assert_eq!(found, Some(format!("Basic {expected}").as_str()), "{written}");
    }
}
