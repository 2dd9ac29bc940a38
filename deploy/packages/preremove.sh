#!/bin/sh
# Called by dpkg as "remove" or "upgrade NEW VERSION", by rpm as 0 (removed) or 1
# (upgraded). During an upgrade the old agent goes on serving until the new one
# is in place.
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if command -v systemctl >/dev/null; then
	[ ! -d /run/systemd/system ] || systemctl stop vedette-agent.service || true
	systemctl disable --quiet vedette-agent.service || true
fi
