# /usr as a SquashFS. Every time in it is the newest package's, so that the bytes depend on the
# content alone; mksquashfs then writes the same whatever the number of cores.
# Level 15: 19 with larger blocks takes three times as long and saves 4%.
# mksquashfs refuses -all-time beside SOURCE_DATE_EPOCH.
epoch=$SOURCE_DATE_EPOCH
unset SOURCE_DATE_EPOCH
rm -f "$OUT/usr.squashfs"
mksquashfs "$ROOT/usr" "$OUT/usr.squashfs" -comp zstd -Xcompression-level 15 \
  -all-time "$epoch" -mkfs-time "$epoch" -xattrs -no-exports -no-progress -quiet
