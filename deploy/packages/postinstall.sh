#!/bin/sh
# Called by dpkg as "configure [OLD VERSION]" (and "abort-..." when a removal or
# an upgrade came to nothing), by rpm as 1 (installed) or 2 (upgraded).
set -e

first=no
case "$1" in
configure) [ -n "$2" ] || first=yes ;;
1) first=yes ;;
esac

if ! getent passwd vedette >/dev/null; then
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers vedette-agent.conf
	else
		useradd --system --user-group --home-dir /var/lib/vedette --no-create-home \
			--shell /usr/sbin/nologin --comment "Vedette agent" vedette
	fi
fi
# The service makes it too; `vedette-agent enrol` needs it before.
[ -d /var/lib/vedette ] || install -d -m 0700 -o vedette -g vedette /var/lib/vedette

if command -v systemctl >/dev/null; then
	[ $first = no ] || systemctl enable --quiet vedette-agent.service || true
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload || true
		# Only what runs is restarted: what an operator has stopped stays stopped.
		systemctl try-restart vedette-agent.service || true
	fi
fi

if [ $first = yes ] && [ ! -e /var/lib/vedette/identity/identity.json ]; then
	echo "vedette-agent is installed and starts with the system once this device is enrolled:"
	echo "  sudo vedette-agent enrol -              # the token of: vedette device token create"
	echo "  sudo systemctl start vedette-agent"
fi
