// The fields that the variants of all AlmaLinux releases share. A variant sets name, number, fingerprint and
// epelFingerprint.
//
// AlmaLinux has no networkd, no timesyncd, no busybox and no Docker. The first three come from EPEL, which the
// Fedora Project maintains, Docker from Docker's own repository.
local rpm = import 'rpm.libsonnet';

rpm {
  local almalinux = self,

  // The fingerprints of the keys of AlmaLinux and EPEL for this release.
  fingerprint:: error 'the variant has no fingerprint',
  epelFingerprint:: error 'the variant has no fingerprint of EPEL',
  // The name of EPEL's repository in metalinks, and its directory on mirrors.
  epel:: { repository: 'epel-' + almalinux.number, directory: almalinux.number },

  installed:: [
    'almalinux-release',
    // The kernel and its modules for virtual machines and clouds; kernel-modules supports more hardware.
    // Modules are .ko.xz (kernel.spec: zipmodules); the toolbox has xz and zstd.
    'kernel-core',
    'kernel-modules-core',
    'systemd',
    'systemd-udev',
    'systemd-resolved',
    // Of EPEL: https://packages.fedoraproject.org/pkgs/systemd-extras/systemd-networkd and
    // https://packages.fedoraproject.org/pkgs/systemd-extras/systemd-timesyncd/
    'systemd-networkd',
    'systemd-timesyncd',
    'kmod',
    'util-linux',
    'dosfstools',  // fsck.vfat, for the ESP after a power cut
    // For the data partition. systemd-udev has systemd-repart; util-linux has wipefs, and util-linux-core does not.
    // The kernel has no btrfs.
    'e2fsprogs',
    'xfsprogs',
    // For its encryption: LUKS, and the TPM. systemd-udev has systemd-cryptenroll.
    'cryptsetup',
    'tpm2-tss',
    'iproute',
    'dbus-broker',
    // Docker CE (https://docs.docker.com/engine/install/rhel/)
    'docker-ce',
    'docker-ce-cli',
    'containerd.io',
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
    'dnf-plugins-core',  // dnf download
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

  // Packages are signed; indexes are not.
  keys:: [
    {
      name: 'almalinux',
      // Also https://repo.almalinux.org/almalinux/RPM-GPG-KEY-AlmaLinux-<number>
      source: '/etc/pki/rpm-gpg/RPM-GPG-KEY-AlmaLinux-' + almalinux.number,
      fingerprint: almalinux.fingerprint,
    },
    {
      name: 'epel',
      source: 'https://dl.fedoraproject.org/pub/epel/RPM-GPG-KEY-EPEL-' + almalinux.number,
      fingerprint: almalinux.epelFingerprint,
    },
    {
      name: 'docker',
      source: 'https://download.docker.com/linux/rhel/gpg',
      // https://docs.docker.com/engine/install/rhel/
      fingerprint: '060A61C51B558A7F742B77AAC52FEB6B621E9F35',
    },
  ],
  // Mirrors of EPEL and of Docker are at the URL of the operator's mirror with a suffix, as Debian's security
  // archive is.
  local mirrorlist = 'mirrorlist=https://mirrors.almalinux.org/mirrorlist/$releasever/',
  repositories:: [
    { id: 'baseos', key: 'almalinux', url: mirrorlist + 'baseos', path: '/$releasever/BaseOS/$basearch/os' },
    {
      id: 'appstream',
      key: 'almalinux',
      url: mirrorlist + 'appstream',
      path: '/$releasever/AppStream/$basearch/os',
    },
    {
      id: 'epel',
      key: 'epel',
      url: 'metalink=https://mirrors.fedoraproject.org/metalink?arch=$basearch&repo=' + almalinux.epel.repository,
      path: '-epel/%s/Everything/$basearch' % almalinux.epel.directory,
    },
    {
      id: 'docker',
      key: 'docker',
      url: 'baseurl=https://download.docker.com/linux/rhel/$releasever/$basearch/stable',
      path: '-docker/$releasever/$basearch/stable',
    },
  ],

  distribution: 'AlmaLinux ' + almalinux.number,
  arches: ['amd64', 'arm64'],
  // The prefix of the signed GRUB is /EFI/%{efi_vendor} (grub.macros of the source package grub2), and the
  // vendor "almalinux" (https://github.com/AlmaLinux/shim-review).
  espVendor: 'almalinux',
  sbom: {
    type: 'rpm',
    namespace: 'almalinux',
    distro: 'almalinux-' + almalinux.number,
    sourceArch: 'src',
    supplier: 'AlmaLinux OS Foundation',
  },
  // https://hub.docker.com/_/almalinux; https://github.com/AlmaLinux/docker-images explains the tags.
  container+: { image: 'almalinux:' + almalinux.number },

  units: {
    // Presets enable these in AlmaLinux; lib/refine.sh starts from none.
    enable: ['dbus-broker.service', 'dbus.socket'],
  },
}
