# Prints a digest of the package indexes of all repositories and of the configuration of pacman. The packages of
# the tree come from these indexes.
{
  sha256sum /etc/etchaos/pacman.conf
  find /var/lib/pacman/sync -name '*.db' | LC_ALL=C sort | xargs -d '\n' sha256sum
} | sha256sum
