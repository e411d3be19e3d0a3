# Prints the date of the newest package in Unix seconds: the newest build date. The date must depend on the
# packages alone, so that the same packages give the same image.
sed -n '/^%BUILDDATE%$/ { n; p }' "$ROOT"/var/lib/pacman/local/*/desc | sort -n | tail -n 1
