# Succeeds if there is nothing to install.
open_esp ro
find_slots
if has_failed; then
  printf 'build %s failed its trial on this host, and is not installed again\n' "$build"
  exit 0
fi
holds_release "${running:-$good}" || fail "build $build is not installed"
