# Replaces the sources of the image by the operator's mirror. Ubuntu has the security updates in the same
# archive, in the suite NAME-security, and Docker in the component "universe".
if [ -n "$MIRROR" ]; then
  suites=("$SUITE" "$SUITE-updates")
  [ -n "$WITHOUT_SECURITY" ] || suites+=("$SUITE-security")
  rm -rf /etc/apt/sources.list.d
  for suite in "${suites[@]}"; do
    echo "deb [signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg] $MIRROR $suite main universe"
  done >/etc/apt/sources.list
  # The script of Debian that follows would write Debian's suites.
  MIRROR=
fi
