//! Shells through the server. The tests of the testbed run its client, with a terminal and with pipes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use protocol::shell::{Binding, Decoder, EXPORTER_LABEL, Frame, PATH, UPGRADE};
use protocol::token::sign;
use protocol::{Claims, PrivateKey};
use rustls::{ClientConnection, StreamOwned};
use serde_json::json;

use super::{Listener, fine, listen, listen_with, start};
use crate::tls_client::connect;
use crate::world::{World, now};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Starts a server whose source "ci" may have a shell.
fn with_shell(key: &PrivateKey) -> Listener {
    let world = World::new();
    world.write("host/proc/uptime", "86400.00 1.00\n");
    std::fs::create_dir_all(world.path("host/run")).unwrap();
    let sources = json!({"ci": {"keys": [key.public().to_string()], "shell": true}});
    let config = json!({"listen": {"address": "127.0.0.1:0", "sources": sources}});
    world.write("esp/etchaos/config.json", config.to_string());
    start(world)
}

/// Connects with TLS. Completes the handshake, after which there is a binding.
fn connected(listener: &Listener, versions: &[&'static rustls::SupportedProtocolVersion]) -> Tls {
    let mut stream = connect(&listener.address, listener.fingerprint.as_ref().unwrap(), versions);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream.sock.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn binding(stream: &Tls) -> Binding {
    Binding(stream.conn.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap())
}

fn claims(binding: Binding) -> Claims {
    Claims { iat: Some(now()), etchaos_shell: Some(binding.into()), ..Claims::default() }
}

/// Asks for a shell, and returns the status and the rest of the answer.
fn ask(stream: &mut (impl Read + Write), head: &str) -> (u16, String) {
    stream.write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap();
    let status = head.split_whitespace().nth(1).unwrap_or("0").parse().unwrap();
    let mut body = Vec::new();
    if status != 101 {
        let _ = stream.read_to_end(&mut body);
    }
    (status, head + &String::from_utf8_lossy(&body))
}

fn upgrade(token: &str) -> String {
    format!(
        "GET {PATH}ci HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: {UPGRADE}\r\nAuthorization: Bearer {token}"
    )
}

/// Opens a shell.
fn open(listener: &Listener, key: &PrivateKey) -> Tls {
    let mut stream = connected(listener, rustls::DEFAULT_VERSIONS);
    let token = sign(key, &claims(binding(&stream))).unwrap();
    let (status, answer) = ask(&mut stream, &upgrade(&token));
    assert_eq!(status, 101, "{answer}");
    assert!(answer.to_ascii_lowercase().contains(&format!("upgrade: {UPGRADE}")), "{answer}");
    stream
}

fn send(stream: &mut Tls, frames: &[Frame]) {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    stream.write_all(&bytes).unwrap();
    stream.flush().unwrap();
}

/// Returns the output and the exit code of a shell.
fn finish(stream: &mut Tls) -> (String, Option<u8>) {
    let (mut decoder, mut output, mut block) = (Decoder::default(), Vec::new(), [0; 4096]);
    loop {
        match decoder.take().unwrap() {
            Some(Frame::Output(bytes)) => output.extend(bytes),
            Some(Frame::Exit(code)) => return (String::from_utf8(output).unwrap(), Some(code)),
            Some(_) => {}
            None => match stream.read(&mut block) {
                Ok(0) | Err(_) => return (String::from_utf8(output).unwrap(), None),
                Ok(length) => decoder.push(&block[..length]),
            },
        }
    }
}

#[test]
fn runs_a_shell_of_root_in_a_session_of_its_own() {
    let key = PrivateKey::generate();
    let listener = with_shell(&key);
    let mut stream = open(&listener, &key);
    let script = "cut -d ' ' -f 6 /proc/$$/stat; echo $$; echo $HOME $USER ${FOO-unset}; exit 9\n";
    send(&mut stream, &[Frame::Open(None), Frame::Input(script.into())]);
    let (output, code) = finish(&mut stream);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((lines[0], lines[2], code), (lines[1], "/root root unset", Some(9)), "{output}");
}

#[test]
fn is_off_unless_the_source_may_have_one() {
    let key = PrivateKey::generate();
    let listener = listen(&key);
    let mut stream = connected(&listener, rustls::DEFAULT_VERSIONS);
    let token = sign(&key, &claims(binding(&stream))).unwrap();
    let (status, answer) = ask(&mut stream, &upgrade(&token));
    assert_eq!(status, 403);
    assert!(answer.contains("may have no shell"), "{answer}");
    // The source pushes as before.
    assert_eq!(listener.push("", &sign(&key, &fine()).unwrap()).0, 200);
    let mut stream = connected(&listener, rustls::DEFAULT_VERSIONS);
    let other = upgrade(&token).replace("/ci ", "/other ");
    assert_eq!(ask(&mut stream, &other).0, 404);
}

#[test]
fn needs_tls_1_3_and_a_token_for_this_connection() {
    let (key, wrong) = (PrivateKey::generate(), PrivateKey::generate());
    let listener = with_shell(&key);
    let refused = |expected: u16, text: &str, head: &dyn Fn(&Tls) -> String| {
        let mut stream = connected(&listener, rustls::DEFAULT_VERSIONS);
        let head = head(&stream);
        let (status, answer) = ask(&mut stream, &head);
        assert_eq!(status, expected, "{answer}");
        assert!(answer.contains(text), "{answer}");
    };
    let signed = |key: &PrivateKey, claims: &Claims| upgrade(&sign(key, claims).unwrap());
    let other = connected(&listener, rustls::DEFAULT_VERSIONS);
    refused(401, "another connection", &|_| signed(&key, &claims(binding(&other))));
    refused(404, "", &|stream| signed(&key, &claims(binding(stream))).replace("/ci ", "/ "));
    refused(401, "", &|stream| signed(&wrong, &claims(binding(stream))));
    refused(401, "etchaosShell", &|_| signed(&key, &fine()));
    refused(401, "older than a minute", &|stream| {
        signed(&key, &Claims { iat: Some(now() - 120), ..claims(binding(stream)) })
    });
    refused(426, "expected GET", &|stream| {
        signed(&key, &claims(binding(stream))).replace("Upgrade: etchaos", "Upgrade: other")
    });
    refused(426, "expected GET", &|_| format!("GET {PATH}ci HTTP/1.1"));
    refused(426, "expected GET", &|stream| {
        signed(&key, &claims(binding(stream))).replacen("GET", "POST", 1)
    });

    let mut old = connected(&listener, &[&rustls::version::TLS12]);
    let head = signed(&key, &claims(binding(&old)));
    let (status, answer) = ask(&mut old, &head);
    assert_eq!(status, 426, "{answer}");
    let plain = listen_with(&key, json!(false));
    let config = std::fs::read_to_string(plain.world.esp("etchaos/config.json")).unwrap();
    let config = config.replace("\"keys\"", "\"shell\": true, \"keys\"");
    std::fs::write(plain.world.esp("etchaos/config.json"), config).unwrap();
    let plain = plain.restarted();
    let mut stream = TcpStream::connect(&plain.address).unwrap();
    let (status, answer) = ask(&mut stream, &head);
    assert_eq!(status, 426, "{answer}");
    assert!(answer.contains("TLS 1.3"), "{answer}");
}

#[test]
fn a_connection_that_breaks_ends_all_processes() {
    let key = PrivateKey::generate();
    let listener = with_shell(&key);
    let mut stream = open(&listener, &key);
    let script = "trap '' HUP TERM; nohup sleep 300 >/dev/null 2>&1 & echo $!; wait\n";
    send(&mut stream, &[Frame::Open(None), Frame::Input(script.into())]);
    let (mut decoder, mut block) = (Decoder::default(), [0; 4096]);
    let pid = loop {
        match decoder.take().unwrap() {
            Some(Frame::Output(bytes)) => break String::from_utf8(bytes).unwrap(),
            Some(other) => panic!("{other:?}"),
            None => {
                let length = stream.read(&mut block).unwrap();
                decoder.push(&block[..length]);
            }
        }
    };
    let process = format!("/proc/{}/stat", pid.trim());
    let runs = || {
        let stat = std::fs::read_to_string(&process).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    };
    assert!(runs());
    // The reboot policy "idle" waits for it.
    let shells = listener.world.path("host/run/etchaos/shells");
    assert_eq!(shells.read_dir().unwrap().count(), 1);
    drop(stream);
    for _ in 0..300 {
        if !runs() && shells.read_dir().unwrap().count() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the process {pid} still runs, or the shell counts as open");
}

#[test]
fn few_shells_are_open_at_the_same_time() {
    let key = PrivateKey::generate();
    let listener = with_shell(&key);
    // One address has four connections.
    let open: Vec<Tls> = (0..3).map(|_| open(&listener, &key)).collect();
    let mut last = connected(&listener, rustls::DEFAULT_VERSIONS);
    let token = sign(&key, &claims(binding(&last))).unwrap();
    assert_eq!(ask(&mut last, &upgrade(&token)).0, 101);
    assert!(TcpStream::connect(&listener.address).is_ok_and(|mut stream| {
        let _ = stream.write_all(b"x");
        stream.read(&mut [0]).unwrap_or(0) == 0
    }));
    drop(open);
}
