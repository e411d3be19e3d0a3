# apt_for_tree PROGRAM ARGUMENT…: runs apt-get or apt-cache with the archives of the container, as if the tree was
# empty.
apt_for_tree() {
  local program=$1
  shift
  "$program" -o "APT::Architecture=$ARCH" -o "APT::Architectures=$ARCH" -o Dir::State::status=/dev/null \
    -o APT::Sandbox::User=root -o APT::Install-Recommends=false "$@"
}
