# Upgrades the container and installs the programs that the later stages run.
export DEBIAN_FRONTEND=noninteractive

if [ -n "$MIRROR" ]; then
  # Replace the sources of the image by the operator's mirror. By convention, a mirror of the security
  # archive is at the same URL with the suffix "-security". Without one, security updates arrive with the
  # next point release.
  rm -rf /etc/apt/sources.list.d
  mirror=${MIRROR%/}
  printf 'deb %s %s main\n' "$mirror" "$SUITE" "$mirror" "$SUITE-updates" >/etc/apt/sources.list
  # Only "404" means that there is no such mirror. After any other error, a build without security updates
  # would be wrong.
  security="$mirror-security/dists/$SUITE-security/InRelease"
  if answer=$(/usr/lib/apt/apt-helper download-file "$security" /tmp/InRelease 2>&1); then
    printf 'deb %s %s main\n' "$mirror-security" "$SUITE-security" >>/etc/apt/sources.list
  elif [[ $answer == *404* || $answer == *'File not found'* ]]; then
    echo "$mirror-security does not exist: building without the security archive"
  else
    echo "cannot determine whether $mirror-security exists: $answer"
    exit 1
  fi
  rm -f /tmp/InRelease
fi

apt_get() { apt-get -q -y -o Dpkg::Use-Pty=0 -o Acquire::Languages=none "$@"; }
# By default, apt only warns about sources that do not answer, and continues with old lists.
apt_get -o APT::Update::Error-Mode=any update
apt_get full-upgrade
# $TOOLS has more than the base only if the base is the distribution's image.
# shellcheck disable=SC2086 # a list of packages
apt_get install --no-install-recommends $TOOLS
apt_get clean
