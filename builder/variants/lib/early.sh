# Copies the kernel, and the modules that the early init needs to mount /usr. They are decompressed, because
# insmod of busybox does not read .xz. The number in a name is the order in which they are loaded.
kernel=$(ls "$ROOT/usr/lib/modules")

rm -rf "$OUT/early/modules"
mkdir -p "$OUT/early/modules"
number=10
for name in $EARLY_MODULES; do
  # modprobe prints "insmod /path/module.ko.xz", dependencies first, or "builtin name". In a variable, because
  # bash ignores the exit code of a command in "< <(…)".
  found=$(modprobe --dirname="$ROOT" --set-version="$kernel" --show-depends "$name")
  while read -r kind file; do
    [ "$kind" = insmod ] || continue
    module=$(basename "${file%%.ko*}")
    [ -z "$(find "$OUT/early/modules" -name "*-$module.ko")" ] || continue
    target="$OUT/early/modules/$number-$module.ko"
    case $file in
      *.ko.xz) xz --decompress --stdout "$file" >"$target" ;;
      *.ko.zst) zstd --quiet --decompress --stdout "$file" >"$target" ;;
      *.ko) cp "$file" "$target" ;;
      *)
        echo "the module $file has an unknown compression; known: .ko, .ko.xz, .ko.zst"
        exit 1
        ;;
    esac
    number=$((number + 1))
  done <<<"$found"
done

# Keep only the copy of the kernel for the ESP. If the stage runs again, it has been moved already.
boot="$ROOT/boot/vmlinuz-$kernel"
if [ -e "$boot" ]; then
  cp "$boot" "$OUT/vmlinuz"
  rm -f "$ROOT"/boot/*
fi
