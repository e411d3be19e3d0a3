// AlmaLinux 9.
local etchaos = import 'lib/etchaos.libsonnet';
local almalinux = import 'rpm/almalinux.libsonnet';

etchaos.variant(almalinux {
  name: 'alm9',
  number: '9',
  // https://repo.almalinux.org/almalinux/RPM-GPG-KEY-AlmaLinux-9 and
  // https://dl.fedoraproject.org/pub/epel/RPM-GPG-KEY-EPEL-9 (also https://fedoraproject.org/security)
  fingerprint: 'BF18AC2876178908D6E71267D36CB86CB86B3716',
  epelFingerprint: 'FF8AD1344597106ECE813B918A3872BF3228467C',
})
