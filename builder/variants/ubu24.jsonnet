// Ubuntu 24.04.
local etchaos = import 'lib/etchaos.libsonnet';
local ubuntu = import 'ubuntu/ubuntu.libsonnet';

etchaos.variant(ubuntu {
  name: 'ubu24',
  number: '24.04',
  suite: 'noble',
  // systemd has systemd-repart and systemd-cryptenroll (https://packages.ubuntu.com/noble/systemd).
  installed:: etchaos.without(super.installed, ['systemd-repart', 'systemd-cryptsetup']),
})
