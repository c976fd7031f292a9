# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What ./check and ./demo share: getting the packages, configuring and building in build/. Sourced by bash; the caller
# has set `root` to the top of the source tree.

build=$root/build

die()
{
	printf '%s\n' "$@" >&2
	exit 1
}

# Packages of Debian 12, by name. Those that are missing.
missing_packages()
{
	local package

	for package in "$@"; do
		[[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == 'install ok installed' ]] ||
			printf '%s\n' "$package"
	done
}

# Install what is missing when that is possible without asking, else say the one line that does it.
need_packages()
{
	local missing as_root=()

	command -v dpkg-query >/dev/null || return 0 # not Debian: configure says what is missing
	mapfile -t missing < <(missing_packages "$@")
	((${#missing[@]})) || return 0
	if ((EUID != 0)); then
		as_root=(sudo -n)
		if ! sudo -n true 2>/dev/null; then
			die "Packages are missing. Run this, then try again:" "" \
				"    sudo apt-get install -y ${missing[*]}"
		fi
	fi
	echo "Installing ${missing[*]}"
	mkdir -p "$build"
	local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
		apt-get install -y -qq --no-install-recommends "${missing[@]}")
	if ! "${install[@]}" >"$build/packages.log" 2>&1 </dev/null; then
		# No package lists yet, or old ones.
		{ "${as_root[@]}" apt-get update -qq && "${install[@]}"; } >"$build/packages.log" 2>&1 </dev/null || {
			cat "$build/packages.log" >&2
			die "" "Could not install packages. This is the line that failed:" "" \
				"    apt-get install -y ${missing[*]}"
		}
	fi
}

build_packages=(build-essential autoconf automake libtool pkg-config libzydis-dev liburcu-dev libcriterion-dev)

# autoreconf and configure, only when something they read has changed.
configure_tree()
{
	if [[ ! -x $root/configure || ! -f $root/build-aux/ltmain.sh || ! -f $root/Makefile.in ||
		$root/configure.ac -nt $root/configure || $root/Makefile.am -nt $root/Makefile.in ]]; then
		(cd "$root" && autoreconf -i) || return
	fi
	mkdir -p "$build"
	if [[ ! -f $build/Makefile || $root/configure -nt $build/config.status ]]; then
		(cd "$build" && "$root/configure") || return
	fi
}

# Run a command with its output in a log; show the log when it fails.
logged()
{
	local log=$1
	shift

	"$@" >"$log" 2>&1 </dev/null || {
		tail -n 60 "$log" >&2
		die "" "failed: $*" "The whole log: $log"
	}
}
