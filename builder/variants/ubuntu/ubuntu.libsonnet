// The fields that the variants of all Ubuntu releases share: Debian's, with the kernel and the boot loaders
// that Canonical signed. A variant sets name, number and suite.
local debian = import '../deb/debian.libsonnet';

debian {
  local ubuntu = self,

  // linux-image-virtual has the modules for virtual machines, for both architectures; its kernel is the
  // signed linux-image-…-generic (https://packages.ubuntu.com/questing/kernel/linux-image-virtual). Modules
  // are compressed; the toolbox has xz and zstd.
  // Moby is docker.io of the component "universe"; its source docker.io-app has no package docker-cli
  // (https://packages.ubuntu.com/resolute-updates/docker-doc names source and component).
  installed:: ['linux-image-virtual'] + std.filter(
    function(package) !std.startsWith(package, 'linux-image-') && package != 'docker-cli', super.installed
  ),

  // The packages are signed through the indexes of the archive, as in Debian, by the key in ubuntu-keyring.
  toolbox:: ['ubuntu-keyring', 'zstd'] + std.filter(
    function(package) package != 'debian-archive-keyring', super.toolbox
  ),

  // shim-signed has MokManager too (https://packages.ubuntu.com/questing/amd64/shim-signed/filelist).
  bootPackages:: std.filter(function(package) !std.startsWith(package, 'shim-helpers-'), super.bootPackages),

  distribution: 'Ubuntu %s (%s)' % [ubuntu.number, ubuntu.suite],
  arches: ['amd64', 'arm64'],
  // The prefix of the signed GRUB is EFI/<vendor>, and the vendor is that of dpkg-vendor, "ubuntu"
  // (debian/build-efi-images in Ubuntu's source package grub2).
  espVendor: 'ubuntu',
  sbom: {
    type: 'deb',
    namespace: 'ubuntu',
    distro: ubuntu.suite,
    sourceArch: 'source',
    supplier: 'Ubuntu',
  },

  container: {
    // https://hub.docker.com/_/ubuntu; the tags are the numbers of the releases.
    image: 'ubuntu:' + ubuntu.number,
    // Without "bootstrap", the base is always the image: Debian has no package with Ubuntu's key, which mmdebstrap
    // would need to verify packages.
  },

  units+: {
    // base-files of Ubuntu has this timer, which would fetch news for the message of the day.
    disable+: ['motd-news.timer'],
  },

  init: ubuntu.variables
        + (importstr 'sources.sh')
        + (importstr '../deb/security.sh')
        + (importstr '../deb/init.sh'),
  refine: (importstr '../deb/refine.sh') + (importstr 'refine.sh'),
  bootloaders: ubuntu.variables
               + (importstr '../deb/unpack.sh')
               + (importstr '../lib/bios.sh')
               + (importstr 'bootloaders.sh'),

  check+: { keys: ['ubuntu-keyring'] },
}
