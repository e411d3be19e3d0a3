# Lists the packages of the tree as "name version arch source source-version", one on a line. Debian tracks
# vulnerabilities by source package.
# shellcheck disable=SC2016 # dpkg-query expands the fields
fields='${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}'
chroot "$ROOT" dpkg-query --show --showformat="\${db:Status-Abbrev}$fields\n" |
  sed -n 's/^ii *//p' | LC_ALL=C sort
