# Creates the tree from RPM packages. zypper runs in the container, verifies the signatures of the indexes and of
# packages with the keys of the variant, and is not installed in the tree.
start_tree
rpm --root="$ROOT" --import /etc/etchaos/keys/*

# The indexes must be those that "init" listed.
# shellcheck disable=SC2086 # a list of packages
zypper_for_tree --releasever "$RELEASE" --no-refresh install --no-recommends --auto-agree-with-licenses $PACKAGES

finish_tree
