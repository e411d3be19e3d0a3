//! What the build host must have: programs of Debian packages, and root.

use std::fmt::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use testbed::host::is_there;

/// A program that was searched for and not found, and the Debian package that has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// The program or file.
    pub what: String,
    /// The package.
    pub package: String,
}

/// Programs that the builder itself starts.
const TOOLS: [(&str, &str); 4] =
    [("tar", "tar"), ("setpriv", "util-linux"), ("unshare", "util-linux"), ("cc", "gcc")];

/// What is missing of the builder's, the testbed's and the variant's needs.
pub fn missing(bootstrap: &str, packages: &[String]) -> Vec<Missing> {
    let mut missing: Vec<Missing> = TOOLS
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(program, package)| Missing { what: (*program).into(), package: (*package).into() })
        .collect();
    if !is_there(bootstrap) {
        let all = packages.iter();
        missing.extend(all.map(|p| Missing { what: bootstrap.into(), package: p.clone() }));
    }
    let testbed = testbed::host::missing();
    let needs = testbed.into_iter();
    missing.extend(needs.map(|need| Missing { what: need.what, package: need.package.into() }));
    missing.sort();
    missing
}

/// Checks that this is root.
pub fn check_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "building needs root, to bootstrap a distribution and to start containers; run it with sudo"
    );
    Ok(())
}

/// Checks that nothing is missing; with `setup`, installs what is.
pub fn prepare(missing: &[Missing], setup: bool) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|m| m.package.as_str()).collect();
    packages.sort_unstable();
    packages.dedup();
    let command = format!("apt-get install --yes --no-install-recommends {}", packages.join(" "));
    if !setup {
        let mut list = String::new();
        for Missing { what, package } in missing {
            let _ = writeln!(list, "    {what} (package {package})");
        }
        bail!("the build host lacks:\n{list}  add --setup, or run: {command}");
    }
    eprintln!("setup: installing {}", packages.join(" "));
    for command in ["apt-get update --quiet", &command] {
        eprintln!("setup: {command}");
        let mut words = command.split(' ');
        let status = Command::new(words.next().unwrap_or_default())
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            // What apt says belongs to the progress, not to the result.
            .stdout(std::io::stderr())
            .status()
            .with_context(|| format!("starting {command}"))?;
        ensure!(status.success(), "{command} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_bootstrap_program_names_all_its_packages() {
        let packages = ["tool".to_owned(), "tool-keyring".to_owned()];
        let found = missing("no-such-bootstrap-program", &packages);
        for package in packages {
            assert!(found.iter().any(|m| m.package == package), "{found:?}");
        }
        assert!(!missing("sh", &[]).iter().any(|m| m.what == "sh"));
    }
}
