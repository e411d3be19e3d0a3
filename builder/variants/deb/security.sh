# require_security [OPTION...]: fails if the security archive is not among the sources of apt. The options
# are for apt-get.
require_security() {
  local uris
  uris=$(apt-get update --print-uris "$@" | cut -d "'" -f 2)
  grep -qF "/dists/$SUITE-security/" <<<"$uris" && return
  echo "the security archive $SUITE-security is not among the sources of apt, which are:" "$uris"
  return 1
}
