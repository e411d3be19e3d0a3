# Makes the tree from Debian's packages. apt checks their signatures and stays outside.
export DEBIAN_FRONTEND=noninteractive

exclude=()
set -f
for pattern in $EXCLUDED; do
  exclude+=(--dpkgopt="path-exclude=$pattern")
done
set +f

# Without an argument mmdebstrap knows its sources; with a mirror, init has written them.
sources=()
[ -z "$MIRROR" ] || sources=(/etc/apt/sources.list)

rm -rf "$ROOT"
mmdebstrap --mode=root --variant=essential --format=directory --components=main \
  --architectures="$ARCH" --include="$PACKAGES" "${exclude[@]}" "$SUITE" "$ROOT" "${sources[@]}"

# mmdebstrap's copies of the build host's own
rm -f "$ROOT/etc/hostname" "$ROOT/etc/resolv.conf"

# The container's dpkg, because the tree's own loses its dependencies here.
for package in $PURGED; do
  dpkg --root="$ROOT" --force-depends --force-remove-essential --force-remove-protected --purge "$package"
done
