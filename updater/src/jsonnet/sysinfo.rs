//! Facts about the host, with the names that they have in Etcha (its documentation, "Config", `vars.sysinfo`).

use std::collections::BTreeSet;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use serde_json::{Value, json};

use super::natives::go_arch;
use crate::host::{Host, read_limited};

/// The limit on files of /proc.
const TEXT_MAX: u64 = 64 * 1024;

/// Returns the facts. What cannot be determined is an empty text. An immutable host has no package manager;
/// `interfaces` is missing.
pub(super) fn gather() -> Value {
    let host = Host::new("/");
    let os = |name: &str| host.os_release(name).ok().flatten().unwrap_or_default();
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let interface = default_interface(&read("/proc/net/route"));
    let addresses = addresses();
    json!({
        "containerEngine": container_engine(),
        "cpuLogical": std::thread::available_parallelism().map_or(1, usize::from),
        "defaultInterface": interface,
        "fqdn": name,
        "hostname": name.split('.').next().unwrap_or_default(),
        "ipv4": addresses.v4,
        "ipv6": addresses.v6,
        "kernelRelease": read("/proc/sys/kernel/osrelease").trim(),
        "kernelVersion": read("/proc/sys/kernel/version").trim(),
        "mac": read(&format!("/sys/class/net/{interface}/address")).trim(),
        "machine": std::env::consts::ARCH,
        "memoryTotal": memory_mib(&read("/proc/meminfo")),
        "osID": os("ID"),
        "osIDLike": os("ID_LIKE"),
        "osName": os("NAME"),
        "osType": "linux",
        "osVersion": os("VERSION"),
        "osVersionCodename": os("VERSION_CODENAME"),
        "osVersionID": os("VERSION_ID"),
        "packageManager": "",
        "runtimeArch": go_arch(),
    })
}

fn read(path: &str) -> String {
    let bytes = read_limited(Path::new(path), TEXT_MAX).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn container_engine() -> &'static str {
    let engines = ["docker", "podman"];
    let found = engines.iter().find(|name| Path::new("/usr/bin").join(name).exists());
    found.copied().unwrap_or_default()
}

/// Returns the interface of the route to everywhere in /proc/net/route: destination and mask are 0.
fn default_interface(routes: &str) -> String {
    let mut lines = routes.lines().skip(1).map(|line| line.split_ascii_whitespace());
    let found = lines.find_map(|mut words| {
        let interface = words.next()?;
        (words.next()? == "00000000" && words.nth(5)? == "00000000").then_some(interface)
    });
    // The name becomes part of a path.
    found.filter(|name| !name.contains(['/', '.'])).unwrap_or_default().to_owned()
}

/// Returns `MemTotal` of /proc/meminfo in MiB.
fn memory_mib(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Addresses with the lengths of their prefixes, as in `192.0.2.1/24`.
#[derive(Default)]
struct Addresses {
    v4: BTreeSet<String>,
    v6: BTreeSet<String>,
}

fn addresses() -> Addresses {
    let mut found = Addresses::default();
    let Ok(all) = getifaddrs() else { return found };
    for interface in all {
        let (Some(address), Some(mask)) = (interface.address, interface.netmask) else { continue };
        if let (Some(address), Some(mask)) = (address.as_sockaddr_in(), mask.as_sockaddr_in()) {
            let length = u32::from(mask.ip()).count_ones();
            found.v4.insert(format!("{}/{length}", address.ip()));
        } else if let (Some(address), Some(mask)) =
            (address.as_sockaddr_in6(), mask.as_sockaddr_in6())
        {
            let length = u128::from(mask.ip()).count_ones();
            found.v6.insert(format!("{}/{length}", address.ip()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_facts_of_this_machine() {
        let facts = gather();
        assert_eq!(facts["osType"], "linux");
        for name in ["hostname", "kernelRelease", "kernelVersion", "machine", "runtimeArch"] {
            assert!(facts[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {facts}");
        }
        assert!(
            facts["memoryTotal"].as_u64().unwrap() > 100
                && facts["cpuLogical"].as_u64().unwrap() > 0
        );
        assert_eq!(facts.as_object().unwrap().len(), 21);
    }

    #[test]
    fn reads_tables_of_the_kernel() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
            eth1\t000A000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n\
            eth0\t00000000\t0101000A\t0003\t0\t0\t0\t00000000\t0\n";
        assert_eq!(default_interface(routes), "eth0");
        assert_eq!(default_interface(""), "");
        assert_eq!(default_interface("x\n../x 00000000 0 0 0 0 0 00000000 0\n"), "");
        assert_eq!(memory_mib("MemTotal:        2048000 kB\nMemFree: 1 kB\n"), 2000);
        assert_eq!(memory_mib("MemTotal: x"), 0);
    }
}
