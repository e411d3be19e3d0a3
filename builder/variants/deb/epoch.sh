# Prints the date of the newest package in Unix seconds: the newest modification time of a file that dpkg
# unpacked, because dpkg keeps the times of the package. The date must depend on the packages alone, so that
# the same packages give the same image.
# Packages of Debian 12 have files in /lib and others, which are links to /usr.
# Files of purged packages are missing, so errors of stat are ignored.
# shellcheck disable=SC2015 # true is meant to run after either failure
cat "$ROOT"/var/lib/dpkg/info/*.md5sums |
  sed -n -E 's#^[0-9a-f]*  ((usr|bin|sbin|lib|lib64)/)#\1#p' |
  { cd "$ROOT" && xargs -d '\n' stat --format='%Y' 2>/dev/null || true; } |
  sort -n | tail -n 1
