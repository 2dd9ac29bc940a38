#!/bin/sh
# Called by dpkg as "remove" or "purge" (among others), by rpm as 0 (removed) or
# 1 (upgraded). Removing keeps the state: the device's identity, its models and
# what waits to be sent. Only a purge, which rpm does not know, deletes it.
set -e

case "$1" in
remove | purge | 0) ;;
*) exit 0 ;;
esac
if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
[ "$1" = purge ] || exit 0
rm -rf /var/lib/vedette /etc/vedette /run/vedette
if getent passwd vedette >/dev/null; then
	userdel vedette || true
fi
if getent group vedette >/dev/null; then
	groupdel vedette || true
fi
