# Creates the tree from Debian's packages. apt runs in the container, verifies their signatures, and is not
# installed in the tree.
export DEBIAN_FRONTEND=noninteractive

# The tree is made again if it is lost, so dpkg need not flush files to the disk.
options=(--dpkgopt=force-unsafe-io)
set -f
for pattern in $EXCLUDED; do
  options+=(--dpkgopt="path-exclude=$pattern")
done
set +f

# Install from the archives and the indexes of the container, so that the tree depends on them alone.
sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
  [ ! -s "$file" ] || sources+=("$file")
done

rm -rf "$ROOT"
# shellcheck disable=SC2016,SC2086 # the shell of mmdebstrap expands $1, the path of the tree; a list of options
mmdebstrap --mode=root --variant=essential --format=directory $BOOTSTRAP_OPTIONS \
  --skip=update --setup-hook='mkdir -p "$1/var/lib/apt/lists" && cp -a /var/lib/apt/lists/. "$1/var/lib/apt/lists/"' \
  --architectures="$ARCH" --include="$PACKAGES" "${options[@]}" "$SUITE" "$ROOT" "${sources[@]}"

[ -n "$WITHOUT_SECURITY" ] || require_security "$ROOT/etc/apt"

# mmdebstrap copies these two from the build host.
rm -f "$ROOT/etc/hostname" "$ROOT/etc/resolv.conf"

# Use dpkg of the container: dpkg in the tree loses its dependencies here.
purge() {
  dpkg --root="$ROOT" --force-depends --force-remove-essential --force-remove-protected --purge "$1"
}
for package in $PURGED; do
  purge "$package"
done

# is_needed PACKAGE…: returns whether another package than these and xfsprogs depends on one of them. Without
# "grep -q", which ends at the first match: the program before it would then fail, and so would the pipeline.
is_needed() {
  local names
  names=$(IFS='|' && echo "$*")
  dpkg-query --admindir="$ROOT/var/lib/dpkg" --show \
    --showformat='${Package} ,${Pre-Depends},${Depends},\n' |
    grep -vE "^(xfsprogs|$names) " | grep -E "[ ,|]($names)(:any)?([ ,|(]|$)" >/dev/null
}
read -r -a group <<<"$ONLY_FOR_XFS"
if ! is_needed "${group[@]}"; then
  for package in "${group[@]}"; do
    purge "$package"
  done
fi

# A program or a library contains the names of the libraries that it needs. So do the files of a package, whose
# libraries need each other.
while read -r library package; do
  mapfile -t own < <(dpkg-query --admindir="$ROOT/var/lib/dpkg" --listfiles "$package" 2>/dev/null |
    sed 's|.*/|--exclude=|')
  if [ -z "$(grep -rlF "${own[@]}" -e "$library" "$ROOT/usr" || true)" ]; then
    purge "$package"
  fi
done <<<"$UNUSED_LIBRARIES"
