#!/usr/bin/env bash
# Builds the packages of the agent, with ONNX Runtime inside:
#
#   deploy/packages/build.sh FOLDER [FORMAT/ARCHITECTURE ...]
#
# FORMAT is deb or rpm, ARCHITECTURE amd64 or arm64; all four by default. FOLDER
# gets the packages, SHA256SUMS and install.sh: what a web server needs to serve.
# The same commit gives the same bytes. VERSION names the version, else the last
# tag and the time of the commit do; WORK is where things are laid out.
set -euo pipefail
cd "$(dirname "$0")/../.."

nfpm="${GO:-go} run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0"
folder=$1
shift
wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || wanted=(deb/amd64 deb/arm64 rpm/amd64 rpm/arm64)
work=${WORK:-build/stage}

die() {
	echo "package: $1" >&2
	exit 1
}

# The version of a commit sorts after its last tag and by time: 1.2.0 for a tag,
# 1.2.0+git20261123063000.8d0e396 after it, 0.0.0+git... where there is none.
version() {
	local tag
	tag=$(git describe --tags --match 'v[0-9]*' --abbrev=0 2>/dev/null || echo v0.0.0)
	if [ "$(git rev-parse -q --verify "$tag^{commit}" || true)" = "$(git rev-parse HEAD)" ]; then
		echo "${tag#v}"
	else
		echo "${tag#v}+git$(TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format=%cd).$(git rev-parse --short=7 HEAD)"
	fi
}

# compiler prints the C compiler for an architecture, and installs it where it can.
compiler() {
	local name=gcc-aarch64-linux-gnu
	if [ "$(go env GOHOSTARCH)" = "$1" ]; then
		echo gcc
		return
	fi
	[ "$1" = arm64 ] || die "on this machine packages for $1 need a C compiler for it: set CC_$1"
	if ! command -v aarch64-linux-gnu-gcc >/dev/null; then
		if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
			die "the agent for arm64 needs a cross-compiler: apt-get install $name libc6-dev-arm64-cross"
		fi
		echo "package: installing $name (once)" >&2
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $name libc6-dev-arm64-cross; } >&2 ||
			die "apt-get install $name libc6-dev-arm64-cross did not work"
	fi
	echo aarch64-linux-gnu-gcc
}

# program builds the agent for an architecture, as the Makefile does. What
# differs between two builds of one commit (paths, build ids) is left out.
program() {
	local cc var=CC_$1
	cc=${!var:-$(compiler "$1")}
	echo "package: building the agent for $1" >&2
	CGO_ENABLED=1 GOOS=linux GOARCH=$1 CC=$cc ${GO:-go} build -trimpath -tags "${TAGS:-grpcnotrace}" \
		-ldflags "-s -w -buildid= -X main.version=$VERSION -extldflags=-Wl,--build-id=none" -o "$2" ./cmd/vedette-agent
}

# glibc prints the oldest version of the C library that both files work with. ONNX
# Runtime works with 2.28; the agent asks for what the system has that links it,
# so packages for an older one, like Ubuntu 20.04 of JetPack 5, are built there.
glibc() {
	cat "$@" | grep -aoE 'GLIBC_2\.[0-9]+' | sort -Vu | tail -1 | cut -d_ -f2
}

# stage lays out what the packages of one architecture hold.
stage() {
	local arch=$1 dir=$work/$1 library=build/onnxruntime
	[ "$(go env GOHOSTARCH)" = "$arch" ] || library=build/onnxruntime-$arch
	deploy/onnxruntime/fetch.sh "$library" "${arch/amd64/x64}"
	rm -rf "$dir"
	mkdir -p "$dir/completions"
	cp "$library/libonnxruntime.so.1" "$dir/"
	if [ "$(go env GOHOSTARCH)" = "$arch" ]; then
		cp "$work/agent" "$dir/vedette-agent"
	else
		program "$arch" "$dir/vedette-agent"
	fi
	cp -r "$work/common/." "$dir/"
	cp deploy/packages/copyright "$dir/"
	(cd "$dir" && sha256sum libonnxruntime.so.1 >libonnxruntime.so.1.sha256)
}

# common writes what the agent says of itself, once for all architectures.
common() {
	local agent=$work/agent shell
	program "$(go env GOHOSTARCH)" "$agent"
	rm -rf "$work/common"
	mkdir -p "$work/common/completions"
	"$agent" manual "$work/common/man"
	gzip -9n "$work"/common/man/*.1
	for shell in bash fish zsh; do
		"$agent" completion $shell >"$work/common/completions/$shell"
	done
}

export VERSION=${VERSION:-$(version)}
[[ $VERSION =~ ^[0-9][A-Za-z0-9.+~]*$ ]] || die "version $VERSION: must begin with a digit and hold only letters, digits and . + ~"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
ORT_VERSION=$(sed -n 's/^version=//p' deploy/onnxruntime/fetch.sh)
export ORT_VERSION

mkdir -p "$folder" "$work"
rm -f "$folder"/vedette-agent[_-]* "$folder"/SHA256SUMS
common
for arch in amd64 arm64; do
	[[ " ${wanted[*]} " == *"/$arch "* ]] || continue
	stage $arch
	STAGE=$work/$arch ARCH=$arch GLIBC=$(glibc "$work/$arch/vedette-agent" "$work/$arch/libonnxruntime.so.1")
	export STAGE ARCH GLIBC
	echo "package: the agent for $arch needs glibc $GLIBC or newer" >&2
	for format in deb rpm; do
		[[ " ${wanted[*]} " == *" $format/$arch "* ]] || continue
		said=$($nfpm package --config deploy/packages/nfpm.yaml --packager $format --target "$folder/" 2>&1) || die "nfpm: $said"
	done
done
cp deploy/install.sh "$folder/"
(cd "$folder" && sha256sum install.sh vedette-agent[_-]* >SHA256SUMS && cat SHA256SUMS)
