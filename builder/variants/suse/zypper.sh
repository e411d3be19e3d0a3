# zypper_for_tree ARGUMENT…: runs zypper with the repositories of the variant, with the indexes that "init"
# fetched, and with $ROOT as its root.
zypper_for_tree() {
  zypper --non-interactive --installroot "$ROOT" --reposd-dir /etc/etchaos/repos.d \
    --cache-dir /var/cache/etchaos "$@"
}
