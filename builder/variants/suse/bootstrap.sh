# Creates the tree from RPM packages. zypper runs in the container, verifies the signatures of the indexes and of
# packages with the keys of the variant, and is not installed in the tree.
rm -rf "$ROOT"
mkdir -p "$ROOT/dev"
# Scripts of packages need these devices.
mknod -m 666 "$ROOT/dev/null" c 1 3
mknod -m 666 "$ROOT/dev/zero" c 1 5
mknod -m 666 "$ROOT/dev/random" c 1 8
mknod -m 666 "$ROOT/dev/urandom" c 1 9
rpm --root="$ROOT" --import /etc/etchaos/keys/*

# The indexes must be those that "init" listed.
# shellcheck disable=SC2086 # a list of packages
zypper_for_tree --releasever "$RELEASE" --no-refresh install --no-recommends --auto-agree-with-licenses $PACKAGES

installed=()
for package in $PURGED; do
  if rpm --root="$ROOT" --query "$package" >/dev/null; then installed+=("$package"); fi
done
if [ "${#installed[@]}" != 0 ]; then
  rpm --root="$ROOT" --erase --nodeps --noscripts "${installed[@]}"
fi

finish_tree
