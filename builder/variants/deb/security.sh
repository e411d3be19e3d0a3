# require_security DIRECTORY: fails if the security archive is not among the sources in a directory such as
# /etc/apt.
require_security() {
  local uris
  uris=$(apt-get update --print-uris -o "Dir::Etc::SourceList=$1/sources.list" \
    -o "Dir::Etc::SourceParts=$1/sources.list.d" | cut -d "'" -f 2)
  grep -qF "/dists/$SUITE-security/" <<<"$uris" && return
  echo "the security archive $SUITE-security is not among the sources in $1, which are:" "$uris"
  return 1
}
