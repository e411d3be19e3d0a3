// openSUSE Leap 16.0.
local etchaos = import 'lib/etchaos.libsonnet';
local suse = import 'suse/suse.libsonnet';

etchaos.variant(suse {
  name: 'sus',
  number: '16.0',
})
