# Prints the packages of the variant that no archive has; see report_missing.
known=$(mktemp)
apt_for_tree apt-cache pkgnames >"$known"
# shellcheck disable=SC2086 # lists of packages
report_missing "$known" ${PACKAGES//,/ } $BOOT_PACKAGES
rm "$known"
