# resolve ARGUMENT…: prints what pacman would install in an empty tree, with the indexes that "init" fetched.
resolve() {
  local database
  database=$(mktemp -d)
  cp -a /var/lib/pacman/sync "$database/"
  pacman --config /etc/etchaos/pacman.conf --dbpath "$database" --noconfirm --sync --print \
    --print-format '%n %v %a' "$@"
  rm -rf "$database"
}
