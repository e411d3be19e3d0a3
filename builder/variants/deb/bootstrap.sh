# Creates the tree from Debian's packages. apt runs in the container, verifies their signatures, and is not
# installed in the tree.
export DEBIAN_FRONTEND=noninteractive

exclude=()
set -f
for pattern in $EXCLUDED; do
  exclude+=(--dpkgopt="path-exclude=$pattern")
done
set +f

# Without a mirror, use the default sources of mmdebstrap. With a mirror, init.sh has written the list.
sources=()
[ -z "$MIRROR" ] || sources=(/etc/apt/sources.list)

rm -rf "$ROOT"
mmdebstrap --mode=root --variant=essential --format=directory --components=main \
  --architectures="$ARCH" --include="$PACKAGES" "${exclude[@]}" "$SUITE" "$ROOT" "${sources[@]}"

[ -n "$WITHOUT_SECURITY" ] || require_security "$ROOT/etc/apt"

# mmdebstrap copies these two from the build host.
rm -f "$ROOT/etc/hostname" "$ROOT/etc/resolv.conf"

# Use dpkg of the container: dpkg in the tree loses its dependencies here.
for package in $PURGED; do
  dpkg --root="$ROOT" --force-depends --force-remove-essential --force-remove-protected --purge "$package"
done
