// Ubuntu 26.04, released on 23 April 2026 (https://releases.ubuntu.com/resolute/).
local etchaos = import 'lib/etchaos.libsonnet';
local ubuntu = import 'ubuntu/ubuntu.libsonnet';

etchaos.variant(ubuntu {
  name: 'ubu',
  number: '26.04',
  suite: 'resolute',
})
