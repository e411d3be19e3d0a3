// The fields that the variants of all openSUSE Leap releases share. A variant sets name and number.
local rpm = import '../rpm/rpm.libsonnet';

rpm {
  local suse = self,

  installed:: [
    'Leap-release',
    // The kernel of openSUSE for all machines. Modules are .ko.zst (rpm/config.sh of kernel-source:
    // COMPRESS_MODULES); the toolbox has xz and zstd.
    'kernel-default',
    // networkd and resolved are packages of their own since openSUSE replaced systemd-network; udev has
    // timesyncd (files.udev of the source package systemd).
    'systemd',
    'udev',
    'systemd-networkd',
    'systemd-resolved',
    'kmod',
    'util-linux',
    'util-linux-systemd',
    'dosfstools',  // fsck.vfat, for the ESP after a power cut
    // For the data partition. systemd-experimental has systemd-repart.
    'systemd-experimental',
    'e2fsprogs',
    'xfsprogs',
    'btrfsprogs',
    // For its encryption: LUKS, and the TPM with the libraries that systemd opens when it needs them.
    'cryptsetup',
    'libtss2-esys0',
    'libtss2-rc0',
    'libtss2-tcti-device0',
    'iproute2',
    'dbus-broker',
    'docker',  // Moby (docker.spec of the source package docker: github.com/moby/moby)
    'containerd',
    'iptables',
    'ca-certificates-mozilla',
    'shadow',
  ],

  purged:: [
    'dracut',
    'perl-Bootloader',
    'update-bootloader',
    'cpio',
    // The policy cannot be enforced; see rpm/refine.sh.
    'container-selinux',
    'selinux-policy',
    'selinux-policy-targeted',
    'policycoreutils',
  ],

  bootPackages:: ['shim', { amd64: 'grub2-x86_64-efi', arm64: 'grub2-arm64-efi' }[std.extVar('arch')], 'busybox-static'],

  toolbox:: [
    'kmod',
    'xz',
    'zstd',
    'cpio',
    'findutils',
    'gpg2',
    'squashfs',
    'tar',
    'dosfstools',
    'mtools',
  ] + (if std.extVar('arch') == 'amd64' then ['grub2', 'grub2-i386-pc'] else []),

  // Packages and indexes are signed.
  signedIndexes:: true,
  keys:: [{
    name: 'opensuse',
    // The package openSUSE-build-key; also repodata/repomd.xml.key of the repository.
    source: '/usr/lib/rpm/gnupg/keys/gpg-pubkey-29b700a4-62b07e22.asc',
    fingerprint: 'AD485664E901B867051AB15F35A2F86E29B700A4',
  }],
  // Since Leap 16.0, updates are in the same repository (https://en.opensuse.org/Package_repositories).
  repositories:: [{
    id: 'oss',
    key: 'opensuse',
    url: 'baseurl=https://download.opensuse.org/distribution/leap/$releasever/repo/oss',
    path: '/distribution/leap/$releasever/repo/oss',
  }],

  distribution: 'openSUSE Leap ' + suse.number,
  arches: ['amd64', 'arm64'],
  // The signed GRUB reads grub.cfg in the directory that it was loaded from; see bootloaders.sh.
  espVendor: 'BOOT',
  sbom: {
    type: 'rpm',
    namespace: 'opensuse',
    distro: 'opensuse-leap-' + suse.number,
    sourceArch: 'src',
    supplier: 'openSUSE',
  },
  // https://build.opensuse.org/package/show/openSUSE:Containers:Leap/16.0
  container+: { image: 'opensuse/leap:' + suse.number },

  units: {
    // Presets enable these in openSUSE; rpm/refine.sh starts from none.
    enable: ['dbus-broker.service', 'dbus.socket'],
  },

  init: suse.setup + (importstr 'init.sh'),
  indexes: (importstr 'indexes.sh'),
  bootstrap: suse.variables
             + (importstr 'zypper.sh')
             + (importstr '../rpm/tree.sh')
             + (importstr 'bootstrap.sh')
             + suse.listing,
  bootloaders: suse.variables
               + (importstr 'zypper.sh')
               + (importstr '../rpm/unpack.sh')
               + (importstr '../lib/bios.sh')
               + (importstr 'bootloaders.sh'),

  check+: {
    names: suse.variables
           + (importstr 'zypper.sh')
           + (importstr '../lib/missing.sh')
           + (importstr 'check-names.sh'),
    resolve: suse.variables + (importstr 'zypper.sh') + (importstr 'check-resolve.sh'),
  },
}
