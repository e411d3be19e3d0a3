
# The steps that only Ubuntu needs: configuration of programs for logins, support and news.
rm -rf etc/apport etc/update-manager etc/update-notifier etc/ubuntu-advantage etc/default \
  etc/legal usr/share/apport var/lib/ubuntu-advantage
