// Debian 13 for servers: the kernel for all hardware, the firmware of network and storage cards, and a disk image
// for disks with sectors of 4096 bytes, which hardly any virtual machine has.
local etchaos = import 'lib/etchaos.libsonnet';

etchaos.extend(import 'deb.jsonnet', {
  name: 'debmetal',
  distribution+: ', for servers',
  kernel: 'linux-image-' + std.extVar('arch'),
  disk4k: true,
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
  // Sensors and accelerators of notebooks, and most of firmware-realtek, which is for wireless networks.
  excluded+: ['/usr/lib/firmware/%s/*' % name for name in ['intel/ish', 'intel/vpu', 'rtl_bt', 'rtlwifi', 'rtw88', 'rtw89']]
             // Drivers of desktops, cameras and laboratories. The graphics of servers (ast, mgag200) stay.
             + ['/usr/lib/modules/*/kernel/%s/*' % name for name in [
               'sound',
               'drivers/comedi',
               'drivers/iio',
               'drivers/media',
               'drivers/net/wireless',
             ] + ['drivers/gpu/drm/' + name for name in ['amd', 'i915', 'nouveau', 'radeon', 'xe']]],
})
