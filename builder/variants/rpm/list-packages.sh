# Lists the packages of the tree as "name version arch source source-version", one on a line. Imported keys are
# no packages. The name of a source package is "name-version-release.src.rpm".
rpm --root="$ROOT" --query --all \
  --queryformat '%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH} %{SOURCERPM}\n' |
  sed -E '/^gpg-pubkey /d; s/ \(none\)$//; s/ ([^ ]+)-([^ -]+-[^ -]+)\.(no)?src\.rpm$/ \1 \2/' | LC_ALL=C sort
