//! The description of a machine and its translation to a QEMU command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::accel::Accel;
use crate::firmware::Firmware;

// Names in the VM's directory, which is QEMU's working directory. They are relative because a
// socket's path is limited to 108 bytes (unix(7)), which an absolute path may exceed.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
pub(crate) const TPM_SOCKET: &str = "tpm.sock";
pub(crate) const TPM_STATE: &str = "tpm";
/// The path of the boot disk in QEMU's object tree: the back end of the PCI device `boot-disk`.
pub(crate) const BOOT_DISK: &str = "/machine/peripheral/boot-disk/virtio-backend";
pub(crate) const VARIABLES: &str = "variables.fd";

/// The options of a raw disk, up to its path.
const RAW_DISK: &[u8] = b"driver=raw,node-name=disk,discard=unmap,file.driver=file,file.filename=";

/// The software that a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Boot {
    /// A raw disk image, which the machine can write.
    Disk(PathBuf),
    /// A raw disk image, with a log of all writes to it; see [`crate::replay`].
    Recorded {
        /// The image.
        disk: PathBuf,
        /// The log, which must be an existing, empty file.
        log: PathBuf,
    },
    /// The network: UEFI PXE from a TFTP server that QEMU runs.
    Network {
        /// The root of the server.
        directory: PathBuf,
        /// The name of the boot loader there.
        loader: String,
    },
    /// A kernel without a boot loader and without a root file system. The machine ends when the kernel
    /// panics.
    Kernel(PathBuf),
    /// Nothing. Only the firmware runs.
    Nothing,
}

/// A machine that can be started.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// The name in the file names of logs, such as `uefi`.
    pub name: String,
    /// The software that it boots.
    pub boot: Boot,
    /// The firmware.
    pub firmware: Firmware,
    /// The accelerator.
    pub accel: Accel,
    /// Memory in MiB.
    pub memory: u32,
    /// The number of virtual processors.
    pub cpus: u32,
    /// Whether it has a TPM 2.0.
    pub tpm: bool,
    /// The updater's configuration in JSON, which the guest reads from SMBIOS.
    pub config: Option<String>,
    /// A TCP port of the guest that is forwarded from a loopback port of the host.
    pub forward: Option<u16>,
}

impl Machine {
    /// Returns QEMU's arguments.
    ///
    /// The serial console is logged to `console` and the firmware's debug port to `debug_log`. The
    /// firmware's variables, the sockets and the TPM's state are in the working directory.
    pub(crate) fn arguments(&self, console: &Path, debug_log: &Path) -> Vec<OsString> {
        let mut line = CommandLine::default();
        // Without default devices, a new version of QEMU cannot change the machine.
        line.arguments(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "std"]);
        line.option("-name", [format!("etchaos-testbed-{}", self.name)]);
        line.option("-m", [self.memory.to_string()]);
        line.option("-smp", [self.cpus.to_string()]);
        self.processor(&mut line);
        self.flash(&mut line);
        line.file_device("console", console);
        line.arguments(["-serial", "chardev:console"]);
        // SeaBIOS logs to this port only.
        line.file_device("debug", debug_log);
        line.arguments(["-device", "isa-debugcon,iobase=0x402,chardev=debug"]);
        line.arguments(["-device", "virtio-rng-pci"]);
        line.option("-qmp", [format!("unix:{QMP_SOCKET}"), "server=on".into(), "wait=off".into()]);
        self.disk(&mut line);
        self.network(&mut line);
        if self.tpm {
            line.arguments(["-chardev", &format!("socket,id=tpm,path={TPM_SOCKET}")]);
            line.arguments(["-tpmdev", "emulator,id=tpm0,chardev=tpm"]);
            line.arguments(["-device", "tpm-crb,tpmdev=tpm0"]);
        }
        if let Some(config) = &self.config {
            line.option("-smbios", ["type=11".into(), format!("value=etchaos={config}")]);
        }
        line.0
    }

    fn processor(&self, line: &mut CommandLine) {
        match self.accel {
            Accel::Kvm => line.arguments(["-accel", "kvm", "-cpu", "host"]),
            Accel::Tcg => line.arguments(["-accel", "tcg,thread=multi", "-cpu", "max"]),
        }
    }

    fn flash(&self, line: &mut CommandLine) {
        let flash = self.firmware.flash(self.accel);
        let smm = flash.as_ref().is_some_and(|flash| flash.smm);
        line.arguments(["-machine", if smm { "q35,smm=on" } else { "q35,smm=off" }]);
        let Some(flash) = flash else { return };
        if flash.smm {
            line.arguments(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        }
        let unit = |unit: &str| ["if=pflash", "format=raw", unit].map(str::to_owned);
        let code = ["readonly=on".into(), format!("file={}", flash.code)];
        line.option("-drive", unit("unit=0").into_iter().chain(code));
        line.option("-drive", unit("unit=1").into_iter().chain([format!("file={VARIABLES}")]));
    }

    fn disk(&self, line: &mut CommandLine) {
        match &self.boot {
            Boot::Disk(disk) => {
                line.raw("-blockdev", &[RAW_DISK, &quoted(disk.as_os_str())]);
                line.arguments(["-device", "virtio-blk-pci,drive=disk,id=boot-disk,bootindex=0"]);
            }
            Boot::Recorded { disk, log } => {
                // The log driver records flushes before they reach these files, so the host need not
                // flush the files.
                line.raw(
                    "-blockdev",
                    &[
                        b"driver=blklogwrites,node-name=disk,discard=unmap,log-sector-size=512,",
                        b"log.driver=file,log.cache.no-flush=on,log.filename=",
                        &quoted(log.as_os_str()),
                        b",file.driver=raw,file.discard=unmap,file.file.driver=file,",
                        b"file.file.cache.no-flush=on,file.file.filename=",
                        &quoted(disk.as_os_str()),
                    ],
                );
                // Without request-merging=off, QEMU merges adjacent writes into one of up to 1024
                // buffers (IOV_MAX). The log driver adds two, and then the write fails. The log also
                // has to show the guest's own requests.
                let device =
                    "virtio-blk-pci,drive=disk,id=boot-disk,bootindex=0,request-merging=off";
                line.arguments(["-device", device]);
            }
            Boot::Kernel(kernel) => {
                // The kernel panics without a root file system and reboots, which ends QEMU.
                line.arguments([
                    "-no-reboot",
                    "-append",
                    "console=ttyS0,115200 panic=-1",
                    "-kernel",
                ]);
                line.0.push(kernel.into());
            }
            Boot::Network { .. } | Boot::Nothing => {}
        }
    }

    fn network(&self, line: &mut CommandLine) {
        let Some(port) = self.forward else { return };
        // For port 0, the system chooses a free port, which QMP reports.
        let net = format!("user,id=net,hostfwd=tcp:127.0.0.1:0-:{port}");
        // The firmware has its own driver. An empty ROM disables that of iPXE, with which shim cannot load
        // GRUB, and without a boot index network boot is disabled: it would delay the report of an
        // unbootable disk by minutes.
        let device = "virtio-net-pci,netdev=net,romfile=";
        if let Boot::Network { directory, loader } = &self.boot {
            let (directory, loader) = (quoted(directory.as_os_str()), quoted(loader.as_ref()));
            let pieces = [net.as_bytes(), b",tftp=", &directory, b",bootfile=", &loader];
            line.raw("-netdev", &pieces);
            line.arguments(["-device", &format!("{device},bootindex=0")]);
        } else {
            line.arguments(["-netdev", &net, "-device", device]);
        }
    }
}

/// A command line under construction.
#[derive(Default)]
struct CommandLine(Vec<OsString>);

impl CommandLine {
    fn arguments<const N: usize>(&mut self, arguments: [&str; N]) {
        self.0.extend(arguments.map(OsString::from));
    }

    /// Appends `name part,part`. Commas within a part are doubled, which is QEMU's quoting.
    fn option(&mut self, name: &str, parts: impl IntoIterator<Item = String>) {
        let quoted: Vec<Vec<u8>> = parts.into_iter().map(|part| quoted(part.as_ref())).collect();
        self.raw(name, &[&quoted.join(&b',')]);
    }

    fn raw(&mut self, name: &str, pieces: &[&[u8]]) {
        self.0.extend([name.into(), OsString::from_vec(pieces.concat())]);
    }

    fn file_device(&mut self, id: &str, path: &Path) {
        let head = format!("file,id={id},path=");
        self.raw("-chardev", &[head.as_bytes(), &quoted(path.as_os_str())]);
    }
}

fn quoted(text: &OsStr) -> Vec<u8> {
    let bytes = text.as_bytes().iter();
    bytes.flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            name: "uefi".into(),
            boot: Boot::Disk("/work, of one/disk.raw".into()),
            firmware: Firmware::UefiSecureboot,
            accel: Accel::Tcg,
            memory: 2048,
            cpus: 2,
            tpm: true,
            config: None,
            forward: Some(4000),
        }
    }

    fn arguments(machine: &Machine) -> String {
        let arguments = machine.arguments("/logs/a,b.log".as_ref(), "/logs/debug.log".as_ref());
        arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn assert_has(line: &str, parts: &[&str]) {
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
    }

    #[test]
    fn uses_smm_for_secure_boot_under_tcg() {
        assert_has(
            &arguments(&machine()),
            &[
                "-machine q35,smm=on",
                "-accel tcg,thread=multi -cpu max",
                "-global driver=cfi.pflash01,property=secure,value=on",
                "unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
                "unit=1,file=variables.fd",
                "-device tpm-crb,tpmdev=tpm0",
                "hostfwd=tcp:127.0.0.1:0-:4000",
                "-m 2048 -smp 2",
            ],
        );
    }

    #[test]
    fn uses_no_smm_for_secure_boot_under_kvm() {
        let line = arguments(&Machine { accel: Accel::Kvm, ..machine() });
        assert_has(&line, &["q35,smm=off", "-accel kvm -cpu host", "/OVMF_CODE_4M.fd"]);
        assert!(!line.contains("property=secure"), "{line}");
    }

    #[test]
    fn adds_no_flash_for_bios_and_no_optional_devices() {
        let plain = Machine { firmware: Firmware::Bios, tpm: false, forward: None, ..machine() };
        let line = arguments(&plain);
        for part in ["pflash", "tpm", "netdev", "smbios"] {
            assert!(!line.contains(part), "{part:?} is in {line}");
        }
    }

    #[test]
    fn doubles_commas_in_paths_and_config() {
        let config = Some(r#"{"cdn":"http://10.0.2.2:1","reboot":"now"}"#.to_owned());
        let line = arguments(&Machine { config, ..machine() });
        assert_has(
            &line,
            &[
                "file.filename=/work,, of one/disk.raw",
                "path=/logs/a,,b.log",
                r#"-smbios type=11,value=etchaos={"cdn":"http://10.0.2.2:1",,"reboot":"now"}"#,
            ],
        );
    }

    #[test]
    fn places_write_log_above_recorded_disk() {
        let boot = Boot::Recorded { disk: "/d,1".into(), log: "/l,1".into() };
        let line = arguments(&Machine { boot, ..machine() });
        assert_has(
            &line,
            &[
                "driver=blklogwrites,node-name=disk,discard=unmap,log-sector-size=512,",
                "log.filename=/l,,1,",
                "file.file.filename=/d,,1 ",
                "id=boot-disk,bootindex=0,request-merging=off",
            ],
        );
    }

    #[test]
    fn boots_from_tftp_without_a_disk() {
        let boot = Boot::Network { directory: "/t,1".into(), loader: "x.efi".into() };
        let line = arguments(&Machine { boot, ..machine() });
        assert_has(
            &line,
            &[
                "hostfwd=tcp:127.0.0.1:0-:4000,tftp=/t,,1,bootfile=x.efi ",
                "virtio-net-pci,netdev=net,romfile=,bootindex=0",
            ],
        );
        assert!(!line.contains("virtio-blk"), "{line}");
    }

    #[test]
    fn ends_qemu_when_kernel_panics() {
        let line = arguments(&Machine { boot: Boot::Kernel("/k,1".into()), ..machine() });
        assert_has(&line, &["-no-reboot -append console=ttyS0,115200 panic=-1 -kernel /k,1"]);
    }
}
