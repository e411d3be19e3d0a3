// The fields that the variants of all Fedora releases share. A variant sets name, number and fingerprint.
local rpm = import 'rpm.libsonnet';

rpm {
  local fedora = self,

  // The fingerprint of the release's key. Each release has its own.
  fingerprint:: error 'the variant has no fingerprint',

  installed:: [
    'fedora-release-common',
    'fedora-release-identity-basic',
    // The kernel and its modules for virtual machines and clouds
    // (https://packages.fedoraproject.org/pkgs/kernel/kernel-modules-core). kernel-modules supports more
    // hardware and is larger. Modules are .ko.xz (kernel.spec: zipmodules); the toolbox has xz and zstd.
    'kernel-core',
    'kernel-modules-core',
    'systemd',
    'systemd-udev',  // with timesyncd (https://packages.fedoraproject.org/pkgs/systemd/systemd-udev/)
    'systemd-networkd',
    'systemd-resolved',
    'kmod',
    'util-linux',
    'dosfstools',  // fsck.vfat, for the ESP after a power cut
    // For the data partition. systemd-udev has systemd-repart; util-linux has wipefs, and util-linux-core does not.
    'e2fsprogs',
    'xfsprogs',
    'btrfs-progs',
    // For its encryption: LUKS, and the TPM. systemd-udev has systemd-cryptenroll.
    'cryptsetup',
    'tpm2-tss',
    'iproute',
    'dbus-broker',
    // Fedora builds Moby: the daemon is in moby-engine, the client in docker-cli
    // (https://packages.fedoraproject.org/pkgs/moby-engine/docker-cli/).
    'moby-engine',
    'docker-cli',
    'containerd',
    'iptables-nft',
    'ca-certificates',
  ],

  purged:: [
    'dracut',
    'grubby',
    'os-prober',
    'cpio',
    // The policy cannot be enforced; see refine.sh.
    'container-selinux',
    'selinux-policy',
    'selinux-policy-targeted',
    'policycoreutils',
  ],

  // The names of their files have the architecture in this form.
  local efi = { amd64: 'x64', arm64: 'aa64' }[std.extVar('arch')],
  bootPackages:: ['shim-' + efi, 'grub2-efi-' + efi, 'busybox'],

  toolbox:: [
    'kmod',
    'xz',
    'zstd',
    'cpio',
    'findutils',
    'gnupg2',
    'squashfs-tools',
    'tar',
    'dosfstools',
    'mtools',
  ] + (if std.extVar('arch') == 'amd64' then ['grub2-tools', 'grub2-pc-modules'] else []),

  // Packages are signed; indexes are not, but metalinks, which are fetched by HTTPS, have their digests.
  keys:: [{
    name: 'fedora',
    // The package fedora-repos of the release has the key; its source is
    // https://src.fedoraproject.org/rpms/fedora-repos.
    source: '/etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-%s-primary' % fedora.number,
    fingerprint: fedora.fingerprint,
  }],
  // The metalinks and the layout of mirrors are those of fedora.repo and fedora-updates.repo in fedora-repos.
  local metalink = 'metalink=https://mirrors.fedoraproject.org/metalink?arch=$basearch&repo=',
  repositories:: [
    {
      id: 'fedora',
      key: 'fedora',
      url: metalink + 'fedora-$releasever',
      path: '/releases/$releasever/Everything/$basearch/os',
    },
    {
      id: 'updates',
      key: 'fedora',
      url: metalink + 'updates-released-f$releasever',
      path: '/updates/$releasever/Everything/$basearch',
      updates: true,
    },
  ],

  distribution: 'Fedora ' + fedora.number,
  arches: ['amd64', 'arm64'],
  // The prefix of the signed GRUB is /EFI/%{efi_vendor} (grub.macros of Fedora's source package grub2).
  espVendor: 'fedora',
  sbom: {
    type: 'rpm',
    namespace: 'fedora',
    distro: 'fedora-' + fedora.number,
    sourceArch: 'src',
    supplier: 'Fedora Project',
  },
  container+: { image: 'fedora:' + fedora.number },  // https://hub.docker.com/_/fedora

  units: {
    // Presets enable these in Fedora; lib/refine.sh starts from none.
    enable: ['dbus-broker.service', 'dbus.socket'],
  },
}
