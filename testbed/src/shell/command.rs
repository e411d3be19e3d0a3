//! The subcommand `shell`.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use protocol::shell::{self, Terminal};
use protocol::{Claims, PrivateKey, token};
use tokio::time::{sleep, timeout};

use super::input;
use super::session::{self, End};
use super::terminal::{self, Raw};
use crate::cancel::Cancel;
use crate::client::{self, Address, HostArgs, Trust, Upgraded, reason};
use crate::exit::{ExitError, code};

/// The exit code for everything but the end of the shell, as of ssh(1).
const NO_SHELL: u8 = 255;
/// The limit for connecting and for the answer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(shell::SILENCE_SECONDS);
/// How often the client checks whether it was asked to stop.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// Options of `shell`.
#[derive(Debug, Args)]
#[command(after_help = "\
With a terminal, \"~.\" at the beginning of a line ends the connection, and with it the shell. Without one,
the shell reads its commands from standard input:

  testbed shell web1 ops --key @ops.key --fingerprint 5f9a…
  echo 'journalctl -b' | testbed shell web1 ops --key @ops.key --fingerprint 5f9a…

Exit codes: that of the shell; 2 wrong usage; 255 no shell, or the connection was lost or ended;
128+N ended by signal N")]
pub(crate) struct Shell {
    /// The host and how to reach it
    #[command(flatten)]
    host: HostArgs,
}

/// Runs a shell on a host.
///
/// # Errors
/// Fails if there is no shell, if it exits with a code other than 0, or if the connection is lost.
pub(crate) fn shell(options: &Shell, cancel: &Cancel) -> Result<(), ExitError> {
    let usage = |message| ExitError { code: code::USAGE, message };
    let (address, trust) = options.host.endpoint().map_err(usage)?;
    if !address.tls {
        return Err(usage("a shell needs TLS: use https://".into()));
    }
    let key = options.host.key().map_err(usage)?;
    let source = &options.host.source;
    let failed = |message: String| ExitError { code: NO_SHELL, message };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let terminal = terminal::of_operator();
    let end = runtime.block_on(async {
        let open = open(&address, &trust, source, &key);
        tokio::select! {
            end = run(open, terminal.clone()) => end,
            () = stopped(cancel) => Ok(End::Stopped),
        }
    });
    // A lookup of a name may still be running, and standard output may be blocked.
    runtime.shutdown_background();
    finish(end.map_err(failed)?, &address, terminal.as_ref())
}

/// Exchanges input and output with a shell until its end. A terminal is in raw mode meanwhile.
async fn run(
    open: impl Future<Output = Result<Upgraded, String>>,
    terminal: Option<Terminal>,
) -> Result<End, String> {
    let opened = timeout(OPEN_TIMEOUT, open).await;
    let upgraded =
        opened.map_err(|_| format!("no answer within {} s", OPEN_TIMEOUT.as_secs()))??;
    let raw = terminal.is_some().then(Raw::enable).transpose();
    let _raw = raw.map_err(|error| format!("cannot change the mode of the terminal: {error}"))?;
    Ok(session::run(upgraded, terminal, input::read()).await)
}

/// Waits until a stop is requested.
async fn stopped(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        sleep(CANCEL_INTERVAL).await;
    }
}

/// Asks for a shell. The token is signed after the connection was made, because it is bound to it.
async fn open(
    address: &Address,
    trust: &Trust,
    source: &str,
    key: &PrivateKey,
) -> Result<Upgraded, String> {
    let connection = client::connect(address, trust).await.map_err(|error| error.to_string())?;
    let binding = connection.shell_binding().ok_or_else(|| {
        format!("{} does not use TLS 1.3, which a shell needs", address.authority())
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims =
        Claims { iat: Some(now), etchaos_shell: Some(binding.into()), ..Claims::default() };
    let token = token::sign(key, &claims).map_err(|error| format!("cannot sign: {error}"))?;
    let target = format!("{}{source}", shell::PATH);
    match client::upgrade(connection, address, &target, shell::UPGRADE, &token).await {
        Ok(Ok(upgraded)) => Ok(upgraded),
        Ok(Err(refused)) => {
            let status = refused.status;
            Err(format!(
                "{} refused the shell: status {status}: {}",
                address.authority(),
                reason(status, &refused.body)
            ))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn finish(end: End, address: &Address, terminal: Option<&Terminal>) -> Result<(), ExitError> {
    let name = address.authority();
    let message = match end {
        End::Exited(0) => return Ok(()),
        End::Exited(code) => {
            return Err(ExitError { code, message: String::new() });
        }
        End::Left => format!("the connection to {name} was ended"),
        End::Stopped => format!("stopped by a signal; if a shell on {name} is open, it ends"),
        End::Lost(why) => format!("the connection to {name} was lost: {why}"),
    };
    if terminal.is_some() {
        // The host may have left the cursor within a line.
        let _ = writeln!(std::io::stderr());
    }
    Err(ExitError { code: NO_SHELL, message })
}
