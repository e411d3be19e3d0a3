# Upgrades the container, installs the programs that the later stages run, and fetches the indexes of the
# repositories for the tree.
[ -z "$MIRROR" ] || SERVER=$MIRROR$MIRROR_PATH
mkdir -p /etc/etchaos /var/cache/etchaos
{
  echo "[options]"
  echo "Architecture = x86_64"
  # Packages are signed, indexes are not.
  echo "SigLevel = Required DatabaseOptional"
  echo "GPGDir = /etc/pacman.d/gnupg"
  echo "CacheDir = /var/cache/etchaos"
  set -f
  # shellcheck disable=SC2086 # a list of patterns
  printf 'NoExtract = %s\n' $EXCLUDED
  set +f
  for repository in $REPOSITORIES; do
    printf '[%s]\nServer = %s\n' "$repository" "$SERVER"
  done
} >/etc/etchaos/pacman.conf

# The image has the public keys, but no master key, which signs those that this container trusts.
pacman-key --init
pacman-key --populate "$KEYRING"
if [ -n "$TOOLS" ]; then
  # shellcheck disable=SC2086 # a list of packages
  pacman --config /etc/etchaos/pacman.conf -Syu --noconfirm --needed $TOOLS
else
  pacman --config /etc/etchaos/pacman.conf -Sy
fi
