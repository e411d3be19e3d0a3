//! The description of a machine and its translation to a QEMU command line.

mod command_line;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use protocol::Arch;

use self::command_line::{CommandLine, quoted};
use crate::accel::Accel;
use crate::firmware::Firmware;
use crate::platform::platform;
use crate::sector_size::SectorSize;

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
/// The same for a disk that is not booted.
const RAW_COPY: &[u8] = b"driver=raw,node-name=copy,discard=unmap,file.driver=file,file.filename=";

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
    /// One of two raw disk images, which the machine can write. The guest sees them in this order.
    Copies {
        /// The images.
        disks: [PathBuf; 2],
        /// The index of the one to boot.
        booted: usize,
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
    /// The architecture.
    pub arch: Arch,
    /// The software that it boots.
    pub boot: Boot,
    /// The sectors of its disks.
    pub sector_size: SectorSize,
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
    /// Returns the QEMU program that runs the machine.
    pub(crate) fn program(&self) -> &'static str {
        platform(self.arch).qemu
    }

    /// Returns QEMU's arguments.
    ///
    /// The serial console is logged to `console` and the firmware's debug port to `debug_log`. The
    /// firmware's variables, the sockets and the TPM's state are in the working directory.
    pub(crate) fn arguments(&self, console: &Path, debug_log: &Path) -> Vec<OsString> {
        let mut line = CommandLine::default();
        // Without default devices, a new version of QEMU cannot change the machine.
        line.arguments(["-nodefaults", "-no-user-config", "-display", "none"]);
        line.option("-name", [format!("etchaos-testbed-{}", self.name)]);
        line.option("-m", [self.memory.to_string()]);
        line.option("-smp", [self.cpus.to_string()]);
        self.processor(&mut line);
        self.flash(&mut line);
        line.file_device("console", console);
        line.arguments(["-serial", "chardev:console"]);
        if self.arch == Arch::Amd64 {
            line.arguments(["-vga", "std"]);
            // SeaBIOS logs to this port only. The firmware for arm64 logs to the serial console.
            line.file_device("debug", debug_log);
            line.arguments(["-device", "isa-debugcon,iobase=0x402,chardev=debug"]);
        }
        line.arguments(["-device", "virtio-rng-pci"]);
        line.option("-qmp", [format!("unix:{QMP_SOCKET}"), "server=on".into(), "wait=off".into()]);
        self.disk(&mut line);
        self.network(&mut line);
        if self.tpm {
            line.arguments(["-chardev", &format!("socket,id=tpm,path={TPM_SOCKET}")]);
            line.arguments(["-tpmdev", "emulator,id=tpm0,chardev=tpm"]);
            line.arguments(["-device", &format!("{},tpmdev=tpm0", platform(self.arch).tpm)]);
        }
        if let Some(config) = &self.config {
            line.option("-smbios", ["type=11".into(), format!("value=etchaos={config}")]);
        }
        line.into_arguments()
    }

    fn processor(&self, line: &mut CommandLine) {
        match (self.accel, self.arch) {
            (Accel::Kvm, _) => line.arguments(["-accel", "kvm", "-cpu", "host"]),
            (Accel::Tcg, Arch::Amd64) => {
                line.arguments(["-accel", "tcg,thread=multi", "-cpu", "max"]);
            }
            // QEMU's documentation recommends the option, because the emulation of the architected
            // algorithm of pointer authentication is slow.
            (Accel::Tcg, Arch::Arm64) => {
                line.arguments(["-accel", "tcg,thread=multi", "-cpu", "max,pauth-impdef=on"]);
            }
        }
    }

    fn flash(&self, line: &mut CommandLine) {
        let flash = self.firmware.flash(self.arch, self.accel);
        let smm = flash.as_ref().is_some_and(|flash| flash.smm);
        let machine = match self.arch {
            Arch::Amd64 if smm => "q35,smm=on",
            Arch::Amd64 => "q35,smm=off",
            // The default is version 2 of the interrupt controller, which many hosts cannot virtualize.
            Arch::Arm64 => "virt,gic-version=max",
        };
        line.arguments(["-machine", machine]);
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
        let sectors = self.sector_size.device_options();
        match &self.boot {
            Boot::Disk(disk) => {
                line.raw("-blockdev", &[RAW_DISK, &quoted(disk.as_os_str())]);
                let device = "virtio-blk-pci,drive=disk,id=boot-disk,bootindex=0";
                line.arguments(["-device", &format!("{device}{sectors}")]);
            }
            Boot::Copies { disks, booted } => {
                for (index, disk) in disks.iter().enumerate() {
                    let (options, device) = match index == *booted {
                        true => (RAW_DISK, "drive=disk,id=boot-disk,bootindex=0"),
                        false => (RAW_COPY, "drive=copy"),
                    };
                    line.raw("-blockdev", &[options, &quoted(disk.as_os_str())]);
                    line.arguments(["-device", &format!("virtio-blk-pci,{device}{sectors}")]);
                }
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
                line.arguments(["-device", &format!("{device}{sectors}")]);
            }
            Boot::Kernel(kernel) => {
                // The kernel panics without a root file system and reboots, which ends QEMU.
                let append = format!("console={},115200 panic=-1", platform(self.arch).serial);
                line.arguments(["-no-reboot", "-append", &append, "-kernel"]);
                line.path(kernel);
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

#[cfg(test)]
mod tests;
