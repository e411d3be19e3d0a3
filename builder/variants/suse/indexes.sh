# Prints a digest of the package indexes of all repositories, as zypper verified and stored them, and of the list
# of repositories and their keys. Other metadata has no effect on the tree.
find /etc/etchaos /var/cache/etchaos -type f '(' -path '/etc/*' -o -name '*primary.xml*' ')' | LC_ALL=C sort |
  xargs -d '\n' sha256sum | sha256sum
