//! What can go wrong with a guest, told so that nobody needs a debugger.

use std::fmt::Write as _;
use std::time::Duration;

use protocol::pattern::CommandResult;

use crate::push::PushError;
use crate::vm::VmError;

/// A guest that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The VM could not be started.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The VM is beyond help.
    #[error("the VM failed while {waiting}, after {} s: {what}\n{console_tail}", after.as_secs())]
    Failed {
        /// What was being waited for.
        waiting: &'static str,
        /// For how long.
        after: Duration,
        /// What happened.
        what: String,
        /// The console.
        console_tail: String,
    },
    /// Time is up.
    #[error(
        "gave up {waiting} after {} s: {why}; {last_error}\n{console_tail}",
        after.as_secs()
    )]
    TimedOut {
        /// What was being waited for.
        waiting: &'static str,
        /// For how long.
        after: Duration,
        /// Which limit was reached, and the state of the machine.
        why: String,
        /// What came of the last attempt.
        last_error: String,
        /// The console.
        console_tail: String,
    },
    /// The listener refuses.
    #[error("{waiting}: {source}\n{console_tail}")]
    Push {
        /// What was being done.
        waiting: &'static str,
        /// Why.
        source: PushError,
        /// The console.
        console_tail: String,
    },
    /// Commands failed.
    #[error("{}{console_tail}", failures(.commands))]
    Commands {
        /// The ones that failed, with their output.
        commands: Vec<CommandResult>,
        /// The console.
        console_tail: String,
    },
    /// Somebody asked to stop.
    #[error("stopped while {0}")]
    Cancelled(&'static str),
}

fn failures(commands: &[CommandResult]) -> String {
    let mut text = String::new();
    for command in commands {
        let _ = writeln!(text, "the Command {:?} failed in the guest:", command.id);
        let output = command.output.trim();
        for line in if output.is_empty() { "(no output)" } else { output }.lines() {
            let _ = writeln!(text, "  > {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::pattern::Outcome;

    fn result(id: &str, outcome: Outcome, output: &str) -> CommandResult {
        CommandResult { id: id.into(), outcome, output: output.into() }
    }

    #[test]
    fn failures_show_the_commands_output_and_the_console() {
        let error = GuestError::Commands {
            commands: vec![
                result("kernel", Outcome::Failed, "expected a\nfound b\n"),
                result("silent", Outcome::Failed, ""),
            ],
            console_tail: "the console's last lines (console.log):\n  | login:".into(),
        };
        assert_eq!(
            error.to_string(),
            "the Command \"kernel\" failed in the guest:\n  > expected a\n  > found b\n\
             the Command \"silent\" failed in the guest:\n  > (no output)\n\
             the console's last lines (console.log):\n  | login:"
        );
    }
}
