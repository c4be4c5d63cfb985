#!/bin/sh
# Install the Debian packages of the named sections of packages.txt that are missing.
# When nothing is missing this costs some milliseconds and touches neither the network nor the machine.
set -eu

list=$(dirname "$0")/packages.txt

section() {
    awk -v name="[$1]" '/^\[/ { on = ($0 == name); next } on && NF && !/^#/' "$list"
}

is_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=""
for name in "$@"; do
    packages=$(section "$name")
    [ -n "$packages" ] || { echo "setup: $list has no section [$name]" >&2; exit 2; }
    for package in $packages; do
        is_installed "$package" || missing="$missing $package"
    done
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "setup: missing packages:$missing" >&2
    echo "setup: run this as root, or install them yourself" >&2
    exit 1
fi

# No service is started by what the tests install, whatever PID 1 is: for as long as we install, we are the policy.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update
# shellcheck disable=SC2086  # one word a package
apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install $missing
