# Prints the packages that the bootstrap would install and those of the boot loaders, as "name version arch".
packages_of() { sed -n -E 's/^<solvable .*name="([^"]*)" (kind="package" )?edition="([^"]*)" arch="([^"]*)".*/\1 \3 \4/p'; }
# shellcheck disable=SC2086 # a list of packages
zypper_for_tree --releasever "$RELEASE" --no-refresh --xmlout install --dry-run --no-recommends \
  --auto-agree-with-licenses $PACKAGES | packages_of | LC_ALL=C sort
if [ -n "$BOOT_PACKAGES" ]; then
  # The newest is first.
  # shellcheck disable=SC2086
  zypper_for_tree --no-refresh --xmlout search --details --match-exact --type package $BOOT_PACKAGES |
    packages_of | sort -u -k 1,1
fi
