#!/bin/bash
# Makes a repository of RPM packages and one of pacman packages from packages of Debian, so that the package
# managers of other distributions can be tested without these. Usage: repositories.sh WORK PACKAGE…
#
# Runs on Debian, as root, with rpm, createrepo-c, makepkg, libarchive-tools and gnupg. Writes to WORK:
#   rpm/           the RPM packages and their indexes
#   pacman/test/   the pacman packages and their index
#   key.asc, key.fingerprint        the key that signed both
#   other.asc, other.fingerprint    a key that signed nothing
# The packages have Debian's files with their times, names, versions, sources and dependencies. They have no
# maintainer scripts, because these need dpkg; amend.sh does what a boot needs of them.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
work=$(realpath "$1")
shift
# shellcheck source=/dev/null
. "$here/amend.sh"
# shellcheck source=/dev/null
. "$here/rpm.sh"
# shellcheck source=/dev/null
. "$here/pacman.sh"

# Downloads the packages and their dependencies, as if nothing was installed.
download() {
  mkdir -p "$work/debs/partial"
  : >"$work/status"
  apt-get -qq -y -o Dir::State::status="$work/status" -o Dir::Cache::archives="$work/debs" \
    -o APT::Install-Recommends=false -o APT::Sandbox::User=root --download-only install "$@"
}

# field DEB NAME: prints a field of a package.
field() { dpkg-deb --field "$1" "$2"; }

# Writes the name of each package, and the names that it provides, as "name package" to $work/names.
collect_names() {
  local deb package
  for deb in "$work"/debs/*.deb; do
    package=$(field "$deb" Package)
    echo "$package $package"
    field "$deb" Provides | tr ',' '\n' | sed -E '/^$/d; s/^ *([^ (:]+).*/\1 '"$package/"
  done >"$work/names"
}

# dependencies DEB: prints a name for each dependency: the first alternative that one of the packages has.
dependencies() {
  local line name found
  { field "$1" Pre-Depends; field "$1" Depends; } | tr ',' '\n' | while read -r line; do
    [ -n "$line" ] || continue
    found=
    while read -r name; do
      if grep -q "^$name " "$work/names"; then
        found=$name
        break
      fi
    done < <(tr '|' '\n' <<<"$line" | sed -E 's/^ *([^ (:]+).*/\1/')
    # Recommended packages are not downloaded, and neither are the alternatives that apt did not choose.
    [ -z "$found" ] || echo "$found"
  done | sort -u
}

# unpack DEB TREE: unpacks the files of a package as the other distributions have them: programs and libraries
# below /usr, and no scripts for SysV init, which systemctl would enable with a program of Debian.
unpack() {
  local directory
  mkdir -p "$2"
  dpkg-deb --extract "$1" "$2"
  rm -rf "$2"/etc/init.d "$2"/etc/rc?.d
  for directory in bin sbin lib lib64; do
    if [ -d "$2/$directory" ] && [ ! -L "$2/$directory" ]; then
      mkdir -p "$2/usr/$directory"
      cp -a --link "$2/$directory/." "$2/usr/$directory/"
      rm -rf "${2:?}/$directory"
    fi
  done
}

# make_key NAME: makes a key, and leaves gpg with it.
make_key() {
  export GNUPGHOME=$work/gnupg-$1
  mkdir -m 700 "$GNUPGHOME"
  gpg --batch --quiet --passphrase '' --quick-generate-key "EtchaOS $1 <$1@example.org>" rsa2048 sign never
  gpg --batch --armor --export >"$work/$1.asc"
  gpg --batch --with-colons --list-keys | awk -F: '$1 == "fpr" { print $10; exit }' >"$work/$1.fingerprint"
}

# repackage DEB: makes both packages.
repackage() {
  local tree=$work/trees/$BASHPID package
  package=$(field "$1" Package)
  unpack "$1" "$tree"
  amend "$package" "$tree"
  make_rpm "$1" "$tree"
  make_pacman "$1" "$tree"
  rm -rf "$tree"
}

mkdir -p "$work"/{rpm,pacman/test,trees}
download "$@"
collect_names
make_key other
make_key key
export -f repackage unpack amend make_rpm make_pacman field dependencies source_of
export work
# shellcheck disable=SC2016 # the inner shell expands $1
find "$work/debs" -maxdepth 1 -name '*.deb' -print0 |
  xargs -0 --max-procs="${JOBS:-1}" --max-args=1 bash -euo pipefail -c 'repackage "$1"' repackage
index_rpm
index_pacman
echo "$(find "$work/rpm" -name '*.rpm' | wc -l) RPM packages, $(find "$work/pacman" -name '*.pkg.tar.zst' | wc -l) pacman packages"
