# Prints the packages that the bootstrap would install and those of the boot loaders, as "name version arch".
# apt has verified the indexes, which have the digests of packages.
# shellcheck disable=SC2086 # a list of packages
apt_for_tree apt-get --quiet --simulate install '?essential' ${PACKAGES//,/ } |
  sed -n -E 's/^Inst ([^ ]+) \(([^ ]+) .*\[([a-z0-9]+)\]\).*$/\1 \2 \3/p' | LC_ALL=C sort
# shellcheck disable=SC2086
apt_for_tree apt-cache show --no-all-versions $BOOT_PACKAGES |
  awk '{ value[$1] = $2 } /^$/ { print value["Package:"], value["Version:"], value["Architecture:"] }'
