// The fields of the variant of Arch Linux, which has no releases.
//
// Arch has no boot loader that is signed with Microsoft's key, and no signed kernel: the package shim is not in
// its repositories, and GRUB is built here. So a host boots under UEFI only with Secure Boot disabled, or after
// its owner has enrolled an own key in the firmware and signed EFI/BOOT/BOOTX64.EFI and vmlinuz with it. BIOS
// and everything else works as in the other variants.
local etchaos = import '../lib/etchaos.libsonnet';

{
  local arch = self,

  // The packages of the OS; dependencies are added.
  installed:: [
    'filesystem',
    'bash',
    // The kernel for all machines (https://archlinux.org/packages/core/x86_64/linux/). Its modules are .ko.zst
    // (PKGBUILD of the package linux).
    'linux',
    'systemd',  // with networkd, resolved and timesyncd
    'kmod',
    'util-linux',
    'dosfstools',  // fsck.vfat, for the ESP after a power cut
    // For the data partition. systemd has systemd-repart.
    'e2fsprogs',
    'xfsprogs',
    'btrfs-progs',
    // For its encryption: LUKS, and the TPM. systemd has systemd-cryptenroll.
    'cryptsetup',
    'tpm2-tss',
    'iproute2',
    'dbus-broker-units',
    'docker',  // Moby, with the client
    'containerd',
    'iptables',
    'ca-certificates',
    'shadow',
  ],

  // Packages that are installed as dependencies and have no use in the tree. "linux" depends on an initramfs
  // generator.
  purged:: [
    'mkinitcpio',
    'mkinitcpio-busybox',
  ],

  // Files that are not unpacked. The hooks of mkinitcpio would build an initramfs that is not used.
  excluded:: [
    'usr/share/libalpm/hooks/*mkinitcpio*',
    'usr/share/doc/*',
    'usr/share/man/*',
    'usr/share/info/*',
    'usr/share/locale/*',
    'usr/share/bash-completion/*',
    'usr/share/zsh/*',
    'usr/share/fish/*',
    'usr/share/i18n/*',
    'usr/include/*',
  ],

  // The package that the early init is unpacked from. The boot loaders are built with GRUB of the toolbox.
  bootPackages:: ['busybox'],

  toolbox:: [
    'arch-install-scripts',
    'kmod',
    'xz',
    'zstd',
    'libarchive',
    'squashfs-tools',
    'dosfstools',
    'mtools',
    'grub',
  ],

  // The repositories, and what follows the URL of the operator's mirror, as in the mirrorlist of Arch.
  repositories:: ['core', 'extra'],
  server:: 'https://geo.mirror.pkgbuild.com/$repo/os/$arch',
  mirrorPath:: '/$repo/os/$arch',
  // The name of the keyring. pacman-key trusts a packager if enough of the five main keys
  // of Arch signed the packager's key (https://wiki.archlinux.org/title/Pacman/Package_signing). The keyring is
  // that of the package archlinux-keyring.
  keyring:: 'archlinux',

  variables:: |||
    TOOLS="%s"
    PACKAGES="%s"
    PURGED="%s"
    EXCLUDED="%s"
    BOOT_PACKAGES="%s"
    REPOSITORIES="%s"
    # shellcheck disable=SC2016 # pacman expands $repo and $arch
    SERVER='%s'
    # shellcheck disable=SC2016
    MIRROR_PATH='%s'
    KEYRING="%s"
  ||| % [
    std.join(' ', arch.toolbox),
    std.join(' ', arch.installed),
    std.join(' ', arch.purged),
    std.join(' ', arch.excluded),
    std.join(' ', arch.bootPackages),
    std.join(' ', arch.repositories),
    arch.server,
    arch.mirrorPath,
    arch.keyring,
  ],

  distribution: 'Arch Linux',
  arches: ['amd64'],
  // The manifest says so, and the testbed boots without Secure Boot.
  secureBoot: false,
  espVendor: 'arch',
  sbom: {
    type: 'alpm',
    namespace: 'arch',
    distro: null,
    sourceArch: null,
    supplier: 'Arch Linux',
  },

  container: {
    image: 'archlinux:base',  // https://gitlab.archlinux.org/archlinux/archlinux-docker
    bootstrap: ['bash', '-euo', 'pipefail', '-c', (importstr 'base.sh'), arch.server]
               + [arch.mirrorPath, std.join(' ', ['base'] + arch.toolbox)],
    hostPackages: ['arch-install-scripts', 'pacman-package-manager', 'archlinux-keyring'],
  },

  units: {
    // dbus-broker-units has the links for dbus-broker in /usr.
    enable: [],
  },

  init: arch.variables + (importstr 'init.sh'),
  tools: 'pacman --query | LC_ALL=C sort | sha256sum\n',
  indexes: (importstr 'indexes.sh'),
  bootstrap: arch.variables
             + (importstr 'bootstrap.sh')
             + 'mkdir -p "$ROOT/usr/lib/etchaos"\n{\n'
             + (importstr 'list-packages.sh')
             + '} | cut -d " " -f 1-3 >"$ROOT/usr/lib/etchaos/packages.list"\n'
             + etchaos.writeFile('$ROOT/usr/lib/etchaos/packages', (importstr '../rpm/packages'), '755'),
  packages: (importstr 'list-packages.sh'),
  epoch: (importstr 'epoch.sh'),
  version: 'date --utc --date="@$(\n' + (importstr 'epoch.sh') + ')" +%Y%m%d\n',
  refine: (importstr 'refine.sh'),
  bootloaders: (importstr 'bootloaders.sh'),

  check: {
    // The package has the keys; see keyring.
    keys: [arch.keyring + '-keyring'],
    names: arch.variables + (importstr 'resolve.sh') + (importstr '../lib/missing.sh') + (importstr 'check-names.sh'),
    resolve: arch.variables + (importstr 'resolve.sh') + (importstr 'check-resolve.sh'),
  },
}
