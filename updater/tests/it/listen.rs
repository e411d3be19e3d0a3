//! The command `listen`.

mod etcha;
mod shell;
mod tls;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use protocol::pattern::{Mode, Outcome, PatternFiles, Report};
use protocol::token::sign;
use protocol::{Claims, PrivateKey};
use serde_json::json;

use crate::docs::{documented, keys};
use crate::tls_client::connect;
use crate::world::{World, now};

struct Listener {
    child: Running,
    address: String,
    /// The SHA-256 of the certificate, or `None` without TLS.
    fingerprint: Option<String>,
    // Keeps the temporary directory of the host.
    world: World,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listen(key: &PrivateKey) -> Listener {
    listen_with(key, json!(true))
}

/// Starts a server with this value of `listen.tls`.
fn listen_with(key: &PrivateKey, tls: serde_json::Value) -> Listener {
    let world = World::new();
    world.write("host/proc/uptime", "86400.00 1.00\n");
    std::fs::create_dir_all(world.path("host/run")).unwrap();
    configure(&world, key, tls);
    start(world)
}

fn configure(world: &World, key: &PrivateKey, tls: serde_json::Value) {
    let sources = json!({"ci": {"keys": [key.public().to_string()]}});
    let config = json!({"listen": {"address": "127.0.0.1:0", "tls": tls, "sources": sources}});
    world.write("esp/etchaos/config.json", config.to_string());
}

fn start(world: World) -> Listener {
    let (child, line) = started(world.command(&["listen"]));
    // The operating system chooses the port, and the log has it.
    let address = line.split_whitespace().find(|word| word.starts_with("127.")).unwrap().to_owned();
    Listener { child, address, fingerprint: fingerprint(&line), world }
}

/// Starts a server and returns the line of its log that has the address.
fn started(mut command: Command) -> (Running, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.find_map(|line| line.ok().filter(|line| line.contains("listening on")));
    std::thread::spawn(move || lines.for_each(drop));
    (Running(child), line.expect("the log has no address"))
}

fn fingerprint(line: &str) -> Option<String> {
    line.split_once("SHA-256 ").map(|(_, sha256)| sha256.trim().to_owned())
}

impl Listener {
    fn restarted(self) -> Self {
        drop(self.child);
        start(self.world)
    }

    fn request(&self, head: &str, body: &[u8]) -> (u16, String) {
        match &self.fingerprint {
            Some(fingerprint) => {
                request(connect(&self.address, fingerprint, rustls::DEFAULT_VERSIONS), head, body)
            }
            None => request(TcpStream::connect(&self.address).unwrap(), head, body),
        }
    }

    fn push(&self, query: &str, token: &str) -> (u16, String) {
        self.request(&format!("POST /etcha/v1/push/ci{query}"), token.as_bytes())
    }

    /// Returns the member `listen` of the status.
    fn status(&self) -> serde_json::Value {
        self.world.run(&["status", "--json"]).ended(0).json()["listen"].clone()
    }
}

fn request(mut stream: impl Read + Write, head: &str, body: &[u8]) -> (u16, String) {
    let head = format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    // The server may respond and close the connection before it has read everything.
    let _ = stream.write_all(body);
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    let response = String::from_utf8(response).unwrap();
    let status = response.split_whitespace().nth(1).unwrap_or("0").parse().unwrap();
    (status, response.split_once("\r\n\r\n").unwrap_or_default().1.to_owned())
}

fn pattern(run: serde_json::Value) -> Claims {
    let exec = json!({"command": "/bin/sh", "flags": "-e -c"});
    let text = json!({"exec": exec, "run": run}).to_string();
    let files = BTreeMap::from([("main.jsonnet".to_owned(), text)]);
    let files = PatternFiles { entrypoint: "main.jsonnet".into(), files };
    Claims {
        iat: Some(now()),
        exp: Some(now() + 60),
        jti: Some(PrivateKey::generate().id().to_owned()),
        aud: vec!["etchaos".into()],
        etcha_pattern: Some(files),
        ..Claims::default()
    }
}

fn example() -> Claims {
    pattern(json!([
        {"id": "fine", "check": "true", "change": "exit 1"},
        {"id": "made", "check": "echo not yet; false", "change": "echo made"},
        {"id": "bad", "check": "false", "change": "echo why; false"},
    ]))
}

/// A Pattern with this text, which may be invalid.
fn with_text(text: &str) -> Claims {
    let entrypoint = "main.jsonnet".to_owned();
    let files = [(entrypoint.clone(), text.to_owned())].into();
    Claims { etcha_pattern: Some(PatternFiles { entrypoint, files }), ..fine() }
}

/// A Pattern that succeeds.
fn fine() -> Claims {
    pattern(json!([{"id": "made", "always": true, "change": "echo made"}]))
}

#[test]
fn is_off_by_default() {
    let world = World::new();
    let ran = world.run(&["listen"]).ended(3);
    assert!(ran.stdout.contains("listening is off"), "{}", ran.stdout);
}

#[test]
fn runs_a_pattern_and_returns_its_report() {
    let key = PrivateKey::generate();
    let listener = listen(&key);
    let (status, body) = listener.push("", &sign(&key, &example()).unwrap());
    assert_eq!(status, 500, "{body}");
    let report: Report = serde_json::from_str(&body).unwrap();
    let outcomes: Vec<_> = report.results.iter().map(|r| (r.outcome, r.output.as_str())).collect();
    let expected = [(Outcome::Ok, ""), (Outcome::Changed, "made"), (Outcome::Failed, "why")];
    assert_eq!(outcomes, expected);
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["err"], json!("the Command \"bad\" failed: why"));
    assert_eq!(answer["changedIDs"], json!(["made"]));
    assert_eq!(keys(&answer), keys(&documented("push")));

    let check = || Claims { etchaos_mode: Some(Mode::Check), ..example() };
    for (query, claims) in [("", check()), ("?check", check()), ("?check=true", example())] {
        let (status, body) = listener.push(query, &sign(&key, &claims).unwrap());
        assert_eq!(status, 200, "{body}");
        let report: Report = serde_json::from_str(&body).unwrap();
        assert_eq!(report.results[1].outcome, Outcome::Needed);
        assert_eq!(report.results[1].output, "not yet");
    }
}

/// Jsonnet as the client of Etcha sends it, with a library, variables of the token, and a removal of nothing.
#[test]
fn renders_the_jsonnet_of_a_token() {
    let key = PrivateKey::generate();
    let listener = listen(&key);
    let push = |files: serde_json::Value| {
        let files = serde_json::from_value(json!({"entrypoint": "/main.jsonnet", "files": files}));
        let vars = json!({"name": "variable"}).as_object().unwrap().clone();
        let claims =
            Claims { etcha_pattern: Some(files.unwrap()), etcha_run_vars: vars, ..example() };
        listener.push("", &sign(&key, &claims).unwrap())
    };
    let main = "local run = import 'lib/run.libsonnet';
        { run: [run('echo ' + std.native('getConfig')().vars.name), run('false | true')] }";
    let library = "function(change) { id: 'etcha push', always: true, change: change }";
    let (_, body) = push(json!({"/main.jsonnet": main, "/lib/run.libsonnet": library}));
    let report: Report =
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let outcomes: Vec<_> = report.results.iter().map(|r| (r.outcome, r.output.as_str())).collect();
    assert_eq!(outcomes, [(Outcome::Changed, "variable"), (Outcome::Failed, "")]);

    for (text, expected) in [
        ("{ run: x }", "/main.jsonnet:1:8: unknown variable"),
        ("{ run: [{ id: 'x', locks: ['y'] }] }", "run[0].locks of the Pattern is not supported"),
        ("local f(x) = f(x + 1) tailstrict; f(0)", "was stopped: it"),
        ("local d(t, n) = if n == 0 then t else d(t + t, n - 1); d('x', 60)", "MiB of memory"),
    ] {
        let (status, body) = push(json!({ "/main.jsonnet": text }));
        assert!((400..600).contains(&status) && body.contains(expected), "{text}: {status} {body}");
    }
}

/// A query excludes Commands, so one that is not understood must not run any.
#[test]
fn runs_nothing_for_a_query_that_is_not_understood() {
    let key = PrivateKey::generate();
    let listener = listen(&key);
    let mark = listener.world.path("changed");
    let change = format!("touch {}", mark.display());
    let changing = || {
        pattern(json!([{"id": "web", "commands": [{"id": "x", "always": true, "change": change}]}]))
    };
    let check = || Claims { etchaos_mode: Some(Mode::Check), ..changing() };
    for query in ["?check", "?check=", "?check=true", "?check=1", "?&check&", "?check&check"] {
        for claims in [changing(), check()] {
            let (status, body) = listener.push(query, &sign(&key, &claims).unwrap());
            assert_eq!(status, 200, "{query}: {body}");
        }
    }
    for query in ["?filter=x", "?filter=%5Eci$", "?filter=ci+%3E+web&check"] {
        let (status, body) = listener.push(query, &sign(&key, &changing()).unwrap());
        assert_eq!(status, 200, "{query}: {body}");
    }
    for query in [
        "?check=false",
        "?check=0",
        "?check=yes",
        "?Check",
        "?CHECK",
        "??check",
        "?check+",
        "?check==",
        "?filter=web&filter=x",
        "?filter=(",
        "?filter=%",
        "?filter=%ff",
        "?Filter=x",
        "?%63heck",
        "?check;filter=x",
        "?x",
        "?=",
    ] {
        for claims in [changing(), check()] {
            let token = sign(&key, &claims).unwrap();
            let (status, body) = listener.push(query, &token);
            assert!(status == 400 && body.contains("nothing was run"), "{query}: {status} {body}");
        }
    }
    // The HTTP library would remove these.
    for fragment in ["#", "#check", "#?check", "?#check", "?check#x"] {
        let (status, body) = listener.push(fragment, &sign(&key, &changing()).unwrap());
        assert!(status == 400 && body.contains("nothing was run"), "{fragment}: {status} {body}");
    }
    assert!(!mark.exists());
    // The refused token was not used up, and an empty query is none.
    let token = sign(&key, &changing()).unwrap();
    assert_eq!(listener.push("?x", &token).0, 400);
    assert_eq!(listener.push("?", &token).0, 200);
    assert!(mark.exists());
    std::fs::remove_file(&mark).unwrap();
    assert_eq!(listener.push("?filter=%5Eci+%3E+web$", &sign(&key, &changing()).unwrap()).0, 200);
    assert!(mark.exists());
}

/// The script of docs/operators.md.
#[test]
fn accepts_pushes_of_the_documented_script() {
    let programs = ["curl", "jq", "openssl"];
    let is_installed = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    if !programs.iter().all(is_installed) {
        assert!(std::env::var("CI").is_err(), "{programs:?} are needed for this test");
        eprintln!("SKIPPED: {programs:?} are not all installed");
        return;
    }
    let key = PrivateKey::generate();
    let listener = listen(&key);
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operators.md");
    let page = std::fs::read_to_string(page).unwrap();
    let script = page.split("```sh push\n").nth(1).unwrap().split("```").next().unwrap();
    listener.world.write("push", script);
    listener.world.write("ops.key", format!("{}\n", key.reveal()));
    let pin = listener.status()["publicKey"].as_str().unwrap().to_owned();
    let push = |source: &str, command: &str| {
        let mut sh = Command::new("sh");
        sh.arg(listener.world.path("push")).args([&listener.address, source]);
        sh.arg(listener.world.path("ops.key")).args([command, &pin]).env_remove("https_proxy");
        let output = sh.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(push("ci", "echo \"it's\" \\$HOME; echo two"), "changed: it's $HOME\ntwo\n");
    assert_eq!(push("ci", "exit 3"), "failed: \n");
    assert!(push("other", "true").contains("no source \"other\""));
}

#[test]
fn refuses_invalid_pushes() {
    let key = PrivateKey::generate();
    let listener = listen(&key);
    let refused = |claims: &Claims, key: &PrivateKey, status: u16, said: &str| {
        let (found, body) = listener.push("", &sign(key, claims).unwrap());
        assert_eq!(found, status, "{body}");
        let answer = serde_json::from_str::<serde_json::Value>(&body).unwrap();
        assert_eq!(answer["error"], answer["err"]);
        let error = answer["err"].to_string();
        assert!(error.contains(said), "{error}");
    };
    refused(&fine(), &PrivateKey::generate(), 404, "not trusted here");
    let expired = Claims { iat: Some(now() - 900), exp: Some(now() - 600), ..fine() };
    refused(&expired, &key, 401, "expired");
    refused(&Claims { iat: None, ..fine() }, &key, 401, "a push needs iat");
    let old = Claims { iat: Some(now() - 900), exp: None, ..fine() };
    refused(&old, &key, 401, "expired");
    let long = Claims { iat: Some(now() - 4000), exp: Some(now() + 7200), ..fine() };
    refused(&long, &key, 401, "expired");
    refused(&Claims { aud: vec!["other".into()], ..fine() }, &key, 401, "audience");
    refused(&Claims { etcha_pattern: None, ..fine() }, &key, 400, "etchaPattern");
    let group = r#"{"run": [{"id": "g", "always": true, "commands": [{"id": "x"}]}]}"#;
    refused(&with_text(group), &key, 400, "commands");
    let replayed = fine();
    assert_eq!(listener.push("", &sign(&key, &replayed).unwrap()).0, 200);
    refused(&replayed, &key, 401, "it was pushed before");

    let token = sign(&key, &fine()).unwrap();
    let post = |path: &str| listener.request(path, token.as_bytes()).0;
    assert_eq!(post("POST /etcha/v1/push/other"), 404);
    assert_eq!(post("POST /"), 404);
    assert_eq!(post("PUT /etcha/v1/push/ci"), 405);
    assert_eq!(listener.push("", "not a token").0, 404);
    assert_eq!(listener.push("", &"x".repeat(protocol::token::TOKEN_MAX + 2)).0, 413);
    // The server still accepts a valid push.
    assert_eq!(post("POST /etcha/v1/push/ci"), 200);
}

#[test]
fn refuses_a_repeated_push_after_a_restart_or_reboot() {
    let key = PrivateKey::generate();
    let listener = listen(&key);
    let token = sign(&key, &fine()).unwrap();
    assert_eq!(listener.push("", &token).0, 200);
    let (status, body) = listener.push("", &token);
    assert!(status == 401 && body.contains("it was pushed before"), "{status} {body}");

    let listener = listener.restarted();
    let (status, body) = listener.push("", &token);
    assert!(status == 401 && body.contains("it was pushed before"), "{status} {body}");
    assert_eq!(listener.push("", &sign(&key, &fine()).unwrap()).0, 200);

    // A reboot clears /run.
    std::fs::remove_dir_all(listener.world.path("host/run")).unwrap();
    listener.world.write("host/proc/uptime", "1.50 0.10\n");
    let listener = listener.restarted();
    let (status, body) = listener.push("", &token);
    assert!(status == 425 && body.contains("sign a new one"), "{status} {body}");
}

#[test]
fn a_push_waits_while_another_runs() {
    let key = PrivateKey::generate();
    let listener = listen(&key);
    let slow =
        sign(&key, &pattern(json!([{"id": "slow", "always": true, "change": "sleep 2"}]))).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| listener.push("", &slow).0);
        std::thread::sleep(std::time::Duration::from_millis(700));
        let (status, body) = listener.push("", &sign(&key, &fine()).unwrap());
        assert_eq!(status, 200, "{body}");
        assert_eq!(first.join().unwrap(), 200);
    });
}
