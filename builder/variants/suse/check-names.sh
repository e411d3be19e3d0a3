# Prints the packages of the variant that the repository does not have; see report_missing. A name can also be one that
# packages provide.
known=$(mktemp)
search() { zypper_for_tree --no-refresh --xmlout search "$@"; }
search --type package | sed -n -E 's/^<solvable .* name="([^"]*)".*/\1/p' | sort -u >"$known"
for name in $PACKAGES $BOOT_PACKAGES; do
  if ! grep -qxF -e "$name" "$known" && search --provides --match-exact "$name" >/dev/null; then
    echo "$name" >>"$known"
  fi
done
# shellcheck disable=SC2086 # lists of packages
report_missing "$known" $PACKAGES $BOOT_PACKAGES
rm "$known"
