//! QEMU's machine protocol (QMP): lines of JSON on a Unix socket, as QEMU's `qmp-spec` says.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

/// QEMU answers at once, unless the machine under it is busy.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest line that is read.
const LINE_MAX: u64 = 1 << 20;
/// Events that may come between a command and its answer. Unknown ones are fine: they are skipped.
const EVENTS_MAX: usize = 1000;

/// A conversation with QEMU that went wrong.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket.
    #[error("QMP {command:?}: the connection to QEMU failed: {source}")]
    Io {
        /// The command that was sent.
        command: String,
        /// What happened.
        source: io::Error,
    },
    /// Not what the protocol allows.
    #[error("QMP {command:?}: expected {expected}, found {found}")]
    Protocol {
        /// The command that was sent.
        command: String,
        /// What should have come.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// QEMU refused.
    #[error("QMP {command:?}: QEMU says: {why}")]
    Refused {
        /// The command that was sent.
        command: String,
        /// QEMU's words.
        why: String,
    },
}

/// A connection in command mode.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes a new connection through the greeting.
    pub fn new(stream: UnixStream) -> Result<Self, QmpError> {
        let command = "qmp_capabilities";
        stream
            .set_read_timeout(Some(TIMEOUT))
            .and_then(|()| stream.set_write_timeout(Some(TIMEOUT)))
            .map_err(|source| QmpError::Io { command: command.into(), source })?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        let greeting = qmp.read(command)?;
        if greeting.get("QMP").is_none() {
            return Err(protocol(command, "QEMU's greeting", &greeting));
        }
        qmp.execute(command, json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|source| QmpError::Io { command: command.into(), source })?;
        for _ in 0..EVENTS_MAX {
            let mut message = self.read(command)?;
            if let Some(error) = message.get("error") {
                let why = error["desc"].as_str().unwrap_or("no reason").to_owned();
                return Err(QmpError::Refused { command: command.into(), why });
            }
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if message.get("event").is_none() {
                return Err(protocol(command, "an answer or an event", &message));
            }
        }
        Err(protocol(command, "an answer", &json!("events without end")))
    }

    /// The port of the host that QEMU forwards to `guest_port`. It was chosen by the system, so that
    /// nobody else can have taken it in between.
    pub fn forwarded_port(&mut self, guest_port: u16) -> Result<u16, QmpError> {
        let command = "human-monitor-command";
        let answer = self.execute(command, json!({"command-line": "info usernet"}))?;
        let table = answer.as_str().unwrap_or_default();
        port_in(table, guest_port)
            .ok_or_else(|| protocol(command, "a table with the forwarded port", &answer))
    }

    /// Presses the power button.
    pub fn power_button(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown", json!({})).map(drop)
    }

    /// Presses the reset button.
    pub fn reset(&mut self) -> Result<(), QmpError> {
        self.execute("system_reset", json!({})).map(drop)
    }

    /// How many bytes the machine has written to its disks since QEMU started.
    pub fn written(&mut self) -> Result<u64, QmpError> {
        let command = "query-blockstats";
        let answer = self.execute(command, json!({}))?;
        let disks = answer.as_array().ok_or_else(|| protocol(command, "a list", &answer))?;
        Ok(disks.iter().filter_map(|disk| disk["stats"]["wr_bytes"].as_u64()).sum())
    }

    /// Lets the machine write no more than this many bytes per second to the disk at this
    /// place in QEMU's tree of objects.
    pub fn limit_writes(&mut self, disk: &str, per_second: u64) -> Result<(), QmpError> {
        let limits = json!({
            "id": disk, "bps": 0, "bps_rd": 0, "bps_wr": per_second,
            "iops": 0, "iops_rd": 0, "iops_wr": 0,
        });
        self.execute("block_set_io_throttle", limits).map(drop)
    }

    /// What the machine is doing: `running`, `shutdown`, `internal-error` …
    pub fn status(&mut self) -> Result<String, QmpError> {
        let answer = self.execute("query-status", json!({}))?;
        match answer["status"].as_str() {
            Some(status) => Ok(status.to_owned()),
            None => Err(protocol("query-status", "a status", &answer)),
        }
    }

    fn read(&mut self, command: &str) -> Result<Value, QmpError> {
        let io = |source| QmpError::Io { command: command.to_owned(), source };
        let mut line = String::new();
        let count = self.stream.by_ref().take(LINE_MAX).read_line(&mut line).map_err(io)?;
        if count == 0 {
            return Err(io(io::Error::new(io::ErrorKind::UnexpectedEof, "QEMU hung up")));
        }
        serde_json::from_str(&line).map_err(|_| protocol(command, "JSON", &json!(line)))
    }
}

fn protocol(command: &str, expected: &'static str, found: &Value) -> QmpError {
    let found = found.to_string().chars().take(300).collect();
    QmpError::Protocol { command: command.to_owned(), expected, found }
}

/// `TCP[HOST_FORWARD]  14  127.0.0.1 34837  10.0.2.15  4000  0  0`
fn port_in(table: &str, guest_port: u16) -> Option<u16> {
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["TCP[HOST_FORWARD]", _, _, host, _, guest, ..] if guest == guest_port.to_string() => {
                host.parse().ok()
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

    /// Plays QEMU: for each line that it gets, it says the next of `answers`.
    fn qemu(greeting: &'static str, answers: &'static [&'static str]) -> Result<Qmp, QmpError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut reader = BufReader::new(theirs.try_clone().unwrap());
            let mut writer = theirs;
            writeln!(writer, "{greeting}").unwrap();
            for answer in answers {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let request: Value = serde_json::from_str(&line).unwrap();
                assert!(request["execute"].is_string(), "{line}");
                writeln!(writer, "{answer}").unwrap();
            }
        });
        Qmp::new(ours)
    }

    #[test]
    fn unknown_events_between_a_command_and_its_answer_are_skipped() {
        let answers = &[
            r#"{"return": {}}"#,
            "{\"event\": \"NEW_THING\", \"data\": 1}\n{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"running\"}}",
        ];
        assert_eq!(qemu(GREETING, answers).unwrap().status().unwrap(), "running");
    }

    #[test]
    fn refusals_and_nonsense_are_errors_that_name_the_command() {
        let refusal = r#"{"error": {"class": "CommandNotFound", "desc": "no such command"}}"#;
        let answers: &[&str] = Box::leak(Box::new([r#"{"return": {}}"#, refusal, "[]", "x"]));
        let mut qmp = qemu(GREETING, answers).unwrap();
        let error = qmp.power_button().unwrap_err().to_string();
        assert_eq!(error, r#"QMP "system_powerdown": QEMU says: no such command"#);
        assert!(matches!(qmp.status().unwrap_err(), QmpError::Protocol { .. }));
        assert!(matches!(qmp.status().unwrap_err(), QmpError::Protocol { .. }));
        assert!(matches!(qmp.status().unwrap_err(), QmpError::Io { .. }));
        assert!(qemu("{}", &[]).unwrap_err().to_string().contains("QEMU's greeting"));
    }

    #[test]
    fn the_forwarded_port_is_read_from_the_table() {
        let answers = &[
            r#"{"return": {}}"#,
            r#"{"return": "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  14       127.0.0.1 34837       10.0.2.15  4000     0     0\r\n"}"#,
            r#"{"return": "Hub -1 (net):\r\n"}"#,
        ];
        let mut qmp = qemu(GREETING, answers).unwrap();
        assert_eq!(qmp.forwarded_port(4000).unwrap(), 34837);
        assert!(qmp.forwarded_port(4000).is_err());
    }
}
