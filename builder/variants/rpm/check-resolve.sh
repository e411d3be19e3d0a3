# Prints the packages that the bootstrap would install and those of the boot loaders, as "name version arch".
# dnf answers "no" to its own question and ends with 1. What it prints is a table whose long lines are broken.
table=$(mktemp)
# shellcheck disable=SC2086 # a list of packages
LC_ALL=C dnf_for_tree --setopt=metadata_expire=never --assumeno install $PACKAGES >"$table" 2>&1 || true
if ! grep -q '^Transaction Summary' "$table"; then
  cat "$table"
  exit 1
fi
# The columns are name, architecture, version, repository, size and unit.
awk '
  /^Transaction Summary/ { exit }
  /^[^ ]/ { wanted = /^Installing/; next }
  wanted { for (i = 1; i <= NF; i++) { field[++n] = $i; if (n == 6) { print field[1], field[3], field[2]; n = 0 } } }
' "$table" | LC_ALL=C sort
rm "$table"
if [ -n "$BOOT_PACKAGES" ]; then
  # shellcheck disable=SC2086,SC2154 # dnf.sh sets "machine"
  dnf_for_tree --quiet --setopt=metadata_expire=never repoquery --available --latest-limit 1 --arch "$machine,noarch" \
    --queryformat '%{name} %{evr} %{arch}\n' $BOOT_PACKAGES | sed '/^$/d'
fi
