// AlmaLinux 10.
local etchaos = import 'lib/etchaos.libsonnet';
local almalinux = import 'rpm/almalinux.libsonnet';

etchaos.variant(almalinux {
  name: 'alm',
  number: '10',
  // https://repo.almalinux.org/almalinux/RPM-GPG-KEY-AlmaLinux-10 and
  // https://dl.fedoraproject.org/pub/epel/RPM-GPG-KEY-EPEL-10 (also https://fedoraproject.org/security)
  fingerprint: 'EE6DB7B98F5BF5EDD9DA0DE5DEE5C11CC2A1E572',
  epelFingerprint: '7D8D15CBFC4E62688591FB2633D98517E37ED158',
  // EPEL 10 is built against CentOS Stream; "z" are the packages for the releases (epel.repo in epel-release).
  epel: { repository: 'epel-z-10', directory: '10z' },
})
