// Variants that use the scripts of another distribution with Debian's packages, repackaged by repositories.sh.
// The sandbox is Debian's, with that distribution's package manager. Each function takes the results of
// repositories.sh: { url, key, fingerprint }, and the path of a tar file with the sandbox of `base`.
local debian = import '../../variants/deb/debian.libsonnet';
local etchaos = import '../../variants/lib/etchaos.libsonnet';

local trixie = debian { number: '13', suite: 'trixie' };
local keyFile = '/etc/etchaos-test.asc';

// The packages of the OS.
local packages = [
  // Debian's essential packages, without those for dpkg. base-files has the links from /bin to /usr/bin.
  'base-files',
  'base-passwd',
  'bash',
  'coreutils',
  'dash',
  'debianutils',
  'diffutils',
  'findutils',
  'grep',
  'gzip',
  'hostname',
  'init-system-helpers',
  'libc-bin',
  'login',
  'ncurses-base',
  'ncurses-bin',
  'sed',
  'tar',
  'util-linux',
] + trixie.installed;

// The packages with the package managers, and with what repositories.sh needs.
local tools = [
  'dnf',
  'zypper',
  'pacman-package-manager',
  'arch-install-scripts',
  'libarchive-tools',
  'makepkg',
  'rpm',
  'createrepo-c',
  'cpio',
  'gnupg',
  'mount',
  'zstd',
];

// What all of them have from Debian: the packages, the base of the sandbox, and the boot loaders.
local repackaged(name, repository, base) = {
  name: name,
  distribution: 'Debian 13, repackaged for ' + name,
  installed:: packages,
  purged:: trixie.purged,
  bootPackages:: [],
  toolbox:: [],
  arches: ['amd64'],
  espVendor: 'debian',
  container: {
    image: trixie.container.image,
    bootstrap: ['bash', '-euo', 'pipefail', '-c', 'mkdir "$1"; tar --extract --file="$0" --directory="$1"', base],
    hostPackages: [],
  },
  tools: trixie.tools,
  // The repositories are on the loopback of the build host.
  init: etchaos.writeFile(keyFile, repository.key)
        + 'unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY\n'
        + super.init,
  bootloaders: trixie.bootloaders,
};

local rpmRepository(repository) = {
  number: '13',
  keys:: [{ name: 'test', source: keyFile, fingerprint: repository.fingerprint }],
  repositories:: [{ id: 'test', key: 'test', url: 'baseurl=%s/rpm' % repository.url, path: '/rpm' }],
  sbom: { type: 'rpm', namespace: 'test', distro: null, sourceArch: 'src', supplier: 'test' },
};

{
  // Debian with all tools. The result of its stage init is the sandbox of the others.
  base: etchaos.variant(trixie { name: 'tbase', arches: ['amd64'], installed:: packages, toolbox+:: tools }),

  tdnf(repository, base)::
    local fedora = import '../../variants/rpm/fedora.libsonnet';
    etchaos.variant(fedora + rpmRepository(repository) + repackaged('tdnf', repository, base)),

  tzypper(repository, base)::
    local suse = import '../../variants/suse/suse.libsonnet';
    etchaos.variant(suse + rpmRepository(repository) + repackaged('tzypper', repository, base)),

  tpacman(repository, base)::
    local arch = import '../../variants/arch/arch.libsonnet';
    // A keyring of pacman-key is a file with keys, and one with their fingerprints and trust. Debian's
    // pacman-key looks for them in this directory.
    local keyring = 'cp %s /usr/share/keyrings/test.gpg\n' % keyFile
                    + 'echo %s:4: >/usr/share/keyrings/test-trusted\n' % repository.fingerprint;
    etchaos.variant(arch {
      repositories:: ['test'],
      server:: repository.url + '/pacman/$repo',
      keyring:: 'test',
      init: keyring + super.init,
      // Hooks of Arch's packages do this.
      bootstrap: super.bootstrap
                 + 'depmod --basedir="$ROOT" "$(ls "$ROOT/usr/lib/modules")"\n'
                 + 'chroot "$ROOT" systemd-hwdb --usr update\n',
      // Debian's files are the ones to leave out, but dpkg's names for the hooks of a kernel do not matter.
      excluded:: [path for path in super.excluded if !std.startsWith(path, 'usr/share/libalpm')],
    } + repackaged('tpacman', repository, base)),
}
