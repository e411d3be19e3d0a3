# Bootstraps the base of the sandbox on the build host, if neither a container engine nor a registry offers the
# image of Arch. Arguments: server ($0), what follows the URL of a mirror, packages, the path of the result, and
# the mirror if there is one.
server=$0
packages=$2
to=$3
[ -z "${4-}" ] || server=$4$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root" "$work/gnupg" "$work/cache"
cat >"$work/pacman.conf" <<END
[options]
Architecture = x86_64
SigLevel = Required DatabaseOptional
GPGDir = $work/gnupg
CacheDir = $work/cache
[core]
Server = $server
[extra]
Server = $server
END
pacman-key --gpgdir "$work/gnupg" --init
pacman-key --gpgdir "$work/gnupg" --populate archlinux
# shellcheck disable=SC2086 # a list of packages
pacstrap -C "$work/pacman.conf" -G -M "$work/root" $packages
case $to in
  *.tar) tar --create --file="$to" --xattrs --numeric-owner --directory="$work/root" . ;;
  *) cp -a "$work/root/." "$to/" ;;
esac
