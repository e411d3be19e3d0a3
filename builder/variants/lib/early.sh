# The kernel, and the modules that mount /usr: they have to lie outside of it, uncompressed, as
# busybox knows no .xz. Their number is the order to load them in.
kernel=$(ls "$ROOT/usr/lib/modules")

rm -rf "$OUT/early/modules"
mkdir -p "$OUT/early/modules"
number=10
for name in $EARLY_MODULES; do
  # "insmod /path/module.ko.xz" a line, dependencies first; "builtin name" for what the kernel has
  while read -r kind file; do
    [ "$kind" = insmod ] || continue
    module=$(basename "${file%%.ko*}")
    [ -z "$(find "$OUT/early/modules" -name "*-$module.ko")" ] || continue
    target="$OUT/early/modules/$number-$module.ko"
    case $file in
      *.ko.xz) xz --decompress --stdout "$file" >"$target" ;;
      *.ko.zst) zstd --quiet --decompress --stdout "$file" >"$target" ;;
      *.ko) cp "$file" "$target" ;;
    esac
    number=$((number + 1))
  done < <(modprobe --dirname="$ROOT" --set-version="$kernel" --show-depends "$name")
done

# One copy of the kernel is enough, and it is the one on the ESP. The build may run twice.
boot="$ROOT/boot/vmlinuz-$kernel"
if [ -e "$boot" ]; then
  cp "$boot" "$OUT/vmlinuz"
  rm -f "$ROOT"/boot/*
fi
