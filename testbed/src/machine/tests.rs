//! Tests of the command lines of both architectures.

use super::*;

fn machine() -> Machine {
    Machine {
        name: "uefi".into(),
        arch: Arch::Amd64,
        boot: Boot::Disk("/work, of one/disk.raw".into()),
        sector_size: SectorSize::B512,
        firmware: Firmware::UefiSecureboot,
        accel: Accel::Tcg,
        memory: 2048,
        cpus: 2,
        tpm: true,
        config: None,
        forward: Some(4000),
    }
}

fn arm64() -> Machine {
    Machine { arch: Arch::Arm64, ..machine() }
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

#[track_caller]
fn assert_lacks(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(!line.contains(part), "{part:?} is in {line}");
    }
}

#[test]
fn runs_the_program_of_the_architecture() {
    assert_eq!(machine().program(), "qemu-system-x86_64");
    assert_eq!(arm64().program(), "qemu-system-aarch64");
}

#[test]
fn translates_whole_machine_of_each_architecture() {
    let config = Some("{}".to_owned());
    let boot = Boot::Disk("/d".into());
    let line = |machine: Machine| {
        arguments(&Machine { config: config.clone(), boot: boot.clone(), ..machine })
    };
    // Both end with the same devices: disk, network, TPM, configuration.
    let devices = "-device virtio-rng-pci -qmp unix:qmp.sock,server=on,wait=off \
        -blockdev driver=raw,node-name=disk,discard=unmap,file.driver=file,file.filename=/d \
        -device virtio-blk-pci,drive=disk,id=boot-disk,bootindex=0 \
        -netdev user,id=net,hostfwd=tcp:127.0.0.1:0-:4000 \
        -device virtio-net-pci,netdev=net,romfile= \
        -chardev socket,id=tpm,path=tpm.sock -tpmdev emulator,id=tpm0,chardev=tpm \
        -device TPM,tpmdev=tpm0 -smbios type=11,value=etchaos={}";
    let head =
        "-nodefaults -no-user-config -display none -name etchaos-testbed-uefi -m 2048 -smp 2";
    assert_eq!(
        line(machine()),
        format!(
            "{head} -accel tcg,thread=multi -cpu max -machine q35,smm=on \
             -global driver=cfi.pflash01,property=secure,value=on \
             -drive if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd \
             -drive if=pflash,format=raw,unit=1,file=variables.fd \
             -chardev file,id=console,path=/logs/a,,b.log -serial chardev:console -vga std \
             -chardev file,id=debug,path=/logs/debug.log \
             -device isa-debugcon,iobase=0x402,chardev=debug {}",
            devices.replace("TPM", "tpm-crb")
        )
    );
    assert_eq!(
        line(arm64()),
        format!(
            "{head} -accel tcg,thread=multi -cpu max,pauth-impdef=on -machine virt,gic-version=max \
             -drive if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/AAVMF/AAVMF_CODE.ms.fd \
             -drive if=pflash,format=raw,unit=1,file=variables.fd \
             -chardev file,id=console,path=/logs/a,,b.log -serial chardev:console {}",
            devices.replace("TPM", "tpm-tis-device")
        )
    );
}

#[test]
fn uses_no_devices_of_amd64_for_arm64() {
    for accel in [Accel::Tcg, Accel::Kvm] {
        for firmware in [Firmware::UefiSecureboot, Firmware::Uefi] {
            let line = arguments(&Machine { accel, firmware, ..arm64() });
            assert_lacks(
                &line,
                &["q35", "smm", "-vga", "isa-", "OVMF", "tpm-crb", "ttyS0", "secure="],
            );
        }
    }
    let plain = arguments(&Machine { firmware: Firmware::Uefi, ..arm64() });
    assert_has(&plain, &["file=/usr/share/AAVMF/AAVMF_CODE.fd"]);
    let kvm = arguments(&Machine { accel: Accel::Kvm, ..arm64() });
    assert_has(&kvm, &["-accel kvm -cpu host", "gic-version=max", "/AAVMF_CODE.ms.fd"]);
}

#[test]
fn every_disk_has_the_sectors_of_the_machine() {
    let (log, disk) = ("/l".into(), PathBuf::from("/d"));
    let copies = Boot::Copies { disks: ["/a".into(), "/b".into()], booted: 0 };
    let boots = [(Boot::Disk(disk.clone()), 1), (Boot::Recorded { disk, log }, 1), (copies, 2)];
    for (boot, disks) in boots {
        let count = |sector_size| {
            let line = arguments(&Machine { boot: boot.clone(), sector_size, ..machine() });
            line.matches(",logical_block_size=4096,physical_block_size=4096").count()
        };
        assert_eq!((count(SectorSize::B512), count(SectorSize::B4096)), (0, disks), "{boot:?}");
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
    assert_lacks(&line, &["property=secure"]);
}

#[test]
fn adds_no_flash_for_bios_and_no_optional_devices() {
    let plain = Machine { firmware: Firmware::Bios, tpm: false, forward: None, ..machine() };
    let line = arguments(&plain);
    assert_lacks(&line, &["pflash", "tpm", "netdev", "smbios"]);
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
    assert_lacks(&line, &["virtio-blk"]);
}

#[test]
fn ends_qemu_when_kernel_panics() {
    for (machine, serial) in [(machine(), "ttyS0"), (arm64(), "ttyAMA0")] {
        let line = arguments(&Machine { boot: Boot::Kernel("/k,1".into()), ..machine });
        let append = format!("-append console={serial},115200 panic=-1");
        assert_has(&line, &[&format!("-no-reboot {append} -kernel /k,1")]);
    }
}
