#!/bin/sh
# Brings ONNX Runtime into FOLDER as libonnxruntime.so.1. The library comes out
# of the npm package onnxruntime-node, taken as a tarball and never installed:
# its install script would download more. Both the tarball and the library are
# pinned by SHA-256; a second call with the library in place does nothing.
#
# usage: fetch.sh FOLDER [x64|arm64]
set -eu

version=1.30.0
tarball_sha256=6e3390d6b783e7be946fad629292799da28d0b42f84856e50d2c1b0383291e75
x64_sha256=ffb75a925ba05e47b235bb66e3e3911714a80b328a9c9425539feb204aa32a23
arm64_sha256=1f549d46250b005580b597f4164984aaf75b3bcb9f3aeb07c7f8a8fe60b23c76

folder=$1
case "${2:-$(uname -m)}" in
x64 | x86_64) arch=x64 want=$x64_sha256 ;;
arm64 | aarch64) arch=arm64 want=$arm64_sha256 ;;
*) echo "onnxruntime: no library for $(uname -m): only x86_64 and aarch64 are supported" >&2; exit 1 ;;
esac

library=$folder/libonnxruntime.so.1
matches() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]; }
if matches "$library" "$want"; then exit 0; fi

mkdir -p "$folder"
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
echo "onnxruntime: fetching onnxruntime-node $version (108 MiB, once)" >&2
(cd "$work" && npm pack --silent --ignore-scripts "onnxruntime-node@$version" >/dev/null) || {
	echo "onnxruntime: npm pack did not work: is the npm registry reachable? (npm ping)" >&2
	exit 1
}
matches "$work/onnxruntime-node-$version.tgz" "$tarball_sha256" || {
	echo "onnxruntime: the tarball's SHA-256 is not the pinned one; nothing was installed" >&2
	exit 1
}
tar -xzf "$work/onnxruntime-node-$version.tgz" -C "$work" "package/bin/napi-v6/linux/$arch/libonnxruntime.so.1"
unpacked=$work/package/bin/napi-v6/linux/$arch/libonnxruntime.so.1
matches "$unpacked" "$want" || {
	echo "onnxruntime: the library's SHA-256 is not the pinned one; nothing was installed" >&2
	exit 1
}
mv "$unpacked" "$library"
