# The date of the newest package, in seconds: the newest file that dpkg unpacked, as dpkg keeps the
# times of the package. Nothing else may decide it: the same packages must give the same image.
cat "$ROOT"/var/lib/dpkg/info/*.md5sums |
  sed -n 's|^[0-9a-f]*  usr/|usr/|p' |
  { cd "$ROOT" && xargs -d '\n' stat --format='%Y' 2>/dev/null || true; } |
  sort -n | tail -n 1
