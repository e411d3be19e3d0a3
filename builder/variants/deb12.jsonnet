// Debian 12.
local etchaos = import 'lib/etchaos.libsonnet';

etchaos.extend(import 'deb.jsonnet', { name: 'deb12', number: '12' })
