# Creates a SquashFS of the tree's usr directory. All times in it are the date of the newest package, so that
# the bytes depend on the content alone. The number of cores does not change the output of mksquashfs.
# Blocks of 256 KiB at level 9: blocks of 128 KiB at level 15 take five times as long and save 3%. Larger
# blocks save more, but a host would then decompress more for each small file that it reads.
# mksquashfs rejects -all-time if SOURCE_DATE_EPOCH is set.
epoch=$SOURCE_DATE_EPOCH
unset SOURCE_DATE_EPOCH
# File capabilities are the only attributes that the image needs. Before version 4.6, mksquashfs cannot leave
# out the others.
attributes=(-xattrs)
version=$(mksquashfs -version | sed -n 's/^mksquashfs version \([0-9.]*\).*/\1/p')
if [ "$(printf '%s\n' 4.6 "$version" | sort -V | head -n 1)" = 4.6 ]; then
  attributes=(-xattrs-include '^security\.capability$')
fi
rm -f "$OUT/usr.squashfs"
mksquashfs "$ROOT/usr" "$OUT/usr.squashfs" -comp zstd -b 256K -Xcompression-level 9 \
  -all-time "$epoch" -mkfs-time "$epoch" "${attributes[@]}" -no-exports -no-progress -quiet
