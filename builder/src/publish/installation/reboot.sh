# Reboots into the release. The Command runs only after an installation.
if command -v systemctl >/dev/null; then
  # Does not wait, so that the program that runs this Command can report its end.
  systemctl --no-block reboot
else
  reboot
fi
