# Makes EtchaOS of a distribution's tree, the same for every variant. May run again on its result.
cd "$ROOT"

# Removes what is there and says nothing of what is not.
remove() { rm -rf -- "$@"; }

# --- Our files

# One by one: neither the owners and modes of a checkout nor those of its directories count, only whether
# a file is executable.
(cd "$FILES" && find . ! -type d) | while read -r file; do
  if [ -L "$FILES/$file" ]; then
    mkdir -p "$(dirname "$file")"
    cp -P --remove-destination "$FILES/$file" "$file"
  elif [ -x "$FILES/$file" ]; then
    install -D -m 755 "$FILES/$file" "$file"
  else
    install -D -m 644 "$FILES/$file" "$file"
  fi
done

# --- Who this is

# The distribution's name stays in ID, so that programs which ask for it work.
release=usr/lib/os-release
distribution=$(sed -n 's/^PRETTY_NAME="\(.*\)"$/\1/p; s/^ETCHAOS_BASE="\(.*\)"$/\1/p' $release | tail -n 1)
sed -i -E '/^(PRETTY_NAME|IMAGE_ID|IMAGE_VERSION|VARIANT_ID|VARIANT|DEFAULT_HOSTNAME|ETCHAOS_BASE)=/d' $release
cat >>$release <<EOF
PRETTY_NAME="EtchaOS $IMAGE_VERSION ($distribution)"
IMAGE_ID=etchaos
IMAGE_VERSION=$IMAGE_VERSION
VARIANT_ID=$VARIANT
DEFAULT_HOSTNAME=etchaos
ETCHAOS_BASE="$distribution"
EOF
ln -sfn ../usr/lib/os-release etc/os-release

remove etc/hostname etc/localtime # so: the default of os-release, and UTC
printf '127.0.0.1 localhost\n::1 localhost\n' >etc/hosts
echo 'LANG=C.UTF-8' >etc/locale.conf
# Empty: known at boot only. (Absent or "uninitialized" would mean a first boot.)
: >etc/machine-id

# --- Names

# Static programs have no other resolver built in.
sed -i 's/^hosts:.*/hosts: files dns/' etc/nsswitch.conf
ln -sfn ../run/systemd/resolve/resolv.conf etc/resolv.conf

# --- Nobody logs in

# No password and no shell for any account; no dates either, which would be the build's.
sed -i -E 's/^([^:]*):.*/\1:!*:::::::/' etc/shadow
sed -i -E 's/^([^:]*:[^:]*:[^:]*:[^:]*:[^:]*:[^:]*):.*/\1:\/usr\/sbin\/nologin/' etc/passwd
# Only a login would need another one's rights.
find usr -xdev -type f -perm /6000 -exec chmod ug-s {} +

# --- Units

# As lists, whatever the distribution's presets say. In a chroot systemctl works on files alone.
in_tree() { SYSTEMD_OFFLINE=1 chroot "$ROOT" systemctl "$@" </dev/null; }
list() { tr ' ' '\n' <<<"$1" | sed '/^$/d'; }
unit_exists() { [ -e "usr/lib/systemd/system/$1" ] || [ -e "etc/systemd/system/$1" ]; }

list "$UNITS_DISABLE" | while read -r unit; do
  in_tree disable "$unit" || ! unit_exists "$unit"
done
# Wants that a distribution ships without asking
remove etc/systemd/system/getty.target.wants usr/lib/systemd/system/getty.target.wants
list "$UNITS_MASK" | while read -r unit; do
  remove "etc/systemd/system/$unit"
  in_tree mask "$unit"
done
list "$UNITS_ENABLE" | while read -r unit; do
  in_tree enable "$unit"
done
in_tree set-default multi-user.target
# This generator would start a login on every console of the kernel's command line.
mkdir -p etc/systemd/system-generators
ln -sfn /dev/null etc/systemd/system-generators/systemd-getty-generator

# --- What is not needed, or differs from build to build

remove etc/{passwd,group,shadow,gshadow,subuid,subgid}- etc/.pwd.lock etc/ssh
find etc usr var -type f '(' -name '*.dpkg-old' -o -name '*.dpkg-dist' -o -name '*.dpkg-new' ')' -delete
# hwdb.bin holds what these say
remove usr/lib/udev/hwdb.d usr/share/{doc,man,info,locale,lintian,bash-completion,zsh,fish} \
  usr/lib/systemd/catalog usr/share/pixmaps usr/include usr/src usr/games
find dev proc sys run tmp root home mnt media srv opt -mindepth 1 -delete
find var/cache var/log var/tmp var/spool var/backups -mindepth 1 -delete
chroot "$ROOT" ldconfig
remove var/cache/ldconfig

# --- Times

# systemd rebuilds caches at boot if /usr is newer than these two.
touch etc/.updated var/.updated
# A clock that is behind this one is set to it: no certificate is "not yet valid" on a dead battery.
touch usr/lib/clock-epoch
find . -xdev -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
