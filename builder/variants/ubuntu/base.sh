# Bootstraps the base of the sandbox on the build host, if neither a container engine nor a registry offers
# Ubuntu's image. Arguments: suite ($0), packages ($1), the path of the result, and the mirror if there is one.
keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg
if [ ! -s "$keyring" ]; then
  echo "mmdebstrap cannot verify Ubuntu's packages: $keyring does not exist. Debian has no package with" \
    "this key. Start Docker or Podman, so that Ubuntu's image can be used, or copy the file from ubuntu-keyring" \
    "of an Ubuntu host." >&2
  exit 1
fi
suite=$0
packages=$1
shift
exec mmdebstrap --variant=apt --components=main,universe --keyring="$keyring" --include="$packages" \
  --dpkgopt=force-unsafe-io --aptopt='APT::Install-Recommends "false"' \
  --aptopt='Acquire::Languages "none"' --skip=cleanup/apt/lists "$suite" "$@"
