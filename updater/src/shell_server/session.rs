//! One shell: moves bytes between its process and the frames of the connection, until one of both ends.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::shell::{ALIVE_SECONDS, Decoder, Frame, SILENCE_SECONDS};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
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
    /// The time without a frame of the client. A client that is alive may leave output unread for longer, for
    /// example in a pager.
    pub(super) silence: Duration,
    /// The time between two frames that say that this side is alive.
    pub(super) alive: Duration,
    /// How often the shell is asked whether it has ended.
    pub(super) poll: Duration,
    /// How long output is waited for after all processes were killed. One that has left the session, and has no
    /// scope, may keep it open.
    pub(super) quiet: Duration,
}

impl Limits {
    pub(super) const DEFAULT: Self = Self {
        open: Duration::from_secs(10),
        silence: Duration::from_secs(SILENCE_SECONDS),
        alive: Duration::from_secs(ALIVE_SECONDS),
        poll: Duration::from_millis(30),
        quiet: Duration::from_secs(1),
    };
}

/// How a shell ended.
#[derive(Debug)]
pub(super) enum End {
    Exited(u8),
    NotStarted(io::Error),
    Closed,
    /// The client sent nothing for too long.
    Silent,
    Protocol(String),
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

/// A shell, until it is killed.
type Shared = Arc<Mutex<Option<Running>>>;

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
        let sender = Sender(Mutex::new(writer));
        let terminal = match timeout(self.limits.open, frames.next()).await {
            Ok(Ok(Frame::Open(terminal))) => terminal,
            Ok(Ok(_)) => return End::Protocol("the first frame is not that which opens".into()),
            Ok(Err(end)) => return end,
            Err(_) => return End::Silent,
        };
        let end = match self.launcher.start(terminal.as_ref()) {
            Ok((running, streams)) => {
                let running = Arc::new(Mutex::new(Some(running)));
                let end = self.exchange(&mut frames, &sender, &running, streams).await;
                kill(&running).await;
                end
            }
            Err(error) => End::NotStarted(error),
        };
        // The client can rely on it that nothing runs any more.
        match &end {
            End::Exited(code) => finish(&Frame::Exit(*code), &sender, &mut frames).await,
            End::NotStarted(error) => {
                finish(&Frame::Failed(error.to_string()), &sender, &mut frames).await;
            }
            _ => {}
        }
        end
    }

    async fn exchange<R, W>(
        &self,
        frames: &mut Frames<R>,
        sender: &Sender<W>,
        running: &Shared,
        streams: Streams,
    ) -> End
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Streams { input, output, error } = streams;
        let has_terminal = error.is_none();
        let (killed, is_killed) = watch::channel(false);
        let output = self.forward(output, sender, Frame::Output, is_killed.clone());
        let errors = async {
            match error {
                Some(pipe) => self.forward(pipe, sender, Frame::ErrorOutput, is_killed).await,
                None => Ok(()),
            }
        };
        let shell = async {
            let code = self.exit_code(running).await?;
            // What the shell has written is still in the pipes. Their other ends are closed now.
            kill(running).await;
            killed.send_replace(true);
            Ok(code)
        };
        let all = async { tokio::try_join!(shell, output, errors).map(|(code, (), ())| code) };
        tokio::select! {
            code = all => code.map_or_else(End::Failed, End::Exited),
            end = receive(frames, Some(input), has_terminal, running) => end,
            error = self.keep_alive(sender) => End::Failed(error),
        }
    }

    /// Waits until the shell has ended, and returns its exit code.
    async fn exit_code(&self, running: &Shared) -> io::Result<u8> {
        loop {
            sleep(self.limits.poll).await;
            if let Some(running) = &mut *running.lock().await
                && let Some(code) = running.exit_code()?
            {
                return Ok(code);
            }
        }
    }

    /// Sends the output of the shell until its end, or until it is quiet after the processes were killed.
    async fn forward<W: AsyncWrite + Unpin>(
        &self,
        mut pipe: Output,
        sender: &Sender<W>,
        frame: fn(Vec<u8>) -> Frame,
        mut killed: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let mut block = [0; BLOCK];
        loop {
            let quiet = async {
                let _ = killed.wait_for(|killed| *killed).await;
                sleep(self.limits.quiet).await;
            };
            let length = tokio::select! {
                length = pipe.read(&mut block) => length?,
                () = quiet => 0,
            };
            match length {
                0 => return Ok(()),
                length => sender.send(&frame(block[..length].to_vec())).await?,
            }
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

/// Kills all processes of a shell, unless that was done.
async fn kill(running: &Shared) {
    // The lock is held until they are killed, also if the caller is cancelled.
    let mut running = running.clone().lock_owned().await;
    if let Err(error) = spawn_blocking(move || drop(running.take())).await {
        log::warn!("a shell could not be killed: {error}");
    }
}

/// Passes input and sizes of the client on to the shell, until the client ends.
///
/// While the shell does not read its input, nothing is received. A client that closes the connection is then noticed
/// by the next frame that is sent, and one that vanishes when TCP gives up, after about a quarter of an hour.
async fn receive<R: AsyncRead + Unpin>(
    frames: &mut Frames<R>,
    mut input: Option<Input>,
    has_terminal: bool,
    running: &Shared,
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
            Frame::Window(size) => {
                if let Some(running) = &*running.lock().await {
                    running.resize(size);
                }
            }
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
                // TLS reports in this way that the connection ended without close_notify.
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
struct Sender<W>(Mutex<W>);

impl<W: AsyncWrite + Unpin> Sender<W> {
    async fn send(&self, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let mut stream = self.0.lock().await;
        stream.write_all(&bytes).await?;
        stream.flush().await
    }
}

/// Sends the last frame, and waits until the client has closed the connection, or is silent.
///
/// The client may still be sending. A connection that is closed before everything was read is reset, and the client
/// could lose output that it has not read yet (RFC 1122 section 4.2.2.13).
async fn finish<R, W>(last: &Frame, sender: &Sender<W>, frames: &mut Frames<R>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let send = async {
        sender.send(last).await?;
        sender.0.lock().await.shutdown().await
    };
    let receive = async { while frames.next().await.is_ok() {} };
    tokio::select! {
        Err(_) = send => {}
        () = receive => {}
    }
}

#[cfg(test)]
mod tests;
