# Upgrades the container and installs the programs that the later stages run.
export DEBIAN_FRONTEND=noninteractive

if [ -n "$MIRROR" ]; then
  # Replace the sources of the image by the operator's mirror. By convention, a mirror of the security
  # archive is at the same URL with the suffix "-security".
  rm -rf /etc/apt/sources.list.d
  for name in "$SUITE" "$SUITE-updates"; do echo "deb $MIRROR $name $COMPONENTS"; done >/etc/apt/sources.list
  [ -n "$WITHOUT_SECURITY" ] ||
    echo "deb $MIRROR-security $SUITE-security $COMPONENTS" >>/etc/apt/sources.list
elif [ -e /etc/apt/sources.list.d/debian.sources ]; then
  # The sources of Debian's container image have only main.
  sed -i "s/^Components: .*/Components: $COMPONENTS/" /etc/apt/sources.list.d/debian.sources
fi

# The packages of the tree have another architecture than the container if an emulator runs them. mmdebstrap tests
# with arch-test whether it does.
if [ "$ARCH" != "$(dpkg --print-architecture)" ]; then
  dpkg --add-architecture "$ARCH"
  TOOLS="$TOOLS arch-test"
fi

apt_get() { apt-get -q -y -o Dpkg::Use-Pty=0 -o Acquire::Languages=none "$@"; }
# By default, apt only warns about sources that do not answer, and continues with old lists.
if ! apt_get -o APT::Update::Error-Mode=any update; then
  if [ -n "$MIRROR" ] && [ -z "$WITHOUT_SECURITY" ]; then
    echo "apt cannot use the mirror $MIRROR, or its security archive $MIRROR-security; correct --mirror or" \
      "the mirror, or build without security updates with --without-security"
  fi
  exit 1
fi
if [ -n "$WITHOUT_SECURITY" ]; then
  echo "WARNING: building without the security archive, because of --without-security"
else
  require_security /etc/apt
fi
apt_get full-upgrade
# $TOOLS has more than the base only if the base is the distribution's image.
# shellcheck disable=SC2086 # a list of packages
apt_get install --no-install-recommends $TOOLS
apt_get clean
