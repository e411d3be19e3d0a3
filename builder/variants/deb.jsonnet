// Debian 13.
local debian = import 'deb/debian.libsonnet';
local etchaos = import 'lib/etchaos.libsonnet';

etchaos.variant(debian { name: 'deb', number: '13' })
