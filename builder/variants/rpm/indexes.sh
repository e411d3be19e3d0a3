# Prints a digest of the package indexes of all repositories, as dnf stored them, and of the list of
# repositories and their keys. Other metadata changes with every compose, without effect on the tree.
find /etc/etchaos /var/cache/etchaos -type f \
  '(' -path '/etc/*' -o -name '*primary.xml*' -o -name '*modules.yaml*' ')' | LC_ALL=C sort |
  xargs -d '\n' sha256sum | sha256sum
