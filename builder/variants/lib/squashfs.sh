# Creates a SquashFS of the tree's usr directory. All times in it are the date of the newest package, so that
# the bytes depend on the content alone. The number of cores does not change the output of mksquashfs.
# Level 15, because level 19 with larger blocks takes three times as long and saves 4%.
# mksquashfs rejects -all-time if SOURCE_DATE_EPOCH is set.
epoch=$SOURCE_DATE_EPOCH
unset SOURCE_DATE_EPOCH
rm -f "$OUT/usr.squashfs"
mksquashfs "$ROOT/usr" "$OUT/usr.squashfs" -comp zstd -Xcompression-level 15 \
  -all-time "$epoch" -mkfs-time "$epoch" -xattrs -no-exports -no-progress -quiet
