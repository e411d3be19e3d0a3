# unpack_packages: unpacks the packages ./*.rpm to ./tree. Fails if one is not signed with a key of the variant;
# package managers do not verify the signatures of packages that they only download.
unpack_packages() {
  local package checked
  mkdir keyring tree
  rpmkeys --dbpath="$PWD/keyring" --import /etc/etchaos/keys/*
  for package in ./*.rpm; do
    # The exit code is 0 for a package without a signature, too.
    checked=$(LC_ALL=C rpmkeys --dbpath="$PWD/keyring" --checksig "$package" || true)
    if [ "$checked" != "$package: digests signatures OK" ]; then
      echo "the package $package is not signed with a key of the variant: $checked"
      return 1
    fi
    # cpio ends before it has read all padding, so a pipe would break.
    rpm2cpio "$package" >payload
    (cd tree && cpio --quiet --extract --make-directories <../payload)
    rm payload
  done
}

# list_packages PACKAGE: lists the packages ./*.rpm, and the package of the container for BIOS, as the manifest
# needs it.
list_packages() {
  local fields='%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH} %{SOURCERPM}\n'
  {
    rpm --query --package --queryformat "$fields" ./*.rpm
    if [ "$ARCH" = amd64 ]; then rpm --query --queryformat "$fields" "$1"; fi
  } | sed -E 's/ ([^ ]+)-([^ -]+-[^ -]+)\.(no)?src\.rpm$/ \1 \2/' | LC_ALL=C sort
}
