//! The network of the test, in namespaces of its own: the publisher's server, and a name server that knows only
//! this server.

use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::judge::skip;

/// Set in the namespaces.
const CHILD: &str = "ETCHAOS_TEST_NAMESPACE";
/// The name of the publisher's server on the page.
pub(crate) const SERVER: &str = "os.example.org";
/// Its address, which is reserved for documentation (RFC 5737).
const ADDRESS: [u8; 4] = [192, 0, 2, 80];
/// Prepares the namespaces. `$1` is a directory with the files for /etc. /dev/kvm may exist and not work, which QEMU
/// does not notice, so it is hidden.
const SETUP: &str = r#"
    ip link set lo up
    ip address add 192.0.2.80/32 dev lo
    if [ -e /dev/kvm ]; then mount --bind /dev/null /dev/kvm; fi
    for name in hosts resolv.conf nsswitch.conf; do
        mount --bind "$1/$name" "/etc/$name"
    done
    shift
    exec "$@"
"#;

/// Runs a test in namespaces of its own. All processes of the test end with it. Returns whether this is the
/// parent, for which nothing is left to do.
pub(crate) fn is_done_in_namespace(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    if !nix::unistd::geteuid().is_root() {
        skip("namespaces need root");
        return true;
    }
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("hosts", &format!("127.0.0.1 localhost\n192.0.2.80 {SERVER}\n"));
    write("resolv.conf", "nameserver 127.0.0.1\n");
    write("nsswitch.conf", "hosts: files dns\n");
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--mount-proc", "--kill-child", "--fork"]);
    command.args(["sh", "-ec", SETUP, "sh"]).arg(directory.path());
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(CHILD, "1");
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let Output { status, stdout, stderr } = command.output().expect("unshare can be run");
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success() && text.contains("1 passed"), "{text}");
    print!("{text}");
    true
}

/// Answers queries on the loopback interface: for the address of the publisher's server, and that no other name
/// exists. QEMU forwards the queries of the host.
pub(crate) fn start_name_server() {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            if let Some(answer) = answer(&query[..length]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
}

/// Returns the answer to a query (RFC 1035 section 4), or `None` if it has not exactly one question.
pub(crate) fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (head, mut rest) = query.split_at_checked(12)?;
    if head[4..6] != [0, 1] {
        return None;
    }
    let mut labels = Vec::new();
    loop {
        let (length, after) = rest.split_first()?;
        if *length == 0 {
            rest = after;
            break;
        }
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        rest = after;
    }
    let kind = rest.get(..4)?;
    let question = &query[12..query.len() - rest.len() + 4];
    let is_server = labels.join(".") == SERVER;
    let has_address = is_server && kind[..2] == [0, 1];
    // A response to a recursive query; 3 says that the name does not exist.
    let flags = [0x85, if is_server { 0x80 } else { 0x83 }];
    let mut answer = [&head[..2], &flags, &[0, 1, 0, u8::from(has_address), 0, 0, 0, 0]].concat();
    answer.extend(question);
    if has_address {
        // A pointer to the name in the question, type A, class IN, 60 seconds, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ADDRESS);
    }
    Some(answer)
}

/// The publisher's server.
pub(crate) struct Publisher(Child);

impl Publisher {
    /// Serves a directory, and returns when the server accepts connections.
    pub(crate) fn start(directory: &Path) -> Self {
        let child = Command::new("python3")
            .args(["-m", "http.server", "80", "--bind", "192.0.2.80", "--directory"])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.with_extension("log")).unwrap())
            .spawn();
        let publisher = Self(child.expect("python3 can be run"));
        let start = Instant::now();
        while TcpStream::connect((SERVER, 80)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "the server does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        publisher
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
