//! Shells over a stream in memory.

use std::time::Instant;

use protocol::shell::{Size, Terminal};
use tokio::io::DuplexStream;

use super::*;

/// Short enough for a test, and long enough for a busy machine.
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits {
    open: SHORT,
    silence: LONG,
    write: LONG,
    alive: LONG,
    poll: Duration::from_millis(10),
    drain: SHORT,
};

/// The side of a client.
struct Client {
    stream: DuplexStream,
    decoder: Decoder,
}

impl Client {
    async fn send(&mut self, frames: &[Frame]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Returns all frames until the end of the stream, with the bytes of adjacent output joined.
    async fn receive(&mut self) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Vec::new();
        while let Some(frame) = self.next().await {
            match (frames.last_mut(), frame) {
                (Some(Frame::Output(all)), Frame::Output(more)) => all.extend(more),
                (_, frame) => frames.push(frame),
            }
        }
        frames
    }

    async fn next(&mut self) -> Option<Frame> {
        let mut block = [0; BLOCK];
        loop {
            if let Some(frame) = self.decoder.take().unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut block).await.unwrap() {
                0 => return None,
                length => self.decoder.push(&block[..length]),
            }
        }
    }
}

/// Runs a session with `sh -c SCRIPT`, in a session of its own as shells are, and a client.
fn run<T>(script: &str, limits: Limits, client: impl AsyncFnOnce(Client) -> T) -> (End, T) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let launcher = Launcher::of(&["setsid", "sh", "-c", script]);
        let session = Session { launcher: &launcher, limits };
        let other = Client { stream: theirs, decoder: Decoder::default() };
        tokio::join!(session.run(ours, &[]), client(other))
    })
}

fn open_terminal() -> Frame {
    let size = Size { columns: 81, rows: 23 };
    Frame::Open(Some(Terminal { size, term: "vt100".into() }))
}

#[test]
fn pipes_have_separate_outputs_an_end_of_input_and_an_exit_code() {
    let script = "cat; echo error >&2; exit 7";
    let (end, frames) = run(script, LIMITS, async |mut client| {
        let input = vec![b'x'; 200_000];
        client.send(&[Frame::Open(None)]).await;
        let mut received = Vec::new();
        let mut error = Vec::new();
        // Input and output are larger than all buffers together.
        for part in input.chunks(10_000) {
            client.send(&[Frame::Input(part.to_vec())]).await;
            let mut length = 0;
            while length < part.len() {
                match client.next().await {
                    Some(Frame::Output(bytes)) => {
                        length += bytes.len();
                        received.extend(bytes);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        client.send(&[Frame::InputEnd]).await;
        let mut code = None;
        while let Some(frame) = client.next().await {
            match frame {
                Frame::ErrorOutput(bytes) => error.extend(bytes),
                Frame::Exit(found) => code = Some(found),
                other => panic!("{other:?}"),
            }
        }
        assert!(received == input);
        (error, code)
    });
    assert!(matches!(end, End::Exited(7)), "{end}");
    assert_eq!(frames, (b"error\n".to_vec(), Some(7)));
}

#[test]
fn a_terminal_has_a_size_that_changes_and_a_kind() {
    let script = "stty -echo; stty size; echo $TERM; read line; stty size; echo \"$line\"; test -t 0 && exit 3";
    let (end, frames) = run(script, LIMITS, async |mut client| {
        client.send(&[open_terminal()]).await;
        let mut output = Vec::new();
        while !output.ends_with(b"vt100\r\n") {
            match client.next().await {
                Some(Frame::Output(bytes)) => output.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(String::from_utf8(output).unwrap(), "23 81\r\nvt100\r\n");
        let window = Frame::Window(Size { columns: 100, rows: 50 });
        client.send(&[window, Frame::Input(b"hello\r".to_vec())]).await;
        client.receive().await
    });
    assert!(matches!(end, End::Exited(3)), "{end}");
    assert_eq!(frames, [Frame::Output(b"50 100\r\nhello\r\n".to_vec()), Frame::Exit(3)]);
}

#[test]
fn the_end_of_the_connection_ends_the_shell() {
    for open in [Frame::Open(None), open_terminal()] {
        let script = "trap '' HUP TERM; sleep 300 & echo $!; wait";
        let (end, pid) = run(script, LIMITS, async |mut client| {
            client.send(std::slice::from_ref(&open)).await;
            match client.next().await {
                Some(Frame::Output(bytes)) => {
                    String::from_utf8(bytes).unwrap().trim().parse::<u32>().unwrap()
                }
                other => panic!("{other:?}"),
            }
        });
        assert!(matches!(end, End::Closed), "{end}");
        // A process that was killed has no program, even if nobody has reaped it yet. On a busy machine, it may
        // take a moment until the signal is delivered.
        let deadline = Instant::now() + LONG;
        while std::fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
            assert!(Instant::now() < deadline, "the process {pid} still runs");
            std::thread::sleep(LIMITS.poll);
        }
    }
}

#[test]
fn a_silent_client_is_gone() {
    let limits = Limits { silence: SHORT, ..LIMITS };
    let start = Instant::now();
    let (end, _client) = run("sleep 300", limits, async |mut client| {
        client.send(&[Frame::Open(None)]).await;
        client.send(&[Frame::Alive]).await;
        client.receive().await
    });
    assert!(matches!(end, End::Silent), "{end}");
    let (end, ()) = run("sleep 300", LIMITS, async |mut client| _ = client.receive().await);
    assert!(matches!(end, End::Silent), "{end}");
    assert!(start.elapsed() < LONG / 2);
}

#[test]
fn each_side_says_that_it_is_alive() {
    let limits = Limits { alive: Duration::from_millis(20), silence: SHORT, ..LIMITS };
    let (end, count) = run("cat; exit 4", limits, async |mut client| {
        client.send(&[Frame::Open(None)]).await;
        let mut count = 0;
        while count < 50 {
            assert_eq!(client.next().await, Some(Frame::Alive));
            client.send(&[Frame::Alive]).await;
            count += 1;
        }
        client.send(&[Frame::InputEnd]).await;
        while client.next().await.is_some() {}
        count
    });
    // It was open for twice the time that a silent client has.
    assert!(matches!(end, End::Exited(4)) && count == 50, "{end}");
}

#[test]
fn a_client_that_reads_nothing_is_gone() {
    let limits = Limits { write: SHORT, ..LIMITS };
    let (end, _stream) = run("cat /dev/zero", limits, async |mut client| {
        client.send(&[Frame::Open(None)]).await;
        client.stream
    });
    assert!(matches!(end, End::Failed(_)), "{end}");
}

#[test]
fn what_is_no_frame_of_a_client_ends_the_connection() {
    for frames in [
        &[Frame::Alive][..],
        &[Frame::Input(b"id\n".to_vec())],
        &[Frame::Open(None), Frame::Open(None)],
        &[Frame::Open(None), Frame::Exit(0)],
        &[Frame::Open(None), Frame::Output(b"x".to_vec())],
    ] {
        let (end, received) = run("sleep 300", LIMITS, async |mut client| {
            client.send(frames).await;
            client.receive().await
        });
        assert!(matches!(end, End::Protocol(_)), "{frames:?}: {end}");
        assert!(received.is_empty(), "{received:?}");
    }
    let (end, ()) = run("sleep 300", LIMITS, async |mut client| {
        client.stream.write_all(b"id\nexit\n").await.unwrap();
        _ = client.receive().await;
    });
    assert!(matches!(end, End::Protocol(_)), "{end}");
}

#[test]
fn a_process_in_the_background_does_not_keep_a_shell_open() {
    let start = Instant::now();
    let (end, frames) = run("sleep 300 & echo out; exit 2", LIMITS, async |mut client| {
        client.send(&[Frame::Open(None)]).await;
        client.receive().await
    });
    assert!(matches!(end, End::Exited(2)), "{end}");
    assert_eq!(frames, [Frame::Output(b"out\n".to_vec()), Frame::Exit(2)]);
    assert!(start.elapsed() < LONG / 2);
}

#[test]
fn a_shell_that_cannot_be_started_is_reported() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let launcher = Launcher::of(&["/nonexistent/shell"]);
        let session = Session { launcher: &launcher, limits: LIMITS };
        let mut client = Client { stream: theirs, decoder: Decoder::default() };
        client.send(&[Frame::Open(None)]).await;
        let end = session.run(ours, &[]).await;
        assert!(matches!(end, End::NotStarted(_)), "{end}");
        let frames = client.receive().await;
        assert!(matches!(&frames[..], [Frame::Failed(why)] if why.contains("No such file")));
    });
}
