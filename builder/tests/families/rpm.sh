# source_of DEB: prints the name of the source package.
source_of() {
  local source
  source=$(field "$1" Source)
  source=${source%% *}
  echo "${source:-$(field "$1" Package)}"
}

# make_rpm DEB TREE: makes an RPM package. The source package is what rpmbuild calls the main package.
# shellcheck disable=SC2154 # repositories.sh sets "work"
make_rpm() {
  local deb=$1 tree=$2 package source version epoch release build=$2.rpm name=()
  package=$(field "$deb" Package)
  source=$(source_of "$deb")
  version=$(field "$deb" Version)
  epoch=
  release=0
  case $version in *:*) epoch=${version%%:*} version=${version#*:} ;; esac
  case $version in *-*) release=${version##*-} version=${version%-*} ;; esac
  version=${version//-/_}
  [ "$package" = "$source" ] || name=(-n "$package")
  mkdir -p "$build"
  {
    printf 'Name: %s\nVersion: %s\nRelease: %s\nSummary: Test\nLicense: none\n' "$source" "$version" "$release"
    [ -z "$epoch" ] || echo "Epoch: $epoch"
    if [ "$package" != "$source" ]; then
      printf '%%description\nTest\n%%package %s\nSummary: Test\n' "${name[*]}"
    fi
    [ "$(field "$deb" Architecture)" != all ] || echo 'BuildArch: noarch'
    echo 'AutoReqProv: no'
    # base-files has the links from /bin to /usr/bin, so it comes first.
    if [ "$package" != base-files ]; then
      echo 'Requires(pre): base-files'
      dependencies "$deb" | sed 's/^/Requires: /'
    fi
    awk -v package="$package" '$2 == package && $1 != package { print "Provides: " $1 }' "$work/names"
    # Scripts depend on the name of their interpreter.
    [ "$package" != dash ] || echo 'Provides: /bin/sh'
    printf '%%description %s\nTest\n' "${name[*]}"
    printf '%%install\ncp -a --link "%s/." "%%{buildroot}/"\n' "$tree"
    printf '%%files %s -f %s\n%%defattr(-,root,root)\n' "${name[*]}" "$build/files"
    if [ "$package" = ca-certificates ]; then
      # One script is run, to show that scripts are.
      printf '%%posttrans\nupdate-ca-certificates\n'
    fi
  } >"$build/spec"
  # In quotes, only "%" has a meaning.
  (cd "$tree" && find . -mindepth 1 -printf '%y %P\n') |
    sed -E 's/%/%%/g; s/^d (.*)/%dir "\/\1"/; s/^[^d%] (.*)/"\/\1"/' >"$build/files"
  # The newest file dates the package, as in the tests of Debian's variants.
  SOURCE_DATE_EPOCH=$(find "$tree" -type f -printf '%T@\n' | sort -n | tail -n 1 | cut -d . -f 1)
  export SOURCE_DATE_EPOCH
  rpmbuild -bb --quiet --target x86_64 --define "_topdir $build" \
    --define "_rpmdir $work/rpm" --define '_build_name_fmt %%{NAME}_%%{ARCH}.rpm' \
    --define 'use_source_date_epoch_as_buildtime 1' --define '_binary_payload w1.zstdio' \
    --define '__os_install_post %{nil}' --define 'debug_package %{nil}' --define '_build_id_links none' \
    --define '__check_files %{nil}' "$build/spec" >"$build/log" 2>&1 || {
    cat "$build/log" >&2
    return 1
  }
  rm -rf "$build"
}

# Signs the packages and writes the indexes.
# shellcheck disable=SC2154 # repositories.sh sets "work"
index_rpm() {
  find "$work/rpm" -name '*.rpm' -print0 |
    xargs -0 rpmsign --define "_gpg_name $(cat "$work/key.fingerprint")" --addsign >/dev/null
  createrepo_c --quiet "$work/rpm"
  gpg --batch --quiet --armor --detach-sign "$work/rpm/repodata/repomd.xml"
  cp "$work/key.asc" "$work/rpm/repodata/repomd.xml.key"
}
