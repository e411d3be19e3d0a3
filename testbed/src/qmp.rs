//! A client for QEMU's machine protocol (QMP): lines of JSON on a Unix socket, as specified in QEMU's
//! `qmp-spec`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

/// The limit for an answer. QEMU answers within milliseconds unless the host is busy.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The length of the longest line that is read, in bytes.
const LINE_MAX: u64 = 1 << 20;
/// The number of events that are skipped between a command and its answer.
const EVENTS_MAX: usize = 1000;
/// The QMP command that runs a command of the human monitor.
const MONITOR: &str = "human-monitor-command";

/// A QMP command that failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection failed.
    #[error("QMP {command:?}: the connection to QEMU failed: {source}")]
    Io {
        /// The command.
        command: String,
        /// The cause.
        source: io::Error,
    },
    /// QEMU sent a message that the protocol does not allow here.
    #[error("QMP {command:?}: expected {expected}, found {found}")]
    Protocol {
        /// The command.
        command: String,
        /// The expected message.
        expected: &'static str,
        /// The message that QEMU sent, shortened.
        found: String,
    },
    /// QEMU rejected the command.
    #[error("QMP {command:?}: QEMU rejected the command: {reason}")]
    Rejected {
        /// The command.
        command: String,
        /// QEMU's error description.
        reason: String,
    },
}

/// A QMP connection in command mode.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Reads the greeting on a new connection and switches the connection to command mode.
    pub(crate) fn new(stream: UnixStream) -> Result<Self, QmpError> {
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
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|source| QmpError::Io { command: command.into(), source })?;
        for _ in 0..EVENTS_MAX {
            let mut message = self.read(command)?;
            if let Some(error) = message.get("error") {
                let reason = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(QmpError::Rejected { command: command.into(), reason });
            }
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if message.get("event").is_none() {
                return Err(protocol(command, "an answer or an event", &message));
            }
        }
        Err(protocol(command, "an answer", &json!("too many events")))
    }

    /// Returns the port of the host that QEMU forwards to `guest_port`.
    ///
    /// The system chose the port when QEMU opened it, so that no other process can take the port
    /// before QEMU does.
    pub(crate) fn forwarded_port(&mut self, guest_port: u16) -> Result<u16, QmpError> {
        let table = self.monitor("info usernet")?;
        port_in(&table, guest_port)
            .ok_or_else(|| protocol(MONITOR, "a table with the forwarded port", &table.into()))
    }

    /// Presses the power button.
    pub(crate) fn power_button(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown", json!({})).map(drop)
    }

    /// Presses the reset button.
    pub(crate) fn reset(&mut self) -> Result<(), QmpError> {
        self.execute("system_reset", json!({})).map(drop)
    }

    /// Returns the number of bytes that the machine has written to its disks since QEMU started.
    pub(crate) fn bytes_written(&mut self) -> Result<u64, QmpError> {
        let command = "query-blockstats";
        let answer = self.execute(command, json!({}))?;
        let disks = answer.as_array().ok_or_else(|| protocol(command, "a list", &answer))?;
        Ok(disks.iter().filter_map(|disk| disk["stats"]["wr_bytes"].as_u64()).sum())
    }

    /// Limits the write rate of a disk. `disk` is a path in QEMU's object tree.
    pub(crate) fn limit_writes(
        &mut self,
        disk: &str,
        bytes_per_second: u64,
    ) -> Result<(), QmpError> {
        let limits = json!({
            "id": disk, "bps": 0, "bps_rd": 0, "bps_wr": bytes_per_second,
            "iops": 0, "iops_rd": 0, "iops_wr": 0,
        });
        self.execute("block_set_io_throttle", limits).map(drop)
    }

    /// Returns the state of the machine, such as `running`, `shutdown` or `internal-error`.
    pub(crate) fn status(&mut self) -> Result<String, QmpError> {
        let answer = self.execute("query-status", json!({}))?;
        match answer["status"].as_str() {
            Some(status) => Ok(status.to_owned()),
            None => Err(protocol("query-status", "a status", &answer)),
        }
    }

    /// Returns what the processor executes: the line of its registers with the instruction pointer. For amd64 it
    /// also says whether the processor is halted (HLT), and whether it is in system management mode (SMM), which
    /// only firmware uses.
    pub(crate) fn instruction(&mut self) -> Result<String, QmpError> {
        let text = self.monitor("info registers")?;
        let mut lines = text.lines().map(str::trim);
        let line = lines.find(|line| line.starts_with("RIP=") || line.starts_with("PC="));
        let line = line.map(str::to_owned);
        line.ok_or_else(|| protocol(MONITOR, "registers with an instruction pointer", &text.into()))
    }

    /// Runs a command of the human monitor and returns its output.
    fn monitor(&mut self, line: &str) -> Result<String, QmpError> {
        let answer = self.execute(MONITOR, json!({"command-line": line}))?;
        answer.as_str().map(str::to_owned).ok_or_else(|| protocol(MONITOR, "a text", &answer))
    }

    fn read(&mut self, command: &str) -> Result<Value, QmpError> {
        let io = |source| QmpError::Io { command: command.to_owned(), source };
        let mut line = String::new();
        let count = self.stream.by_ref().take(LINE_MAX).read_line(&mut line).map_err(io)?;
        if count == 0 {
            return Err(io(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "QEMU closed the connection",
            )));
        }
        serde_json::from_str(&line).map_err(|_| protocol(command, "JSON", &json!(line)))
    }
}

fn protocol(command: &str, expected: &'static str, found: &Value) -> QmpError {
    let found = found.to_string().chars().take(300).collect();
    QmpError::Protocol { command: command.to_owned(), expected, found }
}

/// Finds the port of the host that is forwarded to `guest_port` in the output of `info usernet`, which
/// has lines such as `TCP[HOST_FORWARD]  14  127.0.0.1 34837  10.0.2.15  4000  0  0`.
fn port_in(table: &str, guest_port: u16) -> Option<u16> {
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        match columns[..] {
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

    /// Connects to a fake QEMU that sends `greeting` and then one of `answers` for each line that it
    /// receives.
    fn connect(greeting: &'static str, answers: &'static [&'static str]) -> Result<Qmp, QmpError> {
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
    fn skips_unknown_events_before_answer() {
        let answers = &[
            r#"{"return": {}}"#,
            "{\"event\": \"NEW_THING\", \"data\": 1}\n{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"running\"}}",
        ];
        assert_eq!(connect(GREETING, answers).unwrap().status().unwrap(), "running");
    }

    #[test]
    fn names_command_in_errors() {
        let rejection = r#"{"error": {"class": "CommandNotFound", "desc": "no such command"}}"#;
        let answers: &[&str] = Box::leak(Box::new([r#"{"return": {}}"#, rejection, "[]", "x"]));
        let mut qmp = connect(GREETING, answers).unwrap();
        let error = qmp.power_button().unwrap_err().to_string();
        let expected = r#"QMP "system_powerdown": QEMU rejected the command: no such command"#;
        assert_eq!(error, expected);
        assert!(matches!(qmp.status().unwrap_err(), QmpError::Protocol { .. }));
        assert!(matches!(qmp.status().unwrap_err(), QmpError::Protocol { .. }));
        assert!(matches!(qmp.status().unwrap_err(), QmpError::Io { .. }));
        assert!(connect("{}", &[]).unwrap_err().to_string().contains("QEMU's greeting"));
    }

    #[test]
    fn reads_instruction_pointer_from_registers() {
        let answers = &[
            r#"{"return": {}}"#,
            r#"{"return": "\r\nCPU#0\r\nRAX=0000000000000001 RBX=0000000000000000\r\nRIP=ffffffffa40be58f RFL=00000216 CPL=0 SMM=0 HLT=1\r\n"}"#,
            r#"{"return": "\r\nCPU#0\r\n PC=ffff80008000 X00=0000000000000000\r\n"}"#,
            r#"{"return": "\r\nCPU#0\r\n"}"#,
        ];
        let mut qmp = connect(GREETING, answers).unwrap();
        let expected = "RIP=ffffffffa40be58f RFL=00000216 CPL=0 SMM=0 HLT=1";
        assert_eq!(qmp.instruction().unwrap(), expected);
        assert_eq!(qmp.instruction().unwrap(), "PC=ffff80008000 X00=0000000000000000");
        assert!(qmp.instruction().is_err());
    }

    #[test]
    fn reads_forwarded_port_from_table() {
        let answers = &[
            r#"{"return": {}}"#,
            r#"{"return": "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  14       127.0.0.1 34837       10.0.2.15  4000     0     0\r\n"}"#,
            r#"{"return": "Hub -1 (net):\r\n"}"#,
        ];
        let mut qmp = connect(GREETING, answers).unwrap();
        assert_eq!(qmp.forwarded_port(4000).unwrap(), 34837);
        assert!(qmp.forwarded_port(4000).is_err());
    }
}
