package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/agent/identity"
	"github.com/vedette-edge/vedette/protocol"
)

func TestAdmissionSaysWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		err                  error
		result, detail, next string
	}{
		"taken": {nil, checkOK, "takes the certificate of cam-1", ""},
		"revoked": {
			fmt.Errorf("%w: %w", identity.ErrRevoked, &protocol.APIError{Code: protocol.CodeRevoked, Message: "stolen"}),
			checkFailed, "cam-1 was revoked", "vedette device token create --device cam-1 --replace",
		},
		"expired":     {&protocol.APIError{Code: protocol.CodeCertificate, Message: "it expired on 2026-01-02"}, checkFailed, "it expired on 2026-01-02", "let the agent run"},
		"in trouble":  {identity.ErrServer, checkWarning, "could not answer", "try again later"},
		"unreachable": {identity.ErrUnreachable, checkWarning, "cannot be reached", "not known"},
	} {
		got := admission("cam-1", c.err)
		if got.Result != c.result || !strings.Contains(got.Detail, c.detail) || !strings.Contains(got.Next, c.next) || (got.Next == "") != (c.next == "") {
			t.Errorf("%s: got %+v, want %s, %q and %q", name, got, c.result, c.detail, c.next)
		}
	}
}
