//! One shell: moves bytes between its process and the frames of the connection, until one of both ends.

use std::fmt;
use std::io;
use std::time::Duration;

use protocol::shell::{ALIVE_SECONDS, Decoder, Frame, SILENCE_SECONDS};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::pipe::{Input, Output};
use super::process::{Launcher, Running, Streams};

/// The bytes that are read at a time.
const BLOCK: usize = 8 * 1024;
/// What a terminal takes for the end of input, at the beginning of a line (VEOF, termios(3)).
const END_OF_INPUT: u8 = 4;

/// The limits of a shell.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// The time until the first frame.
    pub(super) open: Duration,
    /// The time without a frame of the client.
    pub(super) silence: Duration,
    /// The time until the client has received a frame.
    pub(super) write: Duration,
    /// The time between two frames that say that this side is alive.
    pub(super) alive: Duration,
    /// How often the shell is asked whether it has ended.
    pub(super) poll: Duration,
    /// How long output is still sent after the end of the shell. A process in the background may keep its output
    /// open.
    pub(super) drain: Duration,
}

impl Limits {
    pub(super) const DEFAULT: Self = Self {
        open: Duration::from_secs(10),
        silence: Duration::from_secs(SILENCE_SECONDS),
        write: Duration::from_secs(SILENCE_SECONDS),
        alive: Duration::from_secs(ALIVE_SECONDS),
        poll: Duration::from_millis(30),
        drain: Duration::from_secs(1),
    };
}

/// How a shell ended.
#[derive(Debug)]
pub(super) enum End {
    /// It exited with this code.
    Exited(u8),
    /// It could not be started.
    NotStarted(io::Error),
    /// The client closed the connection.
    Closed,
    /// The client sent nothing for too long.
    Silent,
    /// The client did not follow the protocol.
    Protocol(String),
    /// The connection or the process failed.
    Failed(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "it exited with {code}"),
            Self::NotStarted(error) => write!(f, "it cannot be started: {error}"),
            Self::Closed => f.write_str("the client closed the connection"),
            Self::Silent => f.write_str("the client sent nothing any more"),
            Self::Protocol(what) => write!(f, "the client did not follow the protocol: {what}"),
            Self::Failed(error) => write!(f, "the connection failed: {error}"),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// The shell to run and its limits.
pub(super) struct Session<'a> {
    pub(super) launcher: &'a Launcher,
    pub(super) limits: Limits,
}

/// The frames of a client.
struct Frames<R> {
    stream: R,
    decoder: Decoder,
    limits: Limits,
}

impl Session<'_> {
    /// Runs the shell until it or the connection ends. When this returns, all of its processes have been killed.
    pub(super) async fn run<S>(&self, stream: S, early: &[u8]) -> End
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let (reader, writer) = tokio::io::split(stream);
        let mut decoder = Decoder::default();
        decoder.push(early);
        let mut frames = Frames { stream: reader, decoder, limits: self.limits };
        let sender = Sender { stream: Mutex::new(writer), limit: self.limits.write };
        let terminal = match timeout(self.limits.open, frames.next()).await {
            Ok(Ok(Frame::Open(terminal))) => terminal,
            Ok(Ok(_)) => return End::Protocol("the first frame is not that which opens".into()),
            Ok(Err(end)) => return end,
            Err(_) => return End::Silent,
        };
        let (mut running, streams) = match self.launcher.start(terminal.as_ref()) {
            Ok(started) => started,
            Err(error) => {
                let _ = sender.send(&Frame::Failed(error.to_string())).await;
                return End::NotStarted(error);
            }
        };
        let end = self.exchange(&mut frames, &sender, &mut running, streams).await;
        // Before the client learns of the end, so that it can rely on it.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(running)).await {
            log::warn!("a shell could not be killed: {error}");
        }
        if let End::Exited(code) = end {
            let _ = sender.send(&Frame::Exit(code)).await;
        }
        sender.close().await;
        end
    }

    async fn exchange<R, W>(
        &self,
        frames: &mut Frames<R>,
        sender: &Sender<W>,
        running: &mut Running,
        streams: Streams,
    ) -> End
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Streams { input, output, error } = streams;
        let has_terminal = error.is_none();
        let running = Mutex::new(running);
        let outputs = async {
            let errors = async {
                match error {
                    Some(error) => forward(error, sender, Frame::ErrorOutput).await,
                    None => Ok(()),
                }
            };
            tokio::try_join!(forward(output, sender, Frame::Output), errors).map(drop)
        };
        let ended = async {
            loop {
                sleep(self.limits.poll).await;
                if let Some(code) = running.lock().await.exit_code()? {
                    return Ok::<u8, io::Error>(code);
                }
            }
        };
        // The output that is left belongs to the shell; a client that closed the connection gets none.
        let shell = async {
            tokio::pin!(outputs, ended);
            tokio::select! {
                code = &mut ended => {
                    let code = code?;
                    let _ = timeout(self.limits.drain, outputs).await;
                    Ok(code)
                }
                result = &mut outputs => {
                    result?;
                    ended.await
                }
            }
        };
        let client = receive(frames, Some(input), has_terminal, &running);
        tokio::select! {
            code = shell => match code {
                Ok(code) => End::Exited(code),
                Err(error) => End::Failed(error),
            },
            end = client => end,
            error = self.keep_alive(sender) => End::Failed(error),
        }
    }

    /// Says that this side is alive, until that fails.
    async fn keep_alive<W: AsyncWrite + Unpin>(&self, sender: &Sender<W>) -> io::Error {
        loop {
            sleep(self.limits.alive).await;
            if let Err(error) = sender.send(&Frame::Alive).await {
                return error;
            }
        }
    }
}

/// Passes input and sizes of the client on to the shell, until the client ends.
async fn receive<R: AsyncRead + Unpin>(
    frames: &mut Frames<R>,
    mut input: Option<Input>,
    has_terminal: bool,
    running: &Mutex<&mut Running>,
) -> End {
    loop {
        let frame = match frames.next().await {
            Ok(frame) => frame,
            Err(end) => return end,
        };
        match frame {
            Frame::Input(bytes) => {
                // A shell that closed its input can go on without it.
                if let Some(pipe) = &mut input
                    && pipe.write_all(&bytes).await.is_err()
                {
                    input = None;
                }
            }
            Frame::InputEnd => match &mut input {
                Some(pipe) if has_terminal => _ = pipe.write_all(&[END_OF_INPUT]).await,
                _ => input = None,
            },
            Frame::Window(size) => running.lock().await.resize(size),
            Frame::Alive => {}
            other => return End::Protocol(format!("it sent {}", name(&other))),
        }
    }
}

fn name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Open(_) => "a second frame that opens",
        _ => "a frame of the host",
    }
}

impl<R: AsyncRead + Unpin> Frames<R> {
    async fn next(&mut self) -> Result<Frame, End> {
        let mut block = [0; BLOCK];
        loop {
            match self.decoder.take() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(error) => return Err(End::Protocol(error.to_string())),
            }
            match timeout(self.limits.silence, self.stream.read(&mut block)).await {
                Ok(Ok(0)) => return Err(End::Closed),
                Ok(Ok(length)) => self.decoder.push(&block[..length]),
                // TLS reports a connection that ends without its farewell in this way.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(End::Closed);
                }
                Ok(Err(error)) => return Err(End::Failed(error)),
                Err(_) => return Err(End::Silent),
            }
        }
    }
}

/// Sends frames. Several tasks may do so.
struct Sender<W> {
    stream: Mutex<W>,
    limit: Duration,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    /// Sends a frame. A client that does not receive it in time is gone.
    async fn send(&self, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let send = async {
            let mut stream = self.stream.lock().await;
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        timeout(self.limit, send).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn close(&self) {
        let close = async { self.stream.lock().await.shutdown().await };
        // The client has everything that it needs, or is gone.
        let _ = timeout(self.limit, close).await;
    }
}

/// Sends the output of the shell, until it ends.
async fn forward<W: AsyncWrite + Unpin>(
    mut pipe: Output,
    sender: &Sender<W>,
    frame: fn(Vec<u8>) -> Frame,
) -> io::Result<()> {
    let mut block = [0; BLOCK];
    loop {
        match pipe.read(&mut block).await? {
            0 => return Ok(()),
            length => sender.send(&frame(block[..length].to_vec())).await?,
        }
    }
}

#[cfg(test)]
mod tests;
