# Prints the packages of the variant that no repository has; see report_missing. A name can also be one that packages
# provide.
known=$(mktemp)
query() { dnf_for_tree --quiet --setopt=metadata_expire=never repoquery --available --queryformat '%{name}\n' "$@"; }
query | sed '/^$/d' | sort -u >"$known"
for name in $PACKAGES $BOOT_PACKAGES; do
  if ! grep -qxF -e "$name" "$known" && query --whatprovides "$name" | grep . >/dev/null; then echo "$name" >>"$known"; fi
done
# shellcheck disable=SC2086 # lists of packages
report_missing "$known" $PACKAGES $BOOT_PACKAGES
rm "$known"
