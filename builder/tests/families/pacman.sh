# make_pacman DEB TREE: makes a pacman package: a tar archive that begins with its description.
# shellcheck disable=SC2154 # repositories.sh sets "work"
make_pacman() {
  local deb=$1 tree=$2 package version arch date
  package=$(field "$deb" Package)
  # Versions are "epoch:version-release" here, too. A release is required, and "-" is its separator.
  version=$(field "$deb" Version)
  case $version in
    *-*) version=$(sed -E 's/-([^-]*)$/\n\1/' <<<"$version" | sed '1s/-/_/g' | paste -sd -) ;;
    *) version=$version-0 ;;
  esac
  arch=any
  [ "$(field "$deb" Architecture)" = all ] || arch=x86_64
  date=$(find "$tree" -type f -printf '%T@\n' | sort -n | tail -n 1 | cut -d . -f 1)
  {
    printf '%s = %s\n' pkgname "$package" pkgbase "$(source_of "$deb")" pkgver "$version" pkgdesc Test \
      builddate "${date:-0}" packager 'EtchaOS test' size "$(du -sb "$tree" | cut -f 1)" arch "$arch"
    if [ "$package" != base-files ]; then
      { echo base-files; dependencies "$deb"; } | sort -u | sed 's/^/depend = /'
    fi
    awk -v package="$package" '$2 == package && $1 != package { print "provides = " $1 }' "$work/names"
  } >"$tree/.PKGINFO"
  # pacman takes names that begin with "." for descriptions.
  (
    cd "$tree"
    { echo .PKGINFO && find . -mindepth 1 -maxdepth 1 ! -name .PKGINFO -printf '%P\n' | LC_ALL=C sort; } |
      bsdtar --create --zstd --options zstd:compression-level=1 --uid 0 --gid 0 \
        --file "$work/pacman/test/$package-$version-$arch.pkg.tar.zst" --files-from -
  )
  gpg --batch --quiet --detach-sign "$work/pacman/test/$package-$version-$arch.pkg.tar.zst"
}

# Writes the index.
# shellcheck disable=SC2154 # repositories.sh sets "work"
index_pacman() {
  repo-add --quiet --nocolor "$work/pacman/test/test.db.tar.gz" "$work"/pacman/test/*.pkg.tar.zst >/dev/null
}
