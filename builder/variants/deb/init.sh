# Brings the container up to date and installs what the later stages run.
export DEBIAN_FRONTEND=noninteractive

if [ -n "$MIRROR" ]; then
  # The operator's mirror replaces the image's own sources. By convention a mirror of the security
  # archive lies beside the main one; where it does not, its packages come with the next point release.
  rm -rf /etc/apt/sources.list.d
  mirror=${MIRROR%/}
  printf 'deb %s %s main\n' "$mirror" "$SUITE" "$mirror" "$SUITE-updates" >/etc/apt/sources.list
  # Only "404" says that it is not there; on anything else it would be wrong to go on without.
  security="$mirror-security/dists/$SUITE-security/InRelease"
  if answer=$(/usr/lib/apt/apt-helper download-file "$security" /tmp/InRelease 2>&1); then
    printf 'deb %s %s main\n' "$mirror-security" "$SUITE-security" >>/etc/apt/sources.list
  elif [[ $answer == *404* || $answer == *'File not found'* ]]; then
    echo "there is no $mirror-security: building without the security archive"
  else
    echo "cannot tell whether there is a $mirror-security: $answer"
    exit 1
  fi
  rm -f /tmp/InRelease
fi

apt_get() { apt-get -q -y -o Dpkg::Use-Pty=0 "$@"; }
# apt warns about sources that do not answer and goes on with old lists; here that is an error.
apt_get -o APT::Update::Error-Mode=any update
apt_get full-upgrade
# kmod looks up modules, grub-* make the BIOS boot loader, dosfstools and mtools the ESP.
apt_get install --no-install-recommends \
  mmdebstrap debian-archive-keyring kmod xz-utils squashfs-tools dosfstools mtools grub-common grub-pc-bin
