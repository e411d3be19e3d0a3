# Turns the tree of a distribution into EtchaOS, in the same way for every variant. Can run again on its own
# result.
cd "$ROOT"

# Removes files, and ignores those that do not exist.
remove() { rm -rf -- "$@"; }

# --- Files of EtchaOS

# Copy file by file, with the modes that the builder has set. Owners are ignored.
(cd "$FILES" && find . ! -type d) | while read -r file; do
  if [ -L "$FILES/$file" ]; then
    mkdir -p "$(dirname "$file")"
    cp -P --remove-destination "$FILES/$file" "$file"
  else
    install -D -m "$(stat --format=%a "$FILES/$file")" "$FILES/$file" "$file"
  fi
done

# --- Identity

# ID remains the distribution's, because programs depend on it.
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

remove etc/hostname etc/localtime # defaults: the name from os-release, and UTC
printf '127.0.0.1 localhost\n::1 localhost\n' >etc/hosts
echo 'LANG=C.UTF-8' >etc/locale.conf
# Empty, so that each boot generates an ID. If it were missing or "uninitialized", systemd would treat the
# boot as the first one.
: >etc/machine-id

# --- Name resolution

# Statically linked programs support no other sources.
sed -i 's/^hosts:.*/hosts: files dns/' etc/nsswitch.conf
ln -sfn ../run/systemd/resolve/resolv.conf etc/resolv.conf

# --- No logins

# Accounts have no password and no shell. Dates are removed, because they would be those of the build.
sed -i -E 's/^([^:]*):.*/\1:!*:::::::/' etc/shadow
sed -i -E 's/^([^:]*:[^:]*:[^:]*:[^:]*:[^:]*:[^:]*):.*/\1:\/usr\/sbin\/nologin/' etc/passwd
# Without logins, setuid and setgid programs have no use.
find usr -xdev -type f -perm /6000 -exec chmod ug-s {} +

# --- Kernel modules

# SquashFS compresses them. In a compressed module, a change of one byte changes all that follow, so deltas of
# compressed modules would be as large as the modules.
compressed=$(find usr/lib/modules -name '*.ko.xz' -o -name '*.ko.zst')
if [ -n "$compressed" ]; then
  find usr/lib/modules -name '*.ko.xz' -exec xz --decompress {} +
  find usr/lib/modules -name '*.ko.zst' -exec zstd --quiet --decompress --rm {} +
  for kernel in usr/lib/modules/*; do
    depmod --basedir="$ROOT" "$(basename "$kernel")"
  done
fi

# --- Units

# Enable and disable units by the lists of the variant; the presets of the distribution are ignored.
# With SYSTEMD_OFFLINE, systemctl only changes files.
in_tree() { SYSTEMD_OFFLINE=1 chroot "$ROOT" systemctl "$@" </dev/null; }
list() { tr ' ' '\n' <<<"$1" | sed '/^$/d'; }
unit_exists() { [ -e "usr/lib/systemd/system/$1" ] || [ -e "etc/systemd/system/$1" ]; }

list "$UNITS_DISABLE" | while read -r unit; do
  in_tree disable "$unit" || ! unit_exists "$unit"
done
# Some distributions ship these links in their packages.
remove etc/systemd/system/getty.target.wants usr/lib/systemd/system/getty.target.wants
list "$UNITS_MASK" | while read -r unit; do
  remove "etc/systemd/system/$unit"
  in_tree mask "$unit"
done
list "$UNITS_ENABLE" | while read -r unit; do
  in_tree enable "$unit"
done
in_tree set-default multi-user.target
# This generator would start a login prompt on every console of the kernel's command line.
mkdir -p etc/systemd/system-generators
ln -sfn /dev/null etc/systemd/system-generators/systemd-getty-generator

# --- Files that are not needed, or that differ between builds

remove etc/{passwd,group,shadow,gshadow,subuid,subgid}- etc/.pwd.lock etc/ssh
find etc usr var -type f '(' -name '*.dpkg-old' -o -name '*.dpkg-dist' -o -name '*.dpkg-new' ')' -delete
# Of the hardware database, udev needs only what names network cards. The rest, 13 MB, has settings of
# keyboards, mice and cameras, and the names of vendors and products.
if [ -d usr/lib/udev/hwdb.d ]; then
  for file in usr/lib/udev/hwdb.d/*; do
    grep -q '^ ID_NET_' "$file" || remove "$file"
  done
  # It needs /proc to write the file. The mount ends with the program.
  mkdir -p proc
  unshare --pid --fork --mount-proc="$ROOT/proc" chroot "$ROOT" systemd-hwdb --usr update
fi
# The sources in hwdb.d and catalog are compiled into binary databases.
remove usr/lib/udev/hwdb.d usr/share/{doc,man,info,locale,lintian,bash-completion,zsh,fish} \
  usr/lib/systemd/catalog usr/share/pixmaps usr/include usr/src usr/games
# Not every distribution has all of these directories.
mkdir -p dev proc sys run tmp root home mnt media srv opt var/{cache,log,tmp,spool,backups}
# Programs such as docker look for sockets in /var/run.
if [ ! -L var/run ]; then
  remove var/run
  ln -s ../run var/run
fi
find dev proc sys run tmp root home mnt media srv opt -mindepth 1 -delete
find var/cache var/log var/tmp var/spool var/backups -mindepth 1 -delete
chroot "$ROOT" ldconfig
remove var/cache/ldconfig

# --- Times

# systemd rebuilds caches at boot if /usr is newer than these two files.
touch etc/.updated var/.updated
# systemd advances the clock to the time of this file. Without it, a clock with an empty battery would make
# certificates "not yet valid".
touch usr/lib/clock-epoch
find . -xdev -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
