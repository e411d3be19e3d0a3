# Prints the date of the newest package in Unix seconds: the newest build time. The date must depend on the
# packages alone, so that the same packages give the same image.
rpm --root="$ROOT" --query --all --queryformat '%{NAME} %{BUILDTIME}\n' |
  sed -n '/^gpg-pubkey /d; s/^.* //p' | sort -n | tail -n 1
