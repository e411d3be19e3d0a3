# Lists the packages of the tree as "name version arch source source-version", one on a line. The source of a
# package is its "base", which has the same version.
for description in "$ROOT"/var/lib/pacman/local/*/desc; do
  awk '
    /^%.*%$/ { field = $0; next }
    NF && !(field in value) { value[field] = $0 }
    END {
      print value["%NAME%"], value["%VERSION%"], value["%ARCH%"], value["%BASE%"], value["%VERSION%"]
    }' "$description"
done | LC_ALL=C sort
