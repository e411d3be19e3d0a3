# unpack_packages: downloads the packages of the boot loaders to the current directory, and unpacks them to ./tree.
unpack_packages() {
  local package packages=()
  for package in $BOOT_PACKAGES; do packages+=("$package:$ARCH"); done
  apt-get -q -o APT::Sandbox::User=root download "${packages[@]}"
  for package in ./*.deb; do dpkg-deb -x "$package" tree; done
}

# list_packages: lists the packages ./*.deb as the manifest needs it.
list_packages() {
  local package
  for package in ./*.deb; do
    # shellcheck disable=SC2016 # dpkg-deb expands the fields
    dpkg-deb --show --showformat='${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n' "$package"
  done | LC_ALL=C sort
}
