// Debian 13 for servers: the kernel for all hardware, and the firmware of network and storage cards.
local etchaos = import 'lib/etchaos.libsonnet';

etchaos.extend(import 'deb.jsonnet', {
  name: 'debmetal',
  distribution+: ', for servers',
  kernel: 'linux-image-' + std.extVar('arch'),
  // The section of firmware since Debian 12 (https://wiki.debian.org/Firmware).
  components+: ['non-free-firmware'],
  installed+: [
    'firmware-bnx2',
    'firmware-bnx2x',
    'firmware-cavium',
    'firmware-intel-misc',  // ice and QuickAssist
    'firmware-misc-nonfree',  // tg3, cxgb4 and others
    'firmware-netxen',
    'firmware-qlogic',
    'firmware-realtek',
  ],
  // Most of firmware-realtek is for wireless networks.
  excluded+: ['/usr/lib/firmware/%s/*' % name for name in ['rtl_bt', 'rtlwifi', 'rtw88', 'rtw89']],
})
