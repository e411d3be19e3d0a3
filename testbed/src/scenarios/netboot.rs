//! Network boot of a release, by UEFI PXE and by UEFI HTTP boot.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use protocol::Arch;
use protocol::release::document;

use super::interface::{Passed, Scenario};
use crate::actions;
use crate::args::ScenarioArgs;
use crate::artifacts::{self, Artifacts};
use crate::cdn::{self, Cdn, Served};
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::machine::Boot;
use crate::platform::platform;
use crate::report::Step;
use crate::scenario::{Outcome, ScenarioError, Steps};

const UNPACK: Step = Step::new("unpack", "unpack the archive for network boot");
const BOOT_PXE: Step = Step::new("boot-pxe", "boot by UEFI PXE");
const VALIDATE_PXE: Step = Step::new("validate-pxe", "validate the guest");
const BOOT_HTTP: Step = Step::new("boot-http", "boot by UEFI HTTP");
const VALIDATE_HTTP: Step = Step::new("validate-http", "validate the guest again");

/// The file in which an operator sets kernel arguments.
const SETTINGS: &str = "etchaos/netboot.cfg";

/// Boot a release from the network
///
/// Unpacks the archive for network boot, boots it under UEFI Secure Boot without a disk from QEMU's
/// TFTP server and then from an HTTP server, and checks the guest from inside. The configuration of
/// the guest comes from the server. If the manifest says that Secure Boot would refuse the boot loader,
/// Secure Boot is disabled.
#[derive(Debug, Args)]
pub(crate) struct Netboot {
    /// Options of every scenario
    #[command(flatten)]
    common: ScenarioArgs,
}

impl Scenario for Netboot {
    type Findings = Passed;

    fn common(&self) -> &ScenarioArgs {
        &self.common
    }

    fn play(&self, artifacts: &Artifacts, steps: &mut Steps<'_>) -> Result<Passed, ScenarioError> {
        let environment = TestEnvironment::prepare(artifacts, &[], steps)?;
        let server = steps.run(UNPACK, || Server::unpack(&environment, artifacts))?;
        let (mut guest, boot) = steps.run(BOOT_PXE, || server.boot_by_pxe(&environment))?;
        steps.run(VALIDATE_PXE, || validate(&mut guest, &environment, artifacts))?;
        steps.run(BOOT_HTTP, || server.boot_by_http(&mut guest, &boot))?;
        steps.run(VALIDATE_HTTP, || validate(&mut guest, &environment, artifacts))?;
        steps.power_off(guest)?;
        Ok(Passed)
    }
}

/// A server for network boot.
struct Server {
    /// The files of the archive, and the settings.
    directory: PathBuf,
    /// The boot loader that the firmware starts.
    loader: String,
    http: Cdn,
    firmware: Firmware,
}

impl Server {
    fn unpack(environment: &TestEnvironment<'_>, artifacts: &Artifacts) -> Outcome<Self> {
        let options = environment.options;
        let archive =
            artifacts::document(&options.artifacts, &artifacts.release, document::NETWORK_BOOT)?;
        let directory = environment.work.path().join("server");
        let names = unpack(&archive, &directory).map_err(file("unpack", &archive))?;
        let settings = directory.join(SETTINGS);
        let config = STANDARD.encode(environment.guest_config());
        fs::write(&settings, format!("set arguments=\"etchaos.config={config}\"\n"))
            .map_err(file("write", &settings))?;
        let arch = options.target.arch;
        let http = Cdn::start(&served(&directory, &names, arch)).map_err(ScenarioError::Cdn)?;
        let loader = format!("boot{}.efi", platform(arch).efi);
        let firmware = Firmware::uefi(&artifacts.release);
        Ok((Self { directory, loader, http, firmware }, format!("{} files", names.len())))
    }

    fn boot_by_pxe<'a>(
        &self,
        environment: &'a TestEnvironment<'a>,
    ) -> Outcome<(Guest<'a>, String)> {
        let (directory, loader) = (self.directory.clone(), self.loader.clone());
        let boot = Boot::Network { directory, loader };
        let started = environment.start("netboot", self.firmware, boot, None)?;
        Ok((started, "TFTP server of QEMU".to_owned()))
    }

    /// Reboots the guest into a boot option that it sets itself: QEMU's DHCP server cannot offer a URL.
    fn boot_by_http(&self, guest: &mut Guest<'_>, before: &str) -> Outcome<()> {
        let url = format!("http://10.0.2.2:{}/{}", self.http.address().port(), self.loader);
        guest.push_last("rebooting for HTTP boot", actions::boot_url(&url))?;
        let booted = guest.wait_for_boot(before);
        let accesses = self.http.accesses();
        // The firmware and GRUB may print nothing, so the requests show how far the boot got.
        booted.map_err(|source| ScenarioError::HttpBoot {
            requests: cdn::list(&accesses),
            source: source.into(),
        })?;
        let is_initrd = |path: &str| path.ends_with("/initrd");
        let loaded = accesses.iter().find(|access| {
            access.method == "GET" && access.status == 200 && is_initrd(&access.path)
        });
        let Some(loaded) = loaded else {
            return Err(ScenarioError::NotBootedByHttp(cdn::list(&accesses)));
        };
        Ok(((), format!("{} MiB initrd", loaded.length.unwrap_or_default() >> 20)))
    }
}

/// Unpacks an archive to a new directory and returns the names of its files.
fn unpack(archive: &Path, directory: &Path) -> io::Result<Vec<String>> {
    fs::create_dir(directory)?;
    tar::Archive::new(File::open(archive)?).unpack(directory)?;
    let mut names = Vec::new();
    for entry in tar::Archive::new(File::open(archive)?).entries()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            names.push(entry.path()?.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Returns the files of the archive, and the settings, for the HTTP server.
fn served(directory: &Path, names: &[String], arch: Arch) -> Vec<Served> {
    let all = names.iter().map(String::as_str).chain([SETTINGS]);
    let mut served: Vec<Served> =
        all.map(|name| Served { path: name.into(), file: directory.join(name) }).collect();
    // shim requests GRUB with two slashes, which other servers treat as one.
    let grub = format!("grub{}.efi", platform(arch).efi);
    served.push(Served { path: format!("/{grub}"), file: directory.join(grub) });
    served
}

fn validate(
    guest: &mut Guest<'_>,
    environment: &TestEnvironment<'_>,
    artifacts: &Artifacts,
) -> Outcome<()> {
    let release = &artifacts.release;
    environment.validate(guest, release, None, Firmware::uefi(release))
}

/// Returns a function that adds the operation and the path to an I/O error.
fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ScenarioError {
    let path = path.to_owned();
    move |source| ScenarioError::File { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_grub_of_the_architecture_at_the_path_that_shim_requests() {
        for (arch, grub) in [(Arch::Amd64, "grubx64.efi"), (Arch::Arm64, "grubaa64.efi")] {
            let served = served(Path::new("/server"), &["etchaos/1/initrd".into()], arch);
            let paths: Vec<&str> = served.iter().map(|served| served.path.as_str()).collect();
            assert_eq!(paths, ["etchaos/1/initrd", SETTINGS, &format!("/{grub}")]);
            assert_eq!(served[2].file, Path::new("/server").join(grub));
        }
    }
}
