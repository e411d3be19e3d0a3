// What all variants share. A variant is a file beside this directory that calls `variant()` with what
// its distribution does differently; what comes out is an Etcha Pattern with the fields that the
// builder needs besides.
//
// The environment of a Command:
//   ROOT    the tree that becomes the OS            ARCH, VARIANT   what is built
//   FILES   what is copied over it in refine        MIRROR          the operator's, or empty
//   OUT     where the pieces of the image go        UNITS_ENABLE, UNITS_DISABLE, UNITS_MASK
//   from refine on:  SOURCE_DATE_EPOCH, IMAGE_VERSION (both said by Commands of bootstrap)
//   in package, esp: ESP_UUID (XXXX-XXXX), ESP_MIB
{
  local etchaos = self,

  // A Command that runs in every build. `onChange` says what becomes of its output.
  command(id, change, onChange=[]):: {
    id: id,
    always: true,
    // The builder's umask must not decide the modes of what is made.
    change: 'umask 022\n' + change,
    [if onChange != [] then 'onChange']: onChange,
  },

  // What onChange can name in a build.
  toManifest:: ['etcha:buildManifest'],
  toRunVar(name):: ['etcha:runVar_' + name],

  // Shell text that writes a file of this directory into the container.
  writeFile(path, content, mode='644')::
    assert std.endsWith(content, '\n') : path + ' does not end with a newline';
    assert std.length(std.findSubstr('\nEND_OF_FILE\n', content)) == 0 : path + ' holds the end mark';
    'mkdir -p "$(dirname "%s")"\ncat >"%s" <<\'END_OF_FILE\'\n%sEND_OF_FILE\nchmod %s "%s"\n'
    % [path, path, content, mode, path],

  units:: {
    enable: [
      'systemd-networkd.service',
      'systemd-resolved.service',
      'systemd-timesyncd.service',
      'containerd.service',
      'docker.service',
      // boot-complete.target is reached only if no unit failed; the updater confirms a slot by it.
      'systemd-boot-check-no-failures.service',
      'etchaos-health.service',
      'etchaos-confirm.service',
      'etchaos-deadline.service',
      'etchaos-listen.service',
      'etchaos-updater.timer',
    ],
    disable: [
      'fstrim.timer',  // there is no disk to trim
      'remote-fs.target',
      'systemd-pstore.service',  // it would empty the firmware's crash store into a tmpfs
    ],
    mask: [
      // Nobody logs in.
      'getty@.service',
      'serial-getty@.service',
      'container-getty@.service',
      'console-getty.service',
      'getty-static.service',
      'autovt@.service',
      'debug-shell.service',
      // What these make at boot is in the image already, and /usr is read-only.
      'ldconfig.service',
      'systemd-hwdb-update.service',
      'systemd-journal-catalog-update.service',
      // An image has no first boot to ask about.
      'systemd-firstboot.service',
      // /var is memory: there is nothing to write a journal or a seed to.
      'systemd-journal-flush.service',
      'systemd-random-seed.service',
    ],
  },

  // Kernel modules of the early init, by name; the files they depend on are looked up.
  earlyModules:: ['softdog', 'loop', 'squashfs'],

  // Fails on a name that nobody would read: a typing error, then.
  known(what, object, names)::
    local unknown = std.filter(function(name) !std.member(names, name), std.objectFields(object));
    assert unknown == [] : 'unknown field in %s: %s' % [what, std.join(', ', unknown)];
    object,

  local fields = [
    'name', 'distribution', 'arches', 'container', 'espVendor', 'units', 'binaries',
    'init', 'bootstrap', 'packages', 'epoch', 'version', 'refine', 'bootloaders',
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
    container: v.container,
    espVendor: v.espVendor,  // the directory EFI/… at which the signed GRUB looks for its configuration
    units: {
      [list]: etchaos.units[list] + (if list in units then units[list] else [])
      for list in ['enable', 'disable', 'mask']
    },
    // Extra programs, none by default. An entry looks like
    //   { name: 'etcha', url: 'https://…', sha256: '<64 hex digits>', path: '/usr/bin/etcha' }
    binaries: if 'binaries' in v then v.binaries else [],

    build: [
      { id: 'init', commands: [
        etchaos.command('install the tools', v.init),
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
          + etchaos.writeFile('$OUT/bios/embedded.cfg', (importstr '../boot/bios-embedded.cfg'))
        ),
        etchaos.command('boot loaders', v.bootloaders),
        etchaos.command('list the boot loaders', 'cat "$OUT/bootloader"\n', etchaos.toManifest),
        etchaos.command('squashfs', (importstr 'squashfs.sh')),
      ] },
      { id: 'esp', commands: [
        etchaos.command('esp', (importstr 'esp.sh')),
      ] },
    ],
    run: [],
  },
}
