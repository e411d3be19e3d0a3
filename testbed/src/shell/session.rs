//! The frames of a shell, from the side of the client.

use std::io::{self, Write};
use std::time::Duration;

use protocol::shell::{ALIVE_SECONDS, Decoder, Frame, PAYLOAD_MAX, SILENCE_SECONDS, Size};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Mutex;
use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::escape::{Escapes, Typed};
use super::terminal;
use crate::client::shown;

/// How often the size of the terminal is read.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How a shell ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited(u8),
    /// The operator typed the escape.
    Left,
    Stopped,
    /// The connection ended without an exit code.
    Lost(String),
}

/// Exchanges frames until the shell or the connection ends.
pub(super) async fn run<S: AsyncRead + AsyncWrite>(
    stream: S,
    terminal: Option<protocol::shell::Terminal>,
    input: Receiver<Vec<u8>>,
) -> End {
    let (reader, writer) = tokio::io::split(stream);
    let sender = Sender(Mutex::new(writer));
    let size = terminal.as_ref().map(|terminal| terminal.size);
    if let Err(error) = sender.send(&Frame::Open(terminal)).await {
        return End::Lost(error.to_string());
    }
    tokio::select! {
        end = receive(reader) => end,
        end = send_input(&sender, input, size.is_some()) => end,
        end = watch(&sender, size) => end,
        end = keep_alive(&sender) => end,
    }
}

/// Prints output until the host sends the last frame.
async fn receive<S: AsyncRead>(mut reader: ReadHalf<S>) -> End {
    let mut decoder = Decoder::default();
    let mut block = vec![0; PAYLOAD_MAX];
    loop {
        let frame = match decoder.take() {
            Ok(Some(frame)) => frame,
            Err(error) => return End::Lost(format!("the host sent no frame: {error}")),
            Ok(None) => {
                let read = timeout(Duration::from_secs(SILENCE_SECONDS), reader.read(&mut block));
                match read.await {
                    Ok(Ok(0)) => return closed(),
                    Ok(Ok(length)) => decoder.push(&block[..length]),
                    // A listener that is killed sends no close_notify.
                    Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return closed();
                    }
                    Ok(Err(error)) => return End::Lost(error.to_string()),
                    Err(_) => return End::Lost("the host does not answer any more".into()),
                }
                continue;
            }
        };
        let printed = match frame {
            Frame::Output(bytes) => print(io::stdout, bytes).await,
            Frame::ErrorOutput(bytes) => print(io::stderr, bytes).await,
            Frame::Alive => Ok(()),
            Frame::Exit(code) => return End::Exited(code),
            Frame::Failed(reason) => {
                return End::Lost(format!("the host has no shell: {}", shown(reason.as_bytes())));
            }
            Frame::Open(_) | Frame::Input(_) | Frame::InputEnd | Frame::Window(_) => {
                return End::Lost("the host sent a frame of a client".into());
            }
        };
        if let Err(error) = printed {
            return End::Lost(format!("cannot print the output: {error}"));
        }
    }
}

fn closed() -> End {
    End::Lost("the host closed the connection".into())
}

/// Prints in a thread. A pager that reads nothing for a while must not keep this side from saying that it is alive.
async fn print<W: Write + 'static>(out: fn() -> W, bytes: Vec<u8>) -> io::Result<()> {
    let print = move || {
        let mut out = out();
        out.write_all(&bytes)?;
        out.flush()
    };
    spawn_blocking(print).await?
}

/// Sends what is typed. The end of a pipe is sent, too, and the shell goes on.
async fn send_input<S: AsyncWrite>(
    sender: &Sender<S>,
    mut input: Receiver<Vec<u8>>,
    has_terminal: bool,
) -> End {
    let mut escapes = Escapes::default();
    while let Some(bytes) = input.recv().await {
        let bytes = match has_terminal {
            false => bytes,
            true => match escapes.apply(&bytes) {
                Typed::Bytes(bytes) => bytes,
                Typed::End => return End::Left,
            },
        };
        if let Err(error) = sender.send(&Frame::Input(bytes)).await {
            return End::Lost(error.to_string());
        }
    }
    match sender.send(&Frame::InputEnd).await {
        Ok(()) => std::future::pending().await,
        Err(error) => End::Lost(error.to_string()),
    }
}

/// Sends the size of the terminal when it changes.
async fn watch<S: AsyncWrite>(sender: &Sender<S>, mut size: Option<Size>) -> End {
    loop {
        sleep(POLL_INTERVAL).await;
        let now = size.map(|_| terminal::size());
        if now == size {
            continue;
        }
        size = now;
        if let Some(size) = size
            && let Err(error) = sender.send(&Frame::Window(size)).await
        {
            return End::Lost(error.to_string());
        }
    }
}

async fn keep_alive<S: AsyncWrite>(sender: &Sender<S>) -> End {
    loop {
        sleep(Duration::from_secs(ALIVE_SECONDS)).await;
        if let Err(error) = sender.send(&Frame::Alive).await {
            return End::Lost(error.to_string());
        }
    }
}

/// Sends frames. Several tasks may do so. There is no time limit: a shell may leave its input unread for as long as it
/// likes, and [`receive`] notices a host that vanished.
struct Sender<S>(Mutex<WriteHalf<S>>);

impl<S: AsyncWrite> Sender<S> {
    async fn send(&self, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let mut stream = self.0.lock().await;
        stream.write_all(&bytes).await?;
        stream.flush().await
    }
}
