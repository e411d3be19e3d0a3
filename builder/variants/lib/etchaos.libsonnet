// The part that all variants share. A variant is a file in the parent directory that calls `variant()` with
// the settings of its distribution, or `extend()` with another variant and what differs. The result is an
// Etcha Pattern with additional fields for the builder. docs/variants.md explains both.
//
// The builder provides std.extVar('arch'), std.extVar('dropIns') (the drop-ins of the variant, checked), and
// std.native('didYouMean').
//
// The environment of a Command:
//   ROOT    the tree that becomes the OS            ARCH, VARIANT   the target
//   FILES   files that refine copies into ROOT      MIRROR          the operator's mirror, or empty
//   OUT     the directory for parts of the image    UNITS_ENABLE, UNITS_DISABLE, UNITS_MASK
//   WITHOUT_SECURITY  1 to build without the security archive, or empty
//   http_proxy, https_proxy, no_proxy, also in upper case, if the build host has them
//   from refine on:  SOURCE_DATE_EPOCH, IMAGE_VERSION (the output of Commands of bootstrap)
//   in package, squashfs, esp: ESP_UUID (XXXX-XXXX), ESP_MIB
local compiler = import 'compiler.libsonnet';

{
  local etchaos = self,

  // Returns a Command that runs in every build. `onChange` names the destinations of its output.
  command(id, change, onChange=[]):: {
    id: id,
    always: true,
    // The modes of files must not depend on the builder's umask.
    change: 'umask 022\n' + change,
    [if onChange != [] then 'onChange']: onChange,
  },

  // The values of onChange that a build knows.
  toManifest:: ['etcha:buildManifest'],
  toRunVar(name):: ['etcha:runVar_' + name],

  // Returns a shell script that writes a file into the container.
  writeFile(path, content, mode='644')::
    assert std.endsWith(content, '\n') : path + ' does not end with a newline';
    assert std.length(std.findSubstr('\nEND_OF_FILE\n', content)) == 0 : path + ' contains the end mark';
    'mkdir -p "$(dirname "%s")"\ncat >"%s" <<\'END_OF_FILE\'\n%sEND_OF_FILE\nchmod %s "%s"\n'
    % [path, path, content, mode, path],

  units:: {
    enable: [
      'systemd-networkd.service',
      'systemd-resolved.service',
      'systemd-timesyncd.service',
      'containerd.service',
      'docker.service',
      // With this unit, boot-complete.target is reached only if no unit failed. The updater confirms a slot
      // only then.
      'systemd-boot-check-no-failures.service',
      'etchaos-health.service',
      'etchaos-confirm.service',
      'etchaos-deadline.service',
      'etchaos-started.service',
      'etchaos-data.service',
      'etchaos-listen.service',
      'etchaos-updater.timer',
    ],
    disable: [
      'fstrim.timer',  // no file system on a disk needs trimming
      'remote-fs.target',
      'systemd-pstore.service',  // it would move the firmware's crash records into a tmpfs
    ],
    mask: [
      // There are no logins.
      'getty@.service',
      'serial-getty@.service',
      'container-getty@.service',
      'console-getty.service',
      'getty-static.service',
      'autovt@.service',
      'debug-shell.service',
      // The image contains what these would generate, and /usr is read-only.
      'ldconfig.service',
      'systemd-hwdb-update.service',
      'systemd-journal-catalog-update.service',
      // The updater runs systemd-repart, on a copy of the partition table.
      'systemd-repart.service',
      // The first boot of an image has no questions to ask.
      'systemd-firstboot.service',
      // /var is in memory, so there is no place for a seed, nor for a journal until the updater has mounted a data
      // partition.
      'systemd-journal-flush.service',
      'systemd-random-seed.service',
    ],
  },

  // The kernel modules that the early init loads. Their dependencies are added.
  earlyModules:: ['softdog', 'loop', 'squashfs'],

  // Returns the object, or fails if it has a field with an unknown name, such as a misspelled one. Hidden
  // fields of a distribution, such as `installed`, are known.
  known(what, object, names)::
    local unknown = std.filter(function(name) !std.member(names, name), std.objectFields(object));
    local allowed = names + std.filter(
      function(name) !std.objectHas(object, name) && !std.member(names, name), std.objectFieldsAll(object)
    );
    assert unknown == [] :
           'unknown field "%s" in %s%s; allowed: %s'
           % [unknown[0], what, etchaos.didYouMean(unknown[0], allowed), std.join(', ', allowed)];
    object,

  // Returns a suggestion for an error, or an empty text.
  didYouMean(name, known):: std.native('didYouMean')(name, known),

  // Returns a list without these names, or fails if it does not have one of them.
  without(list, names)::
    local missing = std.filter(function(name) !std.member(list, name), names);
    assert missing == [] :
           'cannot leave out "%s"%s; the list has: %s'
           % [missing[0], etchaos.didYouMean(missing[0], list), std.join(', ', list)];
    std.filter(function(name) !std.member(names, name), list),

  // Merges what two sources say about units. What the later one says about a unit counts.
  mergeUnits(earlier, later)::
    local lists = ['enable', 'disable', 'mask'];
    local of(units, list) = std.get(etchaos.known('units', units, lists), list, []);
    local named = std.flattenArrays([of(later, list) for list in lists]);
    {
      [list]: std.filter(function(unit) !std.member(named, unit), of(earlier, list)) + of(later, list)
      for list in lists
    },

  // Adds arguments of the kernel to a script for GRUB, after "panic=10", which both scripts have once. The
  // builder checks that each is one word.
  withKernelArguments(script, arguments)::
    local last = ' panic=10';
    assert std.length(std.findSubstr(last, script)) == 1 : 'a script for GRUB does not have "panic=10" once';
    std.strReplace(script, last, std.join(' ', [last] + arguments)),

  // Returns a shell script that writes the boot script of a target for network boot. Its name has the
  // processor as GRUB's variable grub_cpu does.
  networkBootScript(target, script)::
    local cpu = { amd64: 'x86_64', arm64: 'arm64' }[std.extVar('arch')];
    local path = '$OUT/netboot/etchaos/boot-%s.cfg' % cpu;
    etchaos.writeFile(path, std.strReplace(script, '@TARGET@', target))
    + 'sed -i "s/@IMAGE_VERSION@/$IMAGE_VERSION/" "%s"\n' % path,

  local fields = [
    'name', 'distribution', 'arches', 'container', 'espVendor', 'secureBoot', 'sbom', 'units', 'files',
    'kernelArguments', 'binaries', 'disk4k',
    'init', 'tools', 'indexes', 'bootstrap', 'packages', 'epoch', 'version', 'refine', 'bootloaders', 'check',
  ],

  // Returns another variant that differs in these settings. `changes` uses `+:` to add to a list:
  //   etchaos.extend(import 'deb.jsonnet', { name: 'mine', installed+: ['tcpdump'] })
  extend(variant, changes)::
    assert std.objectHasAll(variant, 'settings') : 'only the result of variant() or extend() can be extended';
    etchaos.variant(variant.settings + changes),

  variant(settings):: {
    local dropIns = std.extVar('dropIns'),
    local added(field) = std.flattenArrays([dropIn[field] for dropIn in dropIns]),
    local packages = std.setDiff(std.set(added('packages')), std.set(std.get(settings, 'installed', []))),

    local known = etchaos.known('the variant "%s"' % settings.name, settings, fields),
    local v = if packages == [] then known else
      assert std.objectHasAll(settings, 'installed') : 'the variant has no list "installed" for packages';
      known { installed+:: packages },
    local kernelArguments = std.get(v, 'kernelArguments', []) + added('kernelArguments'),
    local disk4k = std.get(v, 'disk4k', false) || std.member([dropIn.disk4k for dropIn in dropIns], true),

    // For extend(). It has nothing of the drop-ins, which belong to one variant.
    settings:: settings,

    audience: ['etchaos'],
    issuer: 'etchaos',
    subject: 'etchaos/%s_%s' % [v.name, std.extVar('arch')],
    expiresIn: 30 * 24 * 60 * 60,
    exec: { command: '/bin/bash', flags: '-euo pipefail -c' },

    variant: v.name,
    distribution: v.distribution,
    arches: v.arches,
    arch: std.extVar('arch'),
    container: v.container,
    compiler: compiler + (if v.sbom.namespace == 'debian' then {} else { sources: [], securitySources: [] }),
    // The parts of package URLs: pkg:<type>/<namespace>/<name>@<version>?arch=…&distro=<distro>
    sbom: v.sbom,
    // Whether the boot loader is signed with a key that firmware has, that is Microsoft's.
    secureBoot: std.get(v, 'secureBoot', true),
    espVendor: v.espVendor,  // the signed GRUB reads its configuration in EFI/<espVendor>
    // What is added to the distribution; docs/variants.md describes the fields. The builder checks them.
    packages: std.get(v, 'installed', []),
    units: std.foldl(
      etchaos.mergeUnits, [std.get(v, 'units', {})] + [dropIn.units for dropIn in dropIns], etchaos.units
    ),
    files: std.get(v, 'files', []) + added('files'),
    kernelArguments: kernelArguments,
    // Whether there is also a disk image for disks with sectors of 4096 bytes.
    disk4k: disk4k,
    binaries: std.get(v, 'binaries', []) + added('binaries'),

    build: [
      { id: 'init', commands: [
        etchaos.command('install the tools', v.init),
        // The state of the container. The result of "bootstrap" is used again while both, its Commands and
        // their environment are the same, and that of "squashfs" while "tools" and the tree are. Commands
        // of these two may therefore depend on nothing else, and may change nothing but ROOT, or the file
        // usr.squashfs.
        etchaos.command('list the tools', v.tools, etchaos.toRunVar('tools')),
        etchaos.command('list the indexes', v.indexes, etchaos.toRunVar('indexes')),
      ] },
      { id: 'bootstrap', commands: [
        etchaos.command('bootstrap', v.bootstrap),
        etchaos.command('list the packages', v.packages, etchaos.toManifest),
        etchaos.command('kernel version', 'ls "$ROOT/usr/lib/modules"\n', etchaos.toRunVar('kernel')),
        etchaos.command('date of the newest package', v.epoch, etchaos.toRunVar('epoch')),
        etchaos.command('version', v.version, etchaos.toRunVar('version')),
      ] },
      { id: 'refine', commands: [
        etchaos.command('refine the distribution', v.refine),
        etchaos.command('refine', (importstr 'refine.sh')),
      ] },
      { id: 'package', commands: [
        etchaos.command(
          'early init',
          etchaos.writeFile('$OUT/early/init', (importstr '../boot/init'), '755')
          + 'EARLY_MODULES="%s"\n' % std.join(' ', etchaos.earlyModules)
          + (importstr 'early.sh')
        ),
        etchaos.command(
          'boot configuration',
          etchaos.writeFile(
            '$OUT/grub.cfg', etchaos.withKernelArguments((importstr '../boot/grub.cfg'), kernelArguments)
          )
          + etchaos.writeFile('$OUT/efi-stub.cfg', (importstr '../boot/efi-stub.cfg'))
          // "boot loaders" copies the stub to the path that the GRUB for the network reads.
          + etchaos.writeFile('$OUT/netboot.cfg', (importstr '../boot/netboot-stub.cfg'))
          + etchaos.networkBootScript(
            '%s_%s' % [v.name, std.extVar('arch')],
            etchaos.withKernelArguments((importstr '../boot/netboot.cfg'), kernelArguments)
          )
          // Only machines of this architecture have a BIOS.
          + (if std.extVar('arch') == 'amd64'
             then etchaos.writeFile('$OUT/bios/embedded.cfg', (importstr '../boot/bios-embedded.cfg'))
             else '')
          + 'for file in "$OUT/grub.cfg" "$OUT/bios/embedded.cfg"; do\n'
          + '  [ ! -e "$file" ] || sed -i "s/@ESP_UUID@/$ESP_UUID/" "$file"\ndone\n'
        ),
        etchaos.command('boot loaders', v.bootloaders),
        etchaos.command('list the boot loaders', 'cat "$OUT/bootloader"\n', etchaos.toManifest),
      ] },
      { id: 'squashfs', commands: [
        etchaos.command('squashfs', (importstr 'squashfs.sh')),
      ] },
      { id: 'esp', commands: [
        etchaos.command(
          'esp', 'SECTOR_SIZES="%s"\n' % (if disk4k then '512 4096' else '512') + (importstr 'esp.sh')
        ),
      ] },
    ],
    run: [],

    // For "builder check", which runs the two Commands after the part init. A variant need not have it.
    check: if !std.objectHasAll(v, 'check') then null else {
      local check = etchaos.known('check', v.check, ['keys', 'names', 'resolve']),
      // The keys that packages or indexes are verified with, for display.
      keys: check.keys,
      // Prints nothing, or a line with the names that the sources do not have, and then all names that they have.
      names: etchaos.command('look up the names', check.names, etchaos.toRunVar('missing')),
      // Prints the packages that the bootstrap would install, as "name version arch", one on a line.
      resolve: etchaos.command('resolve the packages', check.resolve, etchaos.toManifest),
    },
  },
}
