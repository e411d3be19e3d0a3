# Prints the packages that the bootstrap would install and those of the boot loaders, as "name version arch".
# shellcheck disable=SC2086 # lists of packages
resolve $PACKAGES | LC_ALL=C sort
# shellcheck disable=SC2086
[ -z "$BOOT_PACKAGES" ] || resolve --nodeps --nodeps $BOOT_PACKAGES
