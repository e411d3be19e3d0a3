# The repositories of the tree, with their keys. They lie in /etc/etchaos, so that the tree depends on what the
# variant names alone.
mkdir -p /etc/etchaos/keys /etc/etchaos/repos.d

# add_key NAME SOURCE: makes a key available to add_repository. SOURCE is a file of the image or a URL.
add_key() {
  local key=/etc/etchaos/keys/$1
  case $2 in
    https://*) curl --fail --silent --show-error --location --proto '=https' --output "$key" "$2" ;;
    *) cp "$2" "$key" ;;
  esac
}

# check_key NAME FINGERPRINT: fails unless the file has this key and no other.
check_key() {
  local found
  found=$(gpg --batch --with-colons --show-keys "/etc/etchaos/keys/$1" |
    awk -F: '$1 == "pub" { primary = 1 } $1 == "fpr" && primary { print $10; primary = 0 }')
  [ "$found" = "$2" ] && return
  rm -f "/etc/etchaos/keys/$1"
  echo "the key $1 has the fingerprint '$found', expected $2; if the distribution has a new key, verify it and" \
    "correct the fingerprint in the variant"
  return 1
}

# add_repository ID KEY URL PATH: describes a repository. If there is a mirror, its URL followed by PATH
# replaces the URL.
add_repository() {
  local url=$3
  [ -z "$MIRROR" ] || url="baseurl=$MIRROR$4"
  cat >"/etc/etchaos/repos.d/$1.repo" <<END
[$1]
name=$1
$url
enabled=1
gpgcheck=1
repo_gpgcheck=$SIGNED_INDEXES
gpgkey=file:///etc/etchaos/keys/$2
END
}

# add_updates ID KEY URL PATH: describes a repository with security updates.
add_updates() {
  if [ -n "$WITHOUT_SECURITY" ]; then
    rm -f "/etc/etchaos/repos.d/$1.repo"
  else
    add_repository "$@"
  fi
}
