//! The environment of this process and of the programs that it starts.
//!
//! The result of a build must not depend on the environment of the build host. The programs therefore
//! get an environment from a list of names, instead of all variables but some: nobody knows all names
//! that compilers, shells and package managers read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use nix::sys::stat::{Mode, umask};

use crate::proxy::Proxies;

/// The variables of the caller that programs get. They say where programs and caches are and how to
/// reach the network, and do not change what a compiler writes.
const PASSED: [&str; 9] = [
    "PATH",
    "HOME",
    "TERM",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_DIST_SERVER",
    "RUSTUP_UPDATE_ROOT",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];

/// The prefixes of further variables that programs get: network settings and registries of cargo.
const PASSED_PREFIXES: [&str; 4] =
    ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_"];

/// The variables that are the same for all programs.
const FIXED: [(&str, &str); 2] = [("LC_ALL", "C.UTF-8"), ("TZ", "UTC")];

/// Sets the umask of this process and of all programs that it starts.
///
/// Files of the image get modes of their own, but a program of the build may forget one. Files with
/// secrets get the mode 0600 when they are created.
pub fn fix_umask() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
}

/// Returns the environment of a program that runs on the build host.
pub(crate) fn of_tools() -> BTreeMap<OsString, OsString> {
    select(std::env::vars_os(), &Proxies::from_environment().unwrap_or_default())
}

fn select(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    proxies: &Proxies,
) -> BTreeMap<OsString, OsString> {
    let mut selected: BTreeMap<OsString, OsString> =
        variables.into_iter().filter(|(name, _)| is_passed(name)).collect();
    let pair = |(name, value): (&str, &str)| (OsString::from(name), OsString::from(value));
    selected.extend(FIXED.map(pair));
    selected.extend(proxies.variables().into_iter().map(|(name, value)| pair((name, &value))));
    selected
}

fn is_passed(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_only_listed_variables() {
        let given = [
            ("PATH", "/bin"),
            ("HOME", "/home/me"),
            ("CARGO_NET_OFFLINE", "true"),
            ("LC_ALL", "tr_TR.UTF-8"),
            ("TZ", "Asia/Kolkata"),
            ("RUSTFLAGS", "-g"),
            ("CARGO_PROFILE_IMAGE_LTO", "false"),
            ("CARGO_BUILD_TARGET", "wasm32-unknown-unknown"),
            ("RUSTUP_TOOLCHAIN", "nightly"),
            ("CFLAGS_x86_64_unknown_linux_gnu", "-O0"),
            ("SOURCE_DATE_EPOCH", "1"),
            ("LD_PRELOAD", "x.so"),
            ("TMPDIR", "/nowhere"),
            ("ETCHAOS_SIGNING_KEY", "secret"),
        ];
        let given = given.map(|(name, value)| (name.into(), value.into()));
        let selected = select(given, &Proxies::default());
        let selected: Vec<String> = selected
            .iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        assert_eq!(
            selected,
            ["CARGO_NET_OFFLINE=true", "HOME=/home/me", "LC_ALL=C.UTF-8", "PATH=/bin", "TZ=UTC"]
        );
    }
}
