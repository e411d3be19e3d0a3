// Fedora 44.
local etchaos = import 'lib/etchaos.libsonnet';
local fedora = import 'rpm/fedora.libsonnet';

etchaos.variant(fedora {
  name: 'fed',
  number: '44',
  // https://fedoraproject.org/security
  fingerprint: '36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6',
})
