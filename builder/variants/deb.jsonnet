// Debian 13, with the kernel and the boot loaders that Debian signed.
local etchaos = import 'lib/etchaos.libsonnet';

local suite = 'trixie';

// The packages of the OS, in addition to Debian's essential packages.
local packages = [
  // The kernel for virtual machines and clouds. linux-image-amd64 supports more hardware and is larger.
  'linux-image-cloud-amd64',
  'systemd-sysv',
  'systemd-resolved',
  'systemd-timesyncd',
  'udev',
  'kmod',
  'mount',
  'dosfstools',  // fsck.vfat, for the ESP after a power cut
  'iproute2',
  'dbus-broker',
  'docker.io',
  'docker-cli',
  'containerd',
  'iptables',
  'ca-certificates',
];

// Packages that are needed only to install others. They are purged, and so are not in the manifest.
// perl-base comes last, because scripts of the others may call it.
local purged = [
  'initramfs-tools',
  'initramfs-tools-core',
  'initramfs-tools-bin',
  'dracut-install',
  'klibc-utils',
  'libklibc',
  'cpio',
  'linux-base',
  'openssl',
  'adduser',
  'passwd',
  'libsemanage2',
  'libsemanage-common',
  'libsepol2',
  'logsave',
  'debconf',
  'perl-base',
];

// Files that are not unpacked. The hooks in /etc/kernel would build an initramfs that is not used.
local excluded = [
  '/etc/kernel/*',
  '/usr/share/doc/*',
  '/usr/share/man/*',
  '/usr/share/info/*',
  '/usr/share/locale/*',
  '/usr/share/lintian/*',
  '/usr/share/bash-completion/*',
  '/usr/share/zsh/*',
  '/usr/share/fish/*',
  '/usr/lib/*/gconv/*',
  // Programs for shells, for tests and for older versions of Docker.
  '/usr/bin/ctr',
  '/usr/bin/containerd-stress',
  '/usr/bin/containerd-shim',
  '/usr/bin/containerd-shim-runc-v1',
];

local variables = |||
  SUITE=%s
  PACKAGES="%s"
  PURGED="%s"
  EXCLUDED="%s"
||| % [suite, std.join(',', packages), std.join(' ', purged), std.join(' ', excluded)];

etchaos.variant({
  name: 'deb',
  distribution: 'Debian 13 (trixie)',
  arches: ['amd64'],
  espVendor: 'debian',

  container: {
    image: 'debian:' + suite,
    // Used if no registry answers. The builder appends the output, and the mirror if there is one.
    bootstrap: ['mmdebstrap', '--variant=apt', suite],
    hostPackages: ['mmdebstrap', 'debian-archive-keyring'],
  },

  units: {
    disable: ['dpkg-db-backup.timer'],
  },

  init: variables + (importstr 'deb/init.sh'),
  bootstrap: variables
             + (importstr 'deb/bootstrap.sh')
             + etchaos.writeFile('$ROOT/usr/lib/etchaos/packages', (importstr 'deb/packages'), '755'),
  packages: 'chroot "$ROOT" /usr/lib/etchaos/packages\n',
  epoch: (importstr 'deb/epoch.sh'),
  version: 'echo "13.$(date --utc --date="@$(\n' + (importstr 'deb/epoch.sh') + ')" +%Y%m%d)"\n',
  refine: (importstr 'deb/refine.sh'),
  bootloaders: (importstr 'deb/bootloaders.sh'),
})
