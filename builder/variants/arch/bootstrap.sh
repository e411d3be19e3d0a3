# Creates the tree from Arch's packages. pacman runs in the container, verifies their signatures with its keyring,
# and is not installed in the tree.
rm -rf "$ROOT"
mkdir -p "$ROOT/var/lib/pacman/sync"
cp -a /var/lib/pacman/sync/. "$ROOT/var/lib/pacman/sync/"
# shellcheck disable=SC2086 # a list of packages
pacstrap -C /etc/etchaos/pacman.conf -c -G -M "$ROOT" $PACKAGES

# pacstrap asks for newer indexes. The tree must come from those that "init" listed.
for index in /var/lib/pacman/sync/*.db; do
  if ! cmp -s "$index" "$ROOT/var/lib/pacman/sync/$(basename "$index")"; then
    echo "the index $(basename "$index") of the repository has changed since the build began; build again"
    exit 1
  fi
done

installed=()
for package in $PURGED; do
  if pacman --root "$ROOT" --query "$package" >/dev/null 2>&1; then installed+=("$package"); fi
done
if [ "${#installed[@]}" != 0 ]; then
  pacman --root "$ROOT" --remove --nodeps --nodeps --noscriptlet --noconfirm "${installed[@]}"
fi
chroot "$ROOT" systemd-sysusers
