// The part that all variants share. A variant is a file in the parent directory that calls `variant()` with
// the settings of its distribution. The result is an Etcha Pattern with additional fields for the builder.
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
      // The first boot of an image has no questions to ask.
      'systemd-firstboot.service',
      // /var is in memory, so there is no place for a journal or a seed.
      'systemd-journal-flush.service',
      'systemd-random-seed.service',
    ],
  },

  // The kernel modules that the early init loads. Their dependencies are added.
  earlyModules:: ['softdog', 'loop', 'squashfs'],

  // Returns the object, or fails if it has a field with an unknown name, such as a misspelled one.
  known(what, object, names)::
    local unknown = std.filter(function(name) !std.member(names, name), std.objectFields(object));
    assert unknown == [] : 'unknown field in %s: %s' % [what, std.join(', ', unknown)];
    object,

  local fields = [
    'name', 'distribution', 'arches', 'container', 'espVendor', 'sbom', 'units', 'binaries',
    'init', 'tools', 'indexes', 'bootstrap', 'packages', 'epoch', 'version', 'refine', 'bootloaders',
  ],

  variant(fieldsOfVariant):: {
    local v = etchaos.known('the variant', fieldsOfVariant, fields),
    local units = etchaos.known('units', v.units, ['enable', 'disable', 'mask']),

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
    espVendor: v.espVendor,  // the signed GRUB reads its configuration in EFI/<espVendor>
    units: {
      [list]: etchaos.units[list] + (if list in units then units[list] else [])
      for list in ['enable', 'disable', 'mask']
    },
    // Additional programs, none by default. An entry has this form:
    //   { name: 'etcha', url: 'https://…', sha256: '<64 hex digits>', path: '/usr/bin/etcha' }
    binaries: if 'binaries' in v then v.binaries else [],

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
          etchaos.writeFile('$OUT/grub.cfg', (importstr '../boot/grub.cfg'))
          + etchaos.writeFile('$OUT/efi-stub.cfg', (importstr '../boot/efi-stub.cfg'))
          + etchaos.writeFile('$OUT/netboot.cfg', (importstr '../boot/netboot.cfg'))
          // Only machines of this architecture have a BIOS.
          + (if std.extVar('arch') == 'amd64'
             then etchaos.writeFile('$OUT/bios/embedded.cfg', (importstr '../boot/bios-embedded.cfg'))
             else '')
        ),
        etchaos.command('boot loaders', v.bootloaders),
        etchaos.command('list the boot loaders', 'cat "$OUT/bootloader"\n', etchaos.toManifest),
      ] },
      { id: 'squashfs', commands: [
        etchaos.command('squashfs', (importstr 'squashfs.sh')),
      ] },
      { id: 'esp', commands: [
        etchaos.command('esp', (importstr 'esp.sh')),
      ] },
    ],
    run: [],
  },
}
