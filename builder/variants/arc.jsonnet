// Arch Linux.
local arch = import 'arch/arch.libsonnet';
local etchaos = import 'lib/etchaos.libsonnet';

etchaos.variant(arch {
  name: 'arc',
})
