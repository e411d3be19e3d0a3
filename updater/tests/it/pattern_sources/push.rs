//! What is pushed is kept like what is pulled.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use protocol::pattern::Report;
use protocol::{Claims, PrivateKey};
use serde_json::{Value, json};

use super::host::Host;
use crate::world::now;

struct Listener<'a> {
    host: &'a Host,
    child: Child,
    address: String,
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(host: &Host) -> Listener<'_> {
    let keys = json!([host.key.public().to_string()]);
    let config = json!({"listen": {"address": "127.0.0.1:0", "tls": false, "sources": {"web": {"keys": keys}}}});
    host.world.write("esp/etchaos/config.json", config.to_string());
    let mut child = host.world.command(&["listen"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.find_map(|line| line.ok().filter(|line| line.contains("listening on")));
    let line = line.expect("the log has no address");
    let address = line.split_whitespace().find(|word| word.starts_with("127.")).unwrap().to_owned();
    std::thread::spawn(move || lines.for_each(drop));
    Listener { host, child, address }
}

impl Listener<'_> {
    fn post(&self, commands: Value) -> (u16, String) {
        let claims = Claims {
            iat: Some(now()),
            exp: Some(now() + 60),
            jti: Some(PrivateKey::generate().id().to_owned()),
            ..self.host.claims(0, commands)
        };
        let token = self.host.sign(&claims);
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST /etcha/v1/push/web HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            token.len()
        );
        stream.write_all(&[head.as_bytes(), token.as_bytes()].concat()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let status = response.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, response.split_once("\r\n\r\n").unwrap_or_default().1.to_owned())
    }

    fn push(&self, commands: Value) -> Report {
        let (status, body) = self.post(commands);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[test]
fn a_pushed_pattern_is_kept_compared_and_run_again() {
    let host = Host::new();
    let listener = listen(&host);
    listener.push(json!([host.command("a"), host.command("b")]));
    assert_eq!(host.state(), ["a", "b"]);
    assert_eq!(host.status()["pattern"]["from"], "push");
    let report = listener.push(json!([host.command("b")]));
    assert_eq!(report.removed.len(), 1);
    assert_eq!(host.state(), ["b"]);
    // A command that runs once neither removes anything, nor is it kept.
    let path = host.world.path("state/once");
    let once = json!([{"id": "etcha push", "always": true, "change": format!("touch {}", path.display())}]);
    listener.push(once);
    assert_eq!(host.state(), ["b", "once"]);
    drop(listener);
    host.reboot();
    host.run().ended(0);
    assert_eq!(host.state(), ["b"]);
}

#[test]
fn the_pattern_that_was_signed_last_is_in_force() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("pulled")])));
    host.run().ended(0);
    let web = host.web();
    let listener = listen(&host);
    listener.push(json!([host.command("pushed")]));
    assert_eq!(host.state(), ["pushed"]);
    drop(listener);
    let config = json!({
        "listen": {"sources": {"web": {"keys": web["keys"]}}},
        "sources": {"web": web},
    });
    host.world.write("esp/etchaos/config.json", config.to_string());
    // The server still offers the older one, which is no error.
    assert_eq!(host.run().ended(0).stderr, "");
    assert_eq!(host.status()["pull"]["error"], json!(null));
}

#[test]
fn a_push_waits_until_a_source_has_run() {
    let host = Host::new();
    let listener = listen(&host);
    listener.push(json!([{"id": "slow", "check": "false", "change": "sleep 2"}]));
    let mut running = host.world.command(&["sources", "--all"]).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert!(running.try_wait().unwrap().is_none());
    listener.push(json!([host.command("a")]));
    assert!(running.wait().unwrap().success());
    assert_eq!(host.state(), ["a"]);
}

#[test]
fn a_pattern_that_cannot_run_does_not_replace_the_one_in_force() {
    let host = Host::new();
    let listener = listen(&host);
    listener.push(json!([host.command("a")]));
    let mut invalid = host.command("b");
    invalid["onChange"] = json!(["none"]);
    let (status, body) = listener.post(json!([invalid]));
    assert!(status == 400 && body.contains("onChange"), "{status} {body}");
    assert_eq!(host.state(), ["a"]);
    host.world.run(&["sources", "--all"]).ended(0);
    assert_eq!(host.state(), ["a"]);
}
