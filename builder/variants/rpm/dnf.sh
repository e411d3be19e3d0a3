case $ARCH in
  amd64) machine=x86_64 ;;
  arm64) machine=aarch64 ;;
esac

# dnf_for_tree ARGUMENT…: runs dnf with the repositories of the variant, with the indexes that "init" fetched,
# and with $ROOT as its root. Fedora has dnf 5, AlmaLinux has dnf 4.
dnf_for_tree() {
  local options=(
    --assumeyes
    --installroot="$ROOT"
    --releasever="$RELEASE"
    --setopt=reposdir=/etc/etchaos/repos.d
    --setopt=cachedir=/var/cache/etchaos
    --setopt=install_weak_deps=False
    --setopt=tsflags=nodocs
  )
  if dnf --version | grep '^dnf5' >/dev/null; then
    # Otherwise dnf 5 looks for its configuration in the empty tree.
    options+=(--use-host-config)
  fi
  [ "$(uname -m)" = "$machine" ] || options+=(--forcearch="$machine")
  dnf "${options[@]}" "$@"
}
