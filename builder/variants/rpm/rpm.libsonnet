// The fields that the variants of all distributions with RPM packages share. Such a variant sets the fields
// without a value, and can override or extend every other field. fedora.libsonnet and almalinux.libsonnet in
// this directory use dnf; suse/suse.libsonnet uses zypper.
local etchaos = import '../lib/etchaos.libsonnet';

{
  local rpm = self,

  // The number of the release, such as '44': the value of $releasever, and the first part of the version.
  number:: error 'the variant has no number',
  // The packages of the OS; dependencies are added.
  installed:: error 'the variant has no packages',
  // Packages that are installed as dependencies and have no use in the tree.
  purged:: error 'the variant has no list of packages to purge',
  // The packages that the boot loaders and the early init are unpacked from.
  bootPackages:: error 'the variant has no packages of boot loaders',
  // The packages with the programs that the Commands run in the container.
  toolbox:: error 'the variant has no toolbox',
  // The keys that sign packages: { name, fingerprint, source }. The source is a file of the container image, or
  // a URL, whose content is used only if the fingerprint is the expected one.
  keys:: error 'the variant has no keys',
  // The repositories: { id, key, url, path, updates }. url is a line of a .repo file; path follows the URL of
  // the operator's mirror. With updates: true, --without-security leaves the repository out.
  repositories:: error 'the variant has no repositories',
  // Whether the indexes are signed, too.
  signedIndexes:: false,

  local isInImage(key) = std.startsWith(key.source, '/'),
  // Returns a line of shell: a function and its arguments.
  local call(name, arguments) =
    '  %s %s\n' % [name, std.join(' ', [std.escapeStringBash(argument) for argument in arguments])],
  local addKey(key) = call('add_key', [key.name, key.source]),
  local addRepository(repository) =
    local updates = std.objectHas(repository, 'updates') && repository.updates;
    call(
      if updates then 'add_updates' else 'add_repository',
      [repository.id, repository.key, repository.url, repository.path]
    ),
  local keyOf(repository) = [key for key in rpm.keys if key.name == repository.key][0],
  // Returns a shell function that adds the keys, and the repositories that have one of them.
  local addAll(name, keys) =
    local lines = [addKey(key) for key in keys] + [
      addRepository(repository)
      for repository in rpm.repositories
      if std.member(keys, keyOf(repository))
    ];
    '# shellcheck disable=SC2016 # the package manager expands $releasever and $basearch\n%s() {\n%s}\n'
    % [name, if lines == [] then '  true\n' else std.join('', lines)],

  // The shell variables and functions that init.sh, bootstrap.sh and bootloaders.sh use.
  variables:: |||
    RELEASE=%s
    VENDOR=%s
    SIGNED_INDEXES=%s
    TOOLS="%s"
    PACKAGES="%s"
    PURGED="%s"
    BOOT_PACKAGES="%s"
  ||| % [
    rpm.number,
    rpm.espVendor,
    if rpm.signedIndexes then '1' else '0',
    std.join(' ', rpm.toolbox),
    std.join(' ', rpm.installed),
    std.join(' ', rpm.purged),
    std.join(' ', rpm.bootPackages),
  ],
  setup:: rpm.variables
          + (importstr 'repositories.sh')
          + addAll('add_image_repositories', std.filter(isInImage, rpm.keys))
          + addAll('add_other_repositories', std.filter(function(key) !isInImage(key), rpm.keys))
          + 'check_keys() {\n%s}\n' % std.join('', [
            call('check_key', [key.name, key.fingerprint])
            for key in rpm.keys
          ]),

  // What runs after the bootstrap: the list of packages for running hosts.
  listing:: 'mkdir -p "$ROOT/usr/lib/etchaos"\n{\n'
            + rpm.packages
            + '} | cut -d " " -f 1-3 >"$ROOT/usr/lib/etchaos/packages.list"\n'
            + etchaos.writeFile('$ROOT/usr/lib/etchaos/packages', (importstr 'packages'), '755'),

  // Without "bootstrap", the base is always the image: the tools of these distributions are in their own images
  // only. A Debian host has neither their keys nor, for Fedora, dnf 5.
  container: { image: error 'the variant has no container image' },

  init: rpm.setup + (importstr 'dnf.sh') + (importstr 'init.sh'),
  tools: 'rpm --query --all | LC_ALL=C sort | sha256sum\n',
  indexes: (importstr 'indexes.sh'),
  bootstrap: rpm.variables
             + (importstr 'dnf.sh')
             + (importstr 'tree.sh')
             + (importstr 'bootstrap.sh')
             + rpm.listing,
  packages: (importstr 'list-packages.sh'),
  epoch: (importstr 'epoch.sh'),
  version: 'echo "' + rpm.number + '.$(date --utc --date="@$(\n' + (importstr 'epoch.sh') + ')" +%Y%m%d)"\n',
  refine: (importstr 'refine.sh'),
  bootloaders: rpm.variables
               + (importstr 'dnf.sh')
               + (importstr 'unpack.sh')
               + (importstr '../lib/bios.sh')
               + (importstr 'bootloaders.sh'),

  check: {
    keys: ['%s %s' % [key.name, key.fingerprint] for key in rpm.keys],
    names: rpm.variables + (importstr 'dnf.sh') + (importstr '../lib/missing.sh') + (importstr 'check-names.sh'),
    resolve: rpm.variables + (importstr 'dnf.sh') + (importstr 'check-resolve.sh'),
  },
}
