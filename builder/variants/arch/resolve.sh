# resolve ARGUMENT…: prints what pacman would install in an empty tree, with the indexes that "init" fetched.
resolve() {
  local database code=0
  database=$(mktemp -d)
  cp -a /var/lib/pacman/sync "$database/"
  pacman --config /etc/etchaos/pacman.conf --dbpath "$database" --noconfirm --sync --print \
    --print-format '%n %v %a' "$@" || code=$?
  rm -rf "$database"
  # In a condition, bash would not stop at the failure.
  return "$code"
}
