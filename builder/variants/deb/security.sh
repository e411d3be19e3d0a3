# require_security [OPTION...]: fails if the security archive is not among the sources of apt. The options
# are for apt-get.
require_security() {
  local releases
  # shellcheck disable=SC2016 # apt expands the fields
  releases=$(apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' "$@")
  grep -qxF "$SUITE-security" <<<"$releases" && return
  echo "the security archive $SUITE-security is not among the sources of apt, which are:" \
    "$(sort -u <<<"$releases" | tr '\n' ' ')"
  return 1
}
