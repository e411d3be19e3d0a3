# Upgrades the container, installs the programs that the later stages run, and fetches the indexes of the
# repositories for the tree.
add_image_repositories
options=(--non-interactive)
# With a mirror, the container is upgraded from it, too.
[ -z "$MIRROR" ] || options+=(--reposd-dir /etc/etchaos/repos.d --releasever "$RELEASE")
if [ -n "$TOOLS" ]; then
  zypper "${options[@]}" update --no-recommends
  # shellcheck disable=SC2086 # a list of packages
  zypper "${options[@]}" install --no-recommends $TOOLS
fi
add_other_repositories
check_keys
# Signed indexes are not enough: the image trusts more keys than the variant, for indexes too. The tree trusts
# only the key of the variant, so each package is verified as well.
for file in /etc/etchaos/repos.d/*.repo; do
  echo 'pkg_gpgcheck=1' >>"$file"
done
# zypper would offer to trust the key that a repository itself brings. With these, it need not ask.
rpm --import /etc/etchaos/keys/*
rm -rf /var/cache/etchaos
zypper --non-interactive --reposd-dir /etc/etchaos/repos.d --cache-dir /var/cache/etchaos --releasever "$RELEASE" \
  refresh --force
