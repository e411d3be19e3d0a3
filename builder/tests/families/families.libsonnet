// Variants that use the scripts of another distribution with Debian's packages, repackaged by repositories.sh.
// The sandbox is Debian's, with that distribution's package manager. Each function takes the URL of what
// repositories.sh wrote, the key, and its fingerprint.
local debian = import '../../variants/deb/debian.libsonnet';
local etchaos = import '../../variants/lib/etchaos.libsonnet';

local trixie = debian { number: '13', suite: 'trixie' };
local keyFile = '/etc/etchaos-test.asc';

// What all of them have from Debian: the packages, the base of the sandbox, and the boot loaders.
local repackaged(name, tools, key) = {
  local test = self,

  name: name,
  distribution: 'Debian 13, repackaged for ' + name,
  installed:: [
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
  ] + trixie.installed,
  purged:: trixie.purged,
  toolbox:: [],
  arches: ['amd64'],
  espVendor: 'debian',
  container: (trixie { toolbox+:: tools + ['cpio', 'gnupg', 'zstd'] }).container,
  tools: trixie.tools,
  // The repositories are on the loopback of the build host.
  init: etchaos.writeFile(keyFile, key) + 'unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY\n' + super.init,
  bootloaders: trixie.bootloaders,
};

local rpmKeys(url, fingerprint) = {
  number: '13',
  keys:: [{ name: 'test', source: keyFile, fingerprint: fingerprint }],
  repositories:: [{ id: 'test', key: 'test', url: 'baseurl=%s/rpm' % url, path: '/rpm' }],
  sbom: { type: 'rpm', namespace: 'test', distro: null, sourceArch: 'src', supplier: 'test' },
};

{
  dnf(url, key, fingerprint)::
    local fedora = import '../../variants/rpm/fedora.libsonnet';
    etchaos.variant(fedora + rpmKeys(url, fingerprint) + repackaged('tdnf', ['dnf'], key)),

  zypper(url, key, fingerprint)::
    local suse = import '../../variants/suse/suse.libsonnet';
    etchaos.variant(suse + rpmKeys(url, fingerprint) + repackaged('tzypper', ['zypper'], key)),

  pacman(url, key, fingerprint)::
    local arch = import '../../variants/arch/arch.libsonnet';
    local tools = ['pacman-package-manager', 'arch-install-scripts', 'libarchive-tools', 'mount'];
    // A keyring of pacman-key is a file with keys, and one with their fingerprints and trust. Debian's
    // pacman-key looks for them in this directory.
    local keyring = 'cp %s /usr/share/keyrings/test.gpg\n' % keyFile
                    + 'echo %s:4: >/usr/share/keyrings/test-trusted\n' % fingerprint;
    etchaos.variant(arch {
      repositories:: ['test'],
      server:: url + '/pacman/$repo',
      keyring:: 'test',
      init: keyring + super.init,
      // Hooks of Arch's packages do this.
      bootstrap: super.bootstrap
                 + 'depmod --basedir="$ROOT" "$(ls "$ROOT/usr/lib/modules")"\n'
                 + 'chroot "$ROOT" systemd-hwdb --usr update\n',
      // Debian's files are the ones to leave out, but dpkg's names for the hooks of a kernel do not matter.
      excluded:: [path for path in super.excluded if !std.startsWith(path, 'usr/share/libalpm')],
    } + repackaged('tpacman', tools, key)),
}
