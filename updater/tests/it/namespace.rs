//! Network namespaces of a test's own, in which packets to some addresses are lost, and names are those that the
//! test chose.

use std::fs;
use std::process::{Command, Output};

/// Set in the namespace.
const CHILD: &str = "ETCHAOS_TEST_NAMESPACE";

/// Brings up the loopback interface, which is the only interface of a new namespace.
pub(crate) const LOOPBACK: &str = "ip link set lo up";
/// Brings up the loopback interface, and adds a pair of virtual interfaces that drops all packets. Without
/// "arp off", the kernel would report that no neighbor answers. The addresses are reserved for documentation
/// (RFC 5737, RFC 3849). `$1` is a directory with the files for /etc.
pub(crate) const LOST_PACKETS: &str = "
    ip link set lo up
    ip link add dead type veth peer name drop
    ip link set drop up
    ip link set dead arp off up
    ip -6 addr add 2001:db8:1::1/64 dev dead nodad
    ip -6 route add 2001:db8::/32 dev dead
    ip addr add 192.0.2.1/32 dev dead
    ip route add 198.51.100.0/24 dev dead
    for name in hosts resolv.conf nsswitch.conf; do
        mount --bind \"$1/$name\" \"/etc/$name\" || exit 99
    done";
/// Ends the preparation and runs the test.
const RUN: &str = "
    shift
    exec \"$@\"";

/// Runs a test in namespaces of its own that `setup` prepares. [`LOST_PACKETS`] gives them these lines of
/// /etc/hosts, and a name server at 127.0.0.1. Returns whether this is the parent, for which nothing is left to
/// do. `test` is the path of the test in this program.
pub(crate) fn is_done_in_namespace(test: &str, setup: &str, hosts: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("hosts", &format!("127.0.0.1 localhost\n::1 localhost\n{hosts}"));
    write("resolv.conf", "nameserver 127.0.0.1\n");
    write("nsswitch.conf", "hosts: files dns\n");
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--mount", "--kill-child", "--fork"]);
    command.args(["sh", "-ec", &format!("{setup}{RUN}"), "sh"]).arg(directory.path());
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "1");
    let Output { status, stdout, stderr } = command.output().expect("unshare can be run");
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    if text.contains("running 1 test") {
        assert!(status.success() && text.contains("1 passed"), "{text}");
        print!("{text}");
    } else {
        assert!(std::env::var("CI").is_err(), "this test needs namespaces: {text}");
        eprintln!("SKIPPED: no network namespace can be made here: {text}");
    }
    true
}
