//! The process that becomes the shell: it makes a session of its own, with its terminal, and then runs the shell.
//! Both can only be done between the start of a process and that of its program.

use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::{ioctl_tiocsctty, setsid};

use crate::cli::Exit;

/// The shells to try.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// Becomes the shell.
///
/// # Errors
/// Returns only if that fails.
pub(crate) fn run() -> Result<Exit> {
    setsid().context("cannot create a session")?;
    let stdin = io::stdin();
    let has_terminal = stdin.is_terminal();
    if has_terminal {
        ioctl_tiocsctty(&stdin).context("cannot set the controlling terminal")?;
    }
    let shell = SHELLS.into_iter().find(|shell| Path::new(shell).exists()).unwrap_or(SHELLS[1]);
    let mut command = Command::new(shell);
    if has_terminal {
        command.arg("-l");
    }
    Err(command.env("SHELL", shell).exec()).with_context(|| format!("cannot run {shell}"))
}
