# amend PACKAGE TREE: adds what the maintainer scripts of a package would do, as far as a boot needs it.
amend() {
  local kernel
  case $1 in
    base-files)
      # The other distributions have this link in a package. Programs such as docker use it.
      rmdir "$2/var/run"
      ln -s /run "$2/var/run"
      ;;
    libc-bin)
      cp --preserve=timestamps "$2/usr/share/libc-bin/nsswitch.conf" "$2/etc/nsswitch.conf"
      ;;
    base-passwd)
      mkdir -p "$2/etc"
      cp "$2/usr/share/base-passwd/passwd.master" "$2/etc/passwd"
      cp "$2/usr/share/base-passwd/group.master" "$2/etc/group"
      sed 's/^\([^:]*\):.*/\1:*:::::::/' "$2/etc/passwd" >"$2/etc/shadow"
      sed 's/^\([^:]*\):.*/\1:*::/' "$2/etc/group" >"$2/etc/gshadow"
      chmod 640 "$2/etc/shadow" "$2/etc/gshadow"
      touch --reference="$2/usr/share/base-passwd/passwd.master" "$2"/etc/{passwd,group,shadow,gshadow}
      ;;
    ca-certificates)
      (cd "$2/usr/share/ca-certificates" && find . -name '*.crt' -printf '%P\n' | sort) >"$2/etc/ca-certificates.conf"
      touch --reference="$2/usr/sbin/update-ca-certificates" "$2/etc/ca-certificates.conf"
      ;;
    docker.io)
      mkdir -p "$2/usr/lib/sysusers.d"
      echo 'g docker - -' >"$2/usr/lib/sysusers.d/docker-test.conf"
      touch --reference="$2/usr/sbin/dockerd" "$2/usr/lib/sysusers.d/docker-test.conf"
      ;;
    iptables)
      ln -s iptables-nft "$2/usr/sbin/iptables"
      ln -s ip6tables-nft "$2/usr/sbin/ip6tables"
      ;;
    mawk)
      ln -s mawk "$2/usr/bin/awk"
      ;;
    linux-image-[0-9]*)
      # The other distributions have the kernel beside its modules.
      kernel=$(ls "$2/usr/lib/modules")
      mv "$2/boot/vmlinuz-$kernel" "$2/usr/lib/modules/$kernel/vmlinuz"
      rm -rf "${2:?}/boot"
      ;;
  esac
}
