#!/bin/sh
# Installs what `make test-package` needs beside what `make test` does, where it
# can; what is still missing then, the tests name and skip.
set -eu
missing=
for pair in debootstrap:debootstrap qemu-aarch64:qemu-user rpm:rpm aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu; do
	command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "test-package: installing$missing libc6-dev-arm64-cross" >&2
	apt-get update -qq
	# shellcheck disable=SC2086 # one word each
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing libc6-dev-arm64-cross >&2
else
	echo "test-package: some checks will be skipped without: apt-get install$missing libc6-dev-arm64-cross" >&2
fi
