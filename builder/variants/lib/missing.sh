# report_missing KNOWN NAME…: prints the names that are not in the file KNOWN, in one line, and after it all names of
# the file, for a suggestion. Prints nothing if the file has all.
report_missing() {
  local known=$1 missing=() name
  shift
  for name in "$@"; do
    grep -qxF -e "$name" "$known" || missing+=("$name")
  done
  [ "${#missing[@]}" != 0 ] || return 0
  echo "${missing[*]}"
  cat "$known"
}
