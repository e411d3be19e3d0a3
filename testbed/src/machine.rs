//! A machine as data, and the QEMU command line that makes it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::accel::Accel;
use crate::firmware::Firmware;

// Names within the VM's directory, which is QEMU's working directory: a socket's path has 108 bytes at
// most (unix(7)), so absolute ones could be too long.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
pub(crate) const TPM_SOCKET: &str = "tpm.sock";
pub(crate) const TPM_STATE: &str = "tpm";
/// Where QEMU has the disk that is booted: behind the PCI device with the id `boot-disk`.
pub(crate) const BOOT_DISK: &str = "/machine/peripheral/boot-disk/virtio-backend";
pub(crate) const VARIABLES: &str = "variables.fd";

/// The options of a raw disk, up to its path.
const RAW_DISK: &[u8] = b"driver=raw,node-name=disk,discard=unmap,file.driver=file,file.filename=";

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// This raw disk image, which it may write.
    Disk(PathBuf),
    /// This raw disk image, and every write to it is logged in this file, which must be there and
    /// empty; see [`crate::replay`].
    Recorded {
        /// The image.
        disk: PathBuf,
        /// The log.
        log: PathBuf,
    },
    /// This kernel alone, past all boot loaders, and once: it panics without a root.
    Kernel(PathBuf),
    /// Nothing: the firmware is all that runs.
    Nothing,
}

/// A machine to be started.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its name in file names of logs: `uefi`.
    pub name: String,
    /// What it boots.
    pub boot: Boot,
    /// What boots it.
    pub firmware: Firmware,
    /// What runs it.
    pub accel: Accel,
    /// Memory in MiB.
    pub memory: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Whether it has a TPM 2.0.
    pub tpm: bool,
    /// Configuration for the updater, JSON. The guest finds it in SMBIOS.
    pub config: Option<String>,
    /// A TCP port of the guest that is reachable at a port of our loopback.
    pub forward: Option<u16>,
}

impl Machine {
    /// QEMU's arguments. The firmware's variables, the sockets and the TPM's state are in the
    /// working directory.
    pub fn arguments(&self, console: &Path, debug_log: &Path) -> Vec<OsString> {
        let mut line = Line::default();
        // Nothing is there that is not named here, so that QEMU's defaults cannot change a test.
        line.words(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "std"]);
        line.option("-name", [format!("etchaos-testbed-{}", self.name)]);
        line.option("-m", [self.memory.to_string()]);
        line.option("-smp", [self.cpus.to_string()]);
        self.processor(&mut line);
        self.flash(&mut line);
        line.file_device("console", console);
        line.words(["-serial", "chardev:console"]);
        // SeaBIOS tells its story here alone.
        line.file_device("debug", debug_log);
        line.words(["-device", "isa-debugcon,iobase=0x402,chardev=debug"]);
        line.words(["-device", "virtio-rng-pci"]);
        line.option("-qmp", [format!("unix:{QMP_SOCKET}"), "server=on".into(), "wait=off".into()]);
        self.medium(&mut line);
        self.network(&mut line);
        if self.tpm {
            line.words(["-chardev", &format!("socket,id=tpm,path={TPM_SOCKET}")]);
            line.words(["-tpmdev", "emulator,id=tpm0,chardev=tpm"]);
            line.words(["-device", "tpm-crb,tpmdev=tpm0"]);
        }
        if let Some(config) = &self.config {
            line.option("-smbios", ["type=11".into(), format!("value=etchaos={config}")]);
        }
        line.0
    }

    fn processor(&self, line: &mut Line) {
        match self.accel {
            Accel::Kvm => line.words(["-accel", "kvm", "-cpu", "host"]),
            Accel::Tcg => line.words(["-accel", "tcg,thread=multi", "-cpu", "max"]),
        }
    }

    fn flash(&self, line: &mut Line) {
        let flash = self.firmware.flash(self.accel);
        let smm = flash.as_ref().is_some_and(|flash| flash.smm);
        line.words(["-machine", if smm { "q35,smm=on" } else { "q35,smm=off" }]);
        let Some(flash) = flash else { return };
        if flash.smm {
            line.words(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        }
        let unit = |unit: &str| ["if=pflash", "format=raw", unit].map(str::to_owned);
        let code = ["readonly=on".into(), format!("file={}", flash.code)];
        line.option("-drive", unit("unit=0").into_iter().chain(code));
        line.option("-drive", unit("unit=1").into_iter().chain([format!("file={VARIABLES}")]));
    }

    fn medium(&self, line: &mut Line) {
        match &self.boot {
            Boot::Disk(disk) => {
                line.raw("-blockdev", &[RAW_DISK, &quoted(disk.as_os_str())]);
                line.words(["-device", "virtio-blk-pci,drive=disk,id=boot-disk,bootindex=0"]);
            }
            Boot::Recorded { disk, log } => {
                // Flushes are logged above these files; that they reach a disk of ours is not needed.
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
                // QEMU joins neighbouring writes of up to 1024 pieces together (IOV_MAX); the log adds
                // two, and then the write fails. Besides, what the guest asked for is to be seen.
                let device =
                    "virtio-blk-pci,drive=disk,id=boot-disk,bootindex=0,request-merging=off";
                line.words(["-device", device]);
            }
            Boot::Kernel(kernel) => {
                // A panic is the end of a kernel without a root, and -no-reboot that of QEMU.
                line.words(["-no-reboot", "-append", "console=ttyS0,115200 panic=-1", "-kernel"]);
                line.0.push(kernel.into());
            }
            Boot::Nothing => {}
        }
    }

    fn network(&self, line: &mut Line) {
        let Some(port) = self.forward else { return };
        // Port 0: the system chooses one that is free; QMP tells which.
        line.words(["-netdev", &format!("user,id=net,hostfwd=tcp:127.0.0.1:0-:{port}")]);
        // Without an option ROM: if the disk does not boot, no network boot hides it for minutes.
        line.words(["-device", "virtio-net-pci,netdev=net,romfile="]);
    }
}

/// A command line that grows.
#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn words<const N: usize>(&mut self, words: [&str; N]) {
        self.0.extend(words.map(OsString::from));
    }

    /// `-name part,part` with commas within a part doubled, which is QEMU's way to quote them.
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
        let words = machine.arguments("/logs/a,b.log".as_ref(), "/logs/debug.log".as_ref());
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn assert_has(line: &str, parts: &[&str]) {
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
    }

    #[test]
    fn secure_boot_under_tcg_has_smm_and_flash() {
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
    fn secure_boot_under_kvm_has_no_smm() {
        let line = arguments(&Machine { accel: Accel::Kvm, ..machine() });
        assert_has(&line, &["q35,smm=off", "-accel kvm -cpu host", "/OVMF_CODE_4M.fd"]);
        assert!(!line.contains("property=secure"), "{line}");
    }

    #[test]
    fn a_bios_has_no_flash_and_what_is_not_asked_for_is_not_there() {
        let plain = Machine { firmware: Firmware::Bios, tpm: false, forward: None, ..machine() };
        let line = arguments(&plain);
        for part in ["pflash", "tpm", "netdev", "smbios"] {
            assert!(!line.contains(part), "{part:?} is in {line}");
        }
    }

    #[test]
    fn commas_are_doubled_in_paths_and_in_the_config() {
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
    fn a_recorded_disk_lies_below_its_log() {
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
    fn a_kernel_alone_ends_with_its_panic() {
        let line = arguments(&Machine { boot: Boot::Kernel("/k,1".into()), ..machine() });
        assert_has(&line, &["-no-reboot -append console=ttyS0,115200 panic=-1 -kernel /k,1"]);
    }
}
