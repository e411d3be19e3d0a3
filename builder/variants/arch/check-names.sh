# Prints the packages of the variant that no repository has; see report_missing. A name can also be one that packages
# provide.
known=$(mktemp)
pacman --config /etc/etchaos/pacman.conf --sync --list --quiet | sort -u >"$known"
for name in $PACKAGES $BOOT_PACKAGES; do
  if ! grep -qxF -e "$name" "$known" && resolve --nodeps --nodeps "$name" >/dev/null 2>&1; then
    echo "$name" >>"$known"
  fi
done
# shellcheck disable=SC2086 # lists of packages
report_missing "$known" $PACKAGES $BOOT_PACKAGES
rm "$known"
