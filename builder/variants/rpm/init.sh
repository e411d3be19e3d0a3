# Upgrades the container, installs the programs that the later stages run, and fetches the indexes of the
# repositories for the tree.
add_image_repositories
options=(--assumeyes --setopt=install_weak_deps=False)
# With a mirror, the container is upgraded from it, too.
[ -z "$MIRROR" ] || options+=(--setopt=reposdir=/etc/etchaos/repos.d --releasever="$RELEASE")
if [ -n "$TOOLS" ]; then
  dnf "${options[@]}" upgrade --refresh
  # shellcheck disable=SC2086 # a list of packages
  dnf "${options[@]}" install $TOOLS
fi
add_other_repositories
check_keys
if [ -n "$WITHOUT_SECURITY" ]; then
  echo "WARNING: building without the repositories of updates, because of --without-security"
fi
rm -rf /var/cache/etchaos
dnf_for_tree makecache --refresh
# dnf has created its root. The builder may restore that tree from its cache, to a path that does not exist.
rm -rf "$ROOT"
