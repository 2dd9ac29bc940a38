#!/bin/sh
# Installs the Vedette agent: picks the package for this machine, verifies its
# checksum, installs it and, if asked, enrols the device. See usage below.
set -eu

usage() {
	cat <<'TEXT'
Installs the Vedette agent on this device.

  install.sh [--from PLACE] [--version VERSION] [--enrol] [--sums FILE] [--download FOLDER]

  --from PLACE       https://... or a folder that holds the packages and
                     SHA256SUMS (default: the folder of this script)
  --version VERSION  the version to install, where PLACE holds several; an older
                     one than the installed is a downgrade
  --enrol            then enrol this device and start the agent. The token is
                     read from standard input, or from $VEDETTE_ENROL_TOKEN;
                     never from the command line, which everybody can list
  --sums FILE        take the checksums from FILE, which you got from somebody
                     you trust, instead of from PLACE
  --download FOLDER  only fetch the package into FOLDER and verify it
  --help             print this

Nothing is installed unless the SHA-256 of the package is the listed one. The
checksums come from PLACE itself, so PLACE has to be https, a folder or this
machine; with --sums it may be anything.

  curl -fsSL https://example.com/vedette/install.sh | sh -s -- --from https://example.com/vedette
  vedette device token create -q --device cam-1 | ssh cam-1 sudo sh install.sh --from https://example.com/vedette --enrol
TEXT
}

say() { echo "vedette: $*" >&2; }
die() {
	say "$*"
	exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# fetch copies a file of PLACE.
fetch() {
	case "$from" in
	https://*)
		# Not one hop in the clear, whatever the server answers. wget cannot
		# tell such redirects from others, so it follows none.
		if have curl; then
			curl -fsSL --proto =https --proto-redir =https --retry 3 --connect-timeout 20 -o "$2" "$from/$1"
		elif have wget; then
			wget -q --max-redirect=0 --tries=3 --timeout=20 -O "$2" "$from/$1"
		else
			die "neither curl nor wget is here to download with: apt-get install curl"
		fi || die "cannot get $from/$1: is the address right, can this machine reach it, and is no redirect leading from https to plain http (wget follows none at all)?"
		;;
	http://*)
		if have curl; then
			curl -fsSL --retry 3 --connect-timeout 20 -o "$2" "$from/$1"
		elif have wget; then
			wget -q --tries=3 --timeout=20 -O "$2" "$from/$1"
		else
			die "neither curl nor wget is here to download with: apt-get install curl"
		fi || die "cannot get $from/$1: is the address right, and can this machine reach it?"
		;;
	*) cp "$from/$1" "$2" 2>/dev/null || die "$from has no file $1" ;;
	esac
}

# pattern is how the package for this machine is named, as an extended regular
# expression around its version.
pattern() {
	case "$(uname -m)" in
	x86_64 | amd64) deb=amd64 rpm=x86_64 ;;
	aarch64 | arm64) deb=arm64 rpm=aarch64 ;;
	*) die "there is no agent for $(uname -m): only x86_64 and aarch64 are supported" ;;
	esac
	wanted='[^ /]+'
	[ -z "$version" ] || wanted="$(printf %s "$version" | sed 's/[.+]/\\&/g')(-[0-9]+)?"
	if have dpkg; then
		echo "vedette-agent_${wanted}_$deb\\.deb"
	elif have rpm; then
		echo "vedette-agent-${wanted}\\.$rpm\\.rpm"
	else
		die "this system has neither dpkg nor rpm: unpack a package by hand, see its list of files"
	fi
}

# choose prints the name of the one package that fits.
choose() {
	name=$(pattern)
	found=$(sed -nE "s/^[0-9a-f]{64} [ *]($name)\$/\\1/p" "$sums" | sort -u)
	case "$(printf '%s\n' "$found" | grep -c .)" in
	1) echo "$found" ;;
	0) die "SHA256SUMS lists no package${version:+ of version $version} for this machine ($(uname -m)); it lists: $(sed -E 's/^[^ ]* .//' "$sums" | tr '\n' ' ')" ;;
	*) die "there are several packages for this machine; choose one with --version: $(printf '%s' "$found" | tr '\n' ' ')" ;;
	esac
}

# verify ends the script unless the file has the listed checksum.
verify() {
	want=$(sed -nE "s/^([0-9a-f]{64}) [ *]$(printf %s "$1" | sed 's/[.+]/\\&/g')\$/\\1/p" "$sums" | sort -u)
	got=$(sha256sum "$2" | cut -d' ' -f1)
	[ "$got" = "$want" ] || die "the checksum of $1 is not the listed one: it is damaged or was tampered with; nothing was installed
  listed $want
  found  $got"
}

# as_root runs a command with the rights to install.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif have sudo; then
		sudo "$@"
	else
		die "installing needs root: run this as root"
	fi
}

install_package() {
	case "$1" in
	*.deb)
		# apt-get brings what the package depends on; without a network dpkg
		# installs it as long as all of that is there.
		if have apt-get && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --allow-downgrades -o Dpkg::Options::=--force-confold "$1"; then
			return
		fi
		as_root dpkg --force-confold -i "$1"
		;;
	*)
		if have dnf && as_root dnf install -y -q "$1"; then
			return
		fi
		as_root rpm -U --oldpackage --replacepkgs "$1"
		;;
	esac || die "the package was verified but could not be installed: see above. Where libc6 or glibc is too old, have it built on a system as old as this one"
}

# enrol reads the token where no list of processes shows it.
enrol() {
	if [ -n "${VEDETTE_ENROL_TOKEN:-}" ]; then
		printf '%s\n' "$VEDETTE_ENROL_TOKEN" | as_root vedette-agent enrol -
	else
		say "reading the enrolment token from standard input"
		as_root vedette-agent enrol -
	fi || die "the agent is installed but not enrolled: get a new token with \`vedette device token create\`, then: sudo vedette-agent enrol -"
	if [ -d /run/systemd/system ]; then
		as_root systemctl restart vedette-agent || die "the agent is enrolled but does not start: journalctl -u vedette-agent"
		say "the agent runs; look at it with: vedette-agent status, sudo vedette-agent doctor"
	else
		say "enrolled; systemd does not run here, so start the agent yourself: vedette-agent run"
	fi
}

from=
version=
sums_file=
download=
enrol=no
while [ $# -gt 0 ]; do
	case "$1" in
	--from | --version | --sums | --download)
		[ $# -gt 1 ] || die "$1 needs a value, see --help"
		case "$1" in
		--from) from=${2%/} ;;
		--version) version=$2 ;;
		--sums) sums_file=$2 ;;
		--download) download=$2 ;;
		esac
		shift
		;;
	--enrol | --enroll) enrol=yes ;;
	-h | --help)
		usage
		exit 0
		;;
	*) die "$1: not understood, see --help" ;;
	esac
	shift
done

if [ -z "$from" ]; then
	from=$(dirname "$0")
	[ -e "$from/SHA256SUMS" ] || die "where are the packages? Say it with --from, an https address or a folder:
  sh install.sh --from https://example.com/vedette
  curl -fsSL https://example.com/vedette/install.sh | sh -s -- --from https://example.com/vedette"
fi
case "$from" in
http://127.0.0.1[:/]* | http://localhost[:/]* | "http://[::1]"*) ;;
http://*) [ -n "$sums_file" ] || die "over plain http anybody between here and $from could exchange packages and checksums: use https, or bring the checksums with --sums" ;;
esac
have sha256sum || die "sha256sum is not here to verify with: apt-get install coreutils"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
sums=$work/SHA256SUMS
if [ -n "$sums_file" ]; then
	cp "$sums_file" "$sums" 2>/dev/null || die "$sums_file cannot be read"
else
	fetch SHA256SUMS "$sums"
fi
grep -qE '^[0-9a-f]{64} [ *]' "$sums" || die "SHA256SUMS holds no checksums: is $from the right place?"
package=$(choose)
say "getting $package from $from"
fetch "$package" "$work/$package"
verify "$package" "$work/$package"
if [ -n "$download" ]; then
	mkdir -p "$download"
	mv "$work/$package" "$download/$package"
	say "verified, nothing installed: $download/$package"
	exit 0
fi
# apt reads the file as a user of its own.
chmod 755 "$work"
install_package "$work/$package" </dev/null # the token is for the agent
say "installed $package"
if [ $enrol = yes ]; then
	enrol
elif [ -e /var/lib/vedette/identity/identity.json ] 2>/dev/null; then
	say "this device is enrolled already; what runs was restarted: vedette-agent status"
else
	say "next: enrol this device with a token of \`vedette device token create\`
  sudo vedette-agent enrol -
  sudo systemctl start vedette-agent"
fi
