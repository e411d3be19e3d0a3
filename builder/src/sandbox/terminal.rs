//! The terminal of a shell in a container.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::Result;
use bollard::container::LogOutput;
use bollard::errors::Error;
use futures_util::{Stream, StreamExt};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{Receiver, channel};

/// The number of blocks of input that wait for the container.
const INPUT_BLOCKS: usize = 8;

/// Standard input in raw mode, so that the terminal of the container handles all keys. It gets its settings
/// back when the value is dropped.
struct RawMode(Option<Termios>);

impl RawMode {
    /// Changes the mode if standard input is a terminal.
    fn enable() -> Result<Self> {
        if !is_terminal() {
            return Ok(Self(None));
        }
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Returns whether a person types the input and sees the output.
pub(super) fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Returns the rows and columns of the terminal.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Reads standard input in a thread, which ends with it or with the program.
fn input() -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel(INPUT_BLOCKS);
    std::thread::spawn(move || {
        let mut block = [0; 4096];
        while let Ok(count @ 1..) = io::stdin().read(&mut block) {
            if sender.blocking_send(block[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Copies standard input to a program, and its output to standard output and error, until the output ends.
pub(super) async fn connect(
    mut to: impl AsyncWrite + Unpin,
    mut from: impl Stream<Item = Result<LogOutput, Error>> + Unpin,
) -> Result<()> {
    let _raw = RawMode::enable()?;
    let mut input = input();
    let mut is_open = true;
    loop {
        tokio::select! {
            block = input.recv(), if is_open => match block {
                Some(block) => {
                    to.write_all(&block).await?;
                    to.flush().await?;
                }
                None => {
                    is_open = false;
                    to.shutdown().await?;
                }
            },
            part = from.next() => match part {
                Some(Ok(LogOutput::StdErr { message })) => io::stderr().write_all(&message)?,
                Some(part) => {
                    // The lock of this thread may be taken again.
                    let mut out = io::stdout().lock();
                    out.write_all(&part?.into_bytes())?;
                    out.flush()?;
                }
                None => return Ok(()),
            },
        }
    }
}
