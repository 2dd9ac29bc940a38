#!/bin/sh
# Verifies a request for retraining and starts the training for it.
#
#   VEDETTE_SECRET=… VEDETTE_SIGNATURE="t=…,v1=…" retrain.sh COMMAND [ARGUMENT…] <event.json
#
# The event is the body of the webhook as it came, byte for byte, and the
# signature is its header X-Vedette-Signature. The command is run with the event
# in the file $VEDETTE_EVENT. Needs openssl. Ends with 2 when the signature does
# not fit, and otherwise as the command does.
set -eu

tolerance=300 # seconds that the clocks of sender and receiver may differ

fail() {
	echo "retrain.sh: $1" >&2
	exit 2
}

[ -n "${VEDETTE_SECRET:-}" ] || fail "VEDETTE_SECRET is not set"
[ $# -gt 0 ] || fail "name the command that trains"

VEDETTE_EVENT=$(mktemp)
export VEDETTE_EVENT
trap 'rm -f "$VEDETTE_EVENT"' EXIT
head -c 1048576 >"$VEDETTE_EVENT"

at=$(printf '%s' "${VEDETTE_SIGNATURE:-}" | sed -n 's/^t=\([0-9]\{1,12\}\),v1=[0-9a-f]\{64\}$/\1/p')
given=$(printf '%s' "${VEDETTE_SIGNATURE:-}" | sed -n 's/^t=[0-9]\{1,12\},v1=\([0-9a-f]\{64\}\)$/\1/p')
[ -n "$at" ] || fail "there is no signature"

# The secret goes to openssl as hex, so that no byte of it means anything to the
# shell. It is seen by whoever may list this user's processes: use receiver.py
# where others share the machine.
key=$(printf '%s' "$VEDETTE_SECRET" | od -An -v -tx1 | tr -d ' \n')
mac() { openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" | sed 's/^.*= *//'; }
want=$({ printf '%s.' "$at"; cat "$VEDETTE_EVENT"; } | mac)
# The shell compares up to the first difference. Of the codes of both, whoever
# sends signatures learns nothing by the time that takes.
[ "${#want}" -eq 64 ] && [ "$(printf '%s' "$given" | mac)" = "$(printf '%s' "$want" | mac)" ] || fail "the signature does not fit"

age=$(($(date +%s) - at))
[ "$age" -le "$tolerance" ] && [ "$age" -ge "-$tolerance" ] || fail "the signature was made ${age} s ago"

unset VEDETTE_SECRET
"$@"
