// The fields that the variants of all Debian versions share. They use the kernel and the boot loaders that
// Debian signed. A variant sets name and number, and can override or extend every other field.
local etchaos = import '../lib/etchaos.libsonnet';

// What differs between the versions of Debian.
local releases = {
  '12': {
    suite: 'bookworm',
    // docker.io has the client as well (https://packages.debian.org/bookworm/docker.io).
    // systemd has systemd-repart and systemd-cryptenroll as well (https://packages.debian.org/bookworm/systemd).
    missing: ['docker-cli', 'systemd-repart', 'systemd-cryptsetup', 'libtss2-esys-3.0.2-0t64', 'libtss2-rc0t64'],
    // Docker 20.10 starts no container if the kernel has AppArmor and there is no apparmor_parser. Newer
    // versions then use no profile.
    additional: ['apparmor', 'libtss2-esys-3.0.2-0', 'libtss2-rc0'],
    // Links such as /bin are not part of base-files yet. Without the hook, the package usrmerge would be
    // installed, with perl (mmdebstrap(1), "MERGED-/USR").
    bootstrapOptions: ['--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr'],
  },
  '13': {
    suite: 'trixie',
    missing: [],
    additional: [],
    bootstrapOptions: [],
  },
};

{
  local debian = self,
  // A distribution that is derived from Debian has numbers of its own, and sets suite.
  local release = std.get(releases, debian.number, {
    suite: error 'unknown version of Debian: "%s"; known: %s'
                 % [debian.number, std.join(', ', std.objectFields(releases))],
    missing: [],
    additional: [],
    bootstrapOptions: [],
  }),

  // The number of the Debian version, such as '13', and its code name.
  number:: error 'the variant has no number',
  suite:: release.suite,

  // The parts of the archive (https://wiki.debian.org/SourcesList#Component).
  components:: ['main'],

  // The kernel for virtual machines and clouds. The variant debmetal has one for all hardware.
  kernel:: 'linux-image-cloud-' + std.extVar('arch'),

  // The packages of the OS, in addition to Debian's essential packages.
  installed:: etchaos.without([
    debian.kernel,
    'systemd-sysv',
    'systemd-resolved',
    'systemd-timesyncd',
    'udev',
    'kmod',
    'mount',
    'dosfstools',  // fsck.vfat, for the ESP after a power cut
    // For the data partition: the partition, and its file systems.
    'systemd-repart',
    'e2fsprogs',
    'xfsprogs',
    'btrfs-progs',
    // For its encryption: LUKS, and the TPM with the libraries that systemd opens when it needs them.
    'cryptsetup-bin',
    'systemd-cryptsetup',
    'libtss2-esys-3.0.2-0t64',
    'libtss2-rc0t64',
    'iproute2',
    'dbus-broker',
    'docker.io',
    'docker-cli',
    'containerd',
    'iptables',
    'ca-certificates',
  ], release.missing) + release.additional,

  // The packages that the boot loaders and the early init are unpacked from.
  bootPackages:: [
    'shim-signed',
    'shim-helpers-%s-signed' % std.extVar('arch'),
    'grub-efi-%s-signed' % std.extVar('arch'),
    'busybox-static',
  ] + (if std.extVar('arch') == 'amd64' then ['grub-pc-bin'] else []),

  // Packages that are needed only to install others. They are purged, and so are not in the manifest.
  // perl-base comes last, because scripts of the others may call it.
  purged:: [
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
    // A group for programs without root that use the TPM.
    'tpm-udev',
    'perl-base',
  ],

  // Packages that xfsprogs depends on for programs that are excluded below. They are purged unless another package
  // needs one of them, such as one of a drop-in.
  onlyForXfs:: ['python3-dbus', 'python3', 'python3-minimal'] + std.flattenArrays([
    ['python' + version, 'python%s-minimal' % version]
    + ['libpython%s-stdlib' % version, 'libpython%s-minimal' % version]
    // Of Debian 12, Ubuntu 24.04, Debian 13 and Ubuntu 26.04.
    for version in ['3.11', '3.12', '3.13', '3.14']
  ]) + ['libpython3-stdlib', 'media-types', 'tzdata'],

  // Files that are not unpacked. The hooks in /etc/kernel would build an initramfs that is not used.
  excluded:: [
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
    // It generates locales, and their sources are not in the image.
    '/usr/bin/localedef',
    // Tools for file systems that a host does not run: it makes and grows them, and checks ext4.
    '*/sbin/xfs_*',
    '*/libhandle.so.*',
    '*/liburcu-*[!n].so.*',
    '*/bin/btrfs',
    '*/bin/btrfs-*',
    '*/bin/btrfstune',
    '*/libreiserfscore.so.*',
    '*/sbin/debugfs',
    '*/sbin/badblocks',
    '*/sbin/mklost+found',
    '*/bin/chattr',
    '*/bin/lsattr',
    '/usr/libexec/e2fsprogs/*',
    '/usr/libexec/xfsprogs/*',
    // They sign images.
    '/usr/lib/systemd/systemd-keyutil',
    '/usr/lib/systemd/systemd-sbsign',
    '*/sbin/dumpe2fs',
    '*/sbin/resize2fs',
    '*/sbin/tune2fs',
    '/usr/share/gcc/python/*',
    '*/sbin/e2image',
    '*/sbin/e4crypt',
    '*/sbin/e4defrag',
    '*/sbin/e2scrub*',
    '*/sbin/e2undo',
    '*/sbin/e2freefrag',
    '*/sbin/filefrag',
    // The same for encryption: integrity and signatures of partitions, keys on other devices, and TPMs that are
    // not devices of the kernel.
    '*/sbin/integritysetup',
    '*/sbin/veritysetup',
    '*/systemd-integritysetup*',
    '*/systemd-veritysetup*',
    '*/libcryptsetup-token-systemd-fido2.so',
    '*/libcryptsetup-token-systemd-pkcs11.so',
    '*/libtss2-tcti-cmd.so.*',
    '*/libtss2-tcti-mssim.so.*',
    '*/libtss2-tcti-swtpm.so.*',
    // Drivers of cards for laboratories, and of modems for mobile networks. Packages of Debian 12 have them in
    // /lib. No other module depends on them.
    '*/lib/modules/*/kernel/drivers/comedi/*',
    '*/lib/modules/*/kernel/drivers/net/wwan/*',
    // A file system that Linux 6.18 no longer has, and whose tools are not in the image.
    '*/lib/modules/*/kernel/fs/bcachefs/*',
    // Targets of SCSI, which turn a host into a disk of others, and compressed volumes. Their tools are not in the
    // image either.
    '*/lib/modules/*/kernel/drivers/target/*',
    '*/lib/modules/*/kernel/drivers/vhost/vhost_scsi.*',
    '*/lib/modules/*/kernel/drivers/xen/xen-scsiback.*',
    '*/lib/modules/*/kernel/drivers/md/dm-vdo/*',
    // Programs that would need the libraries below: a daemon for ARP without the kernel, logins with a
    // database of passwords, and the list of logins.
    '*/sbin/arpd',
    '*/security/pam_userdb.so',
    '/usr/bin/lslogins',
  ],

  // Libraries that only excluded files need, as "file package". Their packages are purged, unless a program of
  // the tree needs the library, such as one of a drop-in.
  unusedLibraries:: [
    'libdb-5.3.so libdb5.3t64',
    'libdb-5.3.so libdb5.3',  // in Debian 12
    'liblastlog2.so.2 liblastlog2-2',
    'libsqlite3.so.0 libsqlite3-0',  // for liblastlog2
    // For xfs_scrub, debugfs, xfs_db and Python.
    'libicu libicu76',
    'libicu libicu72',
    'libstdc++.so.6 libstdc++6',
    'libncursesw.so.6 libncursesw6',
    'libreiserfscore.so.0 libreiserfscore0t64',
    'libreiserfscore.so.0 libreiserfscore0',
    'libss.so.2 libss2',
    'libedit.so.2 libedit2',
    'libreadline.so.8 libreadline8t64',
    'libreadline.so.8 libreadline8',
    'libreadline.so.8 readline-common',
    'libglib-2.0.so libglib2.0-0t64',
    'libglib-2.0.so libglib2.0-0',
    'libdbus-1.so libdbus-1-3',
    'libffi.so.8 libffi8',
    'libexpat.so.1 libexpat1',
    'libnsl.so.2 libnsl2',
    'libatomic.so.1 libatomic1',
  ],

  // The packages with the programs that the Commands run in the container: kmod finds the kernel modules,
  // grub-common creates the BIOS boot loader, dosfstools and mtools the ESP.
  toolbox:: [
    'mmdebstrap',
    'debian-archive-keyring',
    'kmod',
    'xz-utils',
    'squashfs-tools',
    'dosfstools',
    'mtools',
    'grub-common',
  ],

  // The shell variables that the scripts use.
  variables:: |||
    SUITE=%s
    COMPONENTS="%s"
    BOOTSTRAP_OPTIONS="%s"
    TOOLS="%s"
    PACKAGES="%s"
    PURGED="%s"
    ONLY_FOR_XFS="%s"
    EXCLUDED="%s"
    UNUSED_LIBRARIES="%s"
    BOOT_PACKAGES="%s"
  ||| % [
    debian.suite,
    std.join(' ', debian.components),
    std.join(' ', release.bootstrapOptions),
    std.join(' ', debian.toolbox),
    std.join(',', debian.installed),
    std.join(' ', debian.purged),
    std.join(' ', debian.onlyForXfs),
    std.join(' ', debian.excluded),
    std.join('\n', debian.unusedLibraries),
    std.join(' ', debian.bootPackages),
  ],

  distribution: 'Debian %s (%s)' % [debian.number, debian.suite],
  arches: ['amd64', 'arm64'],
  espVendor: 'debian',
  sbom: {
    type: 'deb',
    namespace: 'debian',
    distro: debian.suite,
    sourceArch: 'source',
    supplier: 'Debian',
  },

  container: {
    image: 'debian:' + debian.suite,
    // Creates the base if the image cannot be used: without a container engine, or without a registry.
    // The builder appends the path of the output, and the mirror if there is one.
    bootstrap: [
      'mmdebstrap',
      '--variant=apt',
      '--components=' + std.join(',', debian.components),
      '--include=' + std.join(',', debian.toolbox),
      // The base is made again if it is lost, so nothing needs to wait for the disk.
      '--dpkgopt=force-unsafe-io',
      '--aptopt=APT::Install-Recommends "false"',
      '--aptopt=Acquire::Languages "none"',
      // apt-get update then only asks whether the lists are new.
      '--skip=cleanup/apt/lists',
    ] + release.bootstrapOptions + [debian.suite],
    hostPackages: ['mmdebstrap', 'debian-archive-keyring'],
  },

  units: {
    disable: [
      'dpkg-db-backup.timer',
      // They check snapshots of LVM, with programs that are not in the image.
      'e2scrub_all.timer',
      'e2scrub_reap.service',
      'xfs_scrub_all.timer',
    ],
  },

  init: debian.variables + (importstr 'security.sh') + (importstr 'init.sh'),
  tools: "dpkg-query --show --showformat='${Package} ${Version} ${Architecture}\\n' | sha256sum\n",
  indexes: (importstr 'indexes.sh'),
  bootstrap: debian.variables
             + (importstr 'security.sh')
             + (importstr 'bootstrap.sh')
             + etchaos.writeFile('$ROOT/usr/lib/etchaos/packages', (importstr 'packages'), '755'),
  packages: (importstr 'list-packages.sh'),
  epoch: (importstr 'epoch.sh'),
  version: 'echo "' + debian.number + '.$(date --utc --date="@$(\n' + (importstr 'epoch.sh') + ')" +%Y%m%d)"\n',
  refine: (importstr 'refine.sh'),
  bootloaders: debian.variables
               + (importstr 'unpack.sh')
               + (importstr '../lib/bios.sh')
               + (importstr 'bootloaders.sh'),

  check: {
    // apt verifies the indexes with the keys in this package.
    keys: ['debian-archive-keyring'],
    names: debian.variables + (importstr 'apt.sh') + (importstr '../lib/missing.sh') + (importstr 'check-names.sh'),
    resolve: debian.variables + (importstr 'apt.sh') + (importstr 'check-resolve.sh'),
  },
}
