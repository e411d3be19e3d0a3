//! The errors of a guest, with the end of its console output.

use std::fmt::Write as _;
use std::time::Duration;

use protocol::pattern::CommandResult;

use crate::push::PushError;
use crate::vm::VmError;

/// An operation on a guest that failed.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The VM could not be started.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// QEMU ended, or the console shows a fatal error.
    #[error("the VM failed while {activity}, after {} s: {problem}\n{console_tail}", after.as_secs())]
    Failed {
        /// What the testbed was doing.
        activity: &'static str,
        /// The time since the activity began.
        after: Duration,
        /// How QEMU ended, or the fatal error on the console.
        problem: String,
        /// The console tail.
        console_tail: String,
    },
    /// A time limit was reached.
    #[error(
        "gave up {activity} after {} s: {reason}; {last_attempt}\n{console_tail}",
        after.as_secs()
    )]
    TimedOut {
        /// What the testbed was doing.
        activity: &'static str,
        /// The time since the activity began.
        after: Duration,
        /// Which limit was reached, and the state of the machine.
        reason: String,
        /// The error or the answer of the last attempt.
        last_attempt: String,
        /// The console tail.
        console_tail: String,
    },
    /// A push failed, and another attempt cannot succeed.
    #[error("{activity}: {source}\n{console_tail}")]
    Push {
        /// What the testbed was doing.
        activity: &'static str,
        /// The cause.
        source: PushError,
        /// The console tail.
        console_tail: String,
    },
    /// Commands of a Pattern failed.
    #[error("{}{console_tail}", failures(.commands))]
    Commands {
        /// The failed Commands with their output.
        commands: Vec<CommandResult>,
        /// The console tail.
        console_tail: String,
    },
    /// The figures of a boot cannot be read.
    #[error(
        "measuring the boot: expected a value of {value} in the guest's answer, found: {output:?}"
    )]
    Figures {
        /// The name of the value.
        value: &'static str,
        /// The output of the Command.
        output: String,
    },
    /// A stop was requested.
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
    fn shows_output_of_failed_commands_and_console_tail() {
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
