//! The Command that prepares the sandbox, with apt against a mirror on loopback: the security archive is
//! never lost silently, and proxies are used.
//!
//! The tests need the toolbox that a build has cached; see `sandbox.rs`.

mod base;
mod judge;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::CommandCargoExt;
use base::{Cached, base};
use builder::log_file::LogFile;
use builder::progress::Bar;
use builder::sandbox::docker::Connection;
use builder::sandbox::namespace::NamespaceSandbox;
use builder::sandbox::{Base, Sandbox, Script};
use judge::skip;
use protocol::pattern::Exec;

/// The SHA-256 of an empty list of packages.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Returns the file of a mirror that has these archives, each of them empty and not signed.
fn answer(path: &str, archives: &[&str]) -> Option<String> {
    let archive = archives.iter().find(|archive| path.starts_with(**archive))?;
    let release = archive.rsplit('/').next()?;
    match path.strip_prefix(archive)? {
        "/Release" => Some(format!(
            "Suite: {release}\nCodename: {release}\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n\
             Architectures: amd64\nComponents: main\n\
             SHA256:\n {EMPTY} 0 main/binary-amd64/Packages\n"
        )),
        "/main/binary-amd64/Packages" => Some(String::new()),
        _ => None,
    }
}

/// Answers one request and closes the connection.
fn serve_connection(mut stream: TcpStream, archives: &[&str]) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut header = String::new();
    while header != "\r\n" {
        header.clear();
        reader.read_line(&mut header).ok().filter(|count| *count > 0)?;
    }
    let (status, body) = match answer(request.split(' ').nth(1)?, archives) {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", String::new()),
    };
    let length = body.len();
    let header = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close");
    write!(stream, "{header}\r\n\r\n{body}").ok()
}

/// Starts a mirror on loopback and returns its URL.
fn mirror(archives: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve_connection(stream, archives));
        }
    });
    format!("http://{address}/debian")
}

const COMPLETE: &[&str] = &[
    "/debian/dists/trixie-updates",
    "/debian/dists/trixie",
    "/debian-security/dists/trixie-security",
];
const WITHOUT_SECURITY: &[&str] = &["/debian/dists/trixie-updates", "/debian/dists/trixie"];

/// Starts a sandbox in this directory.
type Start = fn(&Cached, &Path, &mut LogFile) -> Option<Box<dyn Sandbox>>;

fn namespace(base: &Cached, work: &Path, log: &mut LogFile) -> Option<Box<dyn Sandbox>> {
    let sandbox = NamespaceSandbox::create(base, work, log).unwrap();
    Some(Box::new(sandbox.with_builder(Path::new(env!("CARGO_BIN_EXE_builder")))))
}

fn docker(base: &Cached, work: &Path, log: &mut LogFile) -> Option<Box<dyn Sandbox>> {
    match Connection::open() {
        Ok(connection) => {
            let base = Base { image: "localhost/no-such-image", tree: base };
            Some(Box::new(connection.start(&base, work, log).unwrap()))
        }
        Err(error) => {
            skip(&format!("no container engine: {error:#}"));
            None
        }
    }
}

/// Runs the Command in a sandbox and returns its log, with a last line that is [`ACCEPTED`] if it
/// succeeded. The mirrors here have no packages, but the toolbox has all tools.
fn prepare(start: Start, base: &Cached, env: &[(&str, &str)]) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let log_path = directory.path().join("log");
    let mut log = LogFile::create(&log_path, Bar::start("test")).unwrap();
    let work = directory.path().join("work");
    fs::create_dir(&work).unwrap();
    let sandbox = start(base, &work, &mut log)?;

    let output = Command::cargo_bin("builder").unwrap().args(["render", "deb"]).output().unwrap();
    let pattern: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = pattern["build"][0]["commands"][0]["change"].as_str().unwrap();
    let insecure =
        "echo 'Acquire::AllowInsecureRepositories \"true\";' >/etc/apt/apt.conf.d/99test\n";
    let text = &format!("{insecure}{text}");
    let arch = protocol::Arch::native().unwrap().to_string();
    let defaults =
        [("ARCH", &*arch), ("LC_ALL", "C.UTF-8"), ("MIRROR", ""), ("WITHOUT_SECURITY", "")];
    let env: BTreeMap<String, String> = defaults
        .iter()
        .chain(env)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let exec = Exec::new("/bin/bash", "-euo pipefail -c");
    let finished = sandbox.run(&Script { exec: &exec, text, env: &env }, &mut log).unwrap();
    let verdict = if finished.code == 0 { ACCEPTED } else { "" };
    Some(fs::read_to_string(log_path).unwrap() + verdict)
}

/// The last line of the log if apt has accepted the sources.
const ACCEPTED: &str = "the Command succeeded";

#[test]
fn missing_security_archive_is_an_error() {
    let Some(base) = base() else { return };
    let log = prepare(namespace, &base, &[("MIRROR", &mirror(COMPLETE))]).unwrap();
    assert!(log.contains(ACCEPTED) && log.contains("trixie-security"), "{log}");

    let log = prepare(namespace, &base, &[("MIRROR", &mirror(WITHOUT_SECURITY))]).unwrap();
    assert!(!log.contains(ACCEPTED) && log.contains("with --without-security"), "{log}");
}

#[test]
fn builds_without_security_archive_only_on_request() {
    let Some(base) = base() else { return };
    let env = [("MIRROR", &*mirror(WITHOUT_SECURITY)), ("WITHOUT_SECURITY", "1")];
    let log = prepare(namespace, &base, &env).unwrap();
    assert!(
        log.contains(ACCEPTED) && log.contains("WARNING: building without the security"),
        "{log}"
    );
    assert!(!log.contains("trixie-security"), "{log}");
}

/// tinyproxy on loopback; it ends when this value is dropped.
struct Proxy {
    process: Child,
    url: String,
    directory: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Proxy {
    /// Starts a proxy that requires a password.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = directory.path().join("config");
        let log = directory.path().join("log");
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nLogFile \"{}\"\nLogLevel Info\nBasicAuth user sesame\n",
            log.display()
        );
        fs::write(&config, text).unwrap();
        let mut tinyproxy = Command::new("tinyproxy");
        tinyproxy.args(["-d", "-c"]).arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let process = match tinyproxy.spawn() {
            Ok(process) => process,
            Err(error) => {
                skip(&format!("cannot run tinyproxy: {error}"));
                return None;
            }
        };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "tinyproxy did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { process, url: format!("http://user:sesame@127.0.0.1:{port}"), directory })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

/// Checks that the mirror is reached through the proxy, or directly where `no_proxy` says so.
fn check_proxy(start: Start) {
    let Some(base) = base() else { return };
    let Some(proxy) = Proxy::start() else { return };
    let mirror = mirror(COMPLETE);
    let env = [("MIRROR", &*mirror), ("http_proxy", &proxy.url)];
    let Some(log) = prepare(start, &base, &env) else { return };
    assert!(log.contains(ACCEPTED) && !log.contains("sesame"), "{log}");
    let count = || proxy.log().matches("/debian-security/dists/trixie-security/").count();
    let requests = count();
    assert!(requests > 0, "{}", proxy.log());

    let direct = [env[0], env[1], ("no_proxy", "127.0.0.1")];
    assert!(prepare(start, &base, &direct).unwrap().contains(ACCEPTED));
    assert_eq!(count(), requests);
}

#[test]
fn apt_in_namespaces_uses_loopback_proxy() {
    check_proxy(namespace);
}

#[test]
fn apt_in_docker_uses_loopback_proxy() {
    check_proxy(docker);
}
