# Prints a digest of the package indexes of all archives, as apt verified and stored them, and of the list of
# archives and their keys. The Commands of bootstrap install packages from these indexes.
{
  find /etc/apt /var/lib/apt/lists -type f -size +0 ! -name '*Release' | LC_ALL=C sort |
    xargs -d '\n' sha256sum
  # Archives are signed several times a day even if no package changes. Dates have no effect here, because apt
  # has checked them already.
  find /var/lib/apt/lists -type f -name '*Release' | LC_ALL=C sort | while read -r file; do
    echo "$file"
    sed '/^Date: /d; /^Valid-Until: /d; /^ /d; /^-----BEGIN PGP SIGNATURE/,$d' "$file"
  done
} | sha256sum
