package agent

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
)

// beside makes a scripted release the model's challenger, as an update would have.
func beside(t *testing.T, dir string, script agenttest.Script) *agenttest.Bundle {
	t.Helper()
	return activate(t, dir, "v2", 2, script, (*slots.Slots).Challengers)
}

// A challenger that hangs is taken away and told of; the caller is answered, and
// the process goes on: only the primary release is worth replacing it for.
func TestHungChallenger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	enrol(t, dir)
	install(t, dir, agenttest.Script{Name: "v1"})
	second := beside(t, dir, agenttest.Script{Name: "v2", OnRun: agenttest.Hang, AfterRuns: 1})
	d := launch(t, config(dir))
	d.url()
	d.updater.Desired(&protocol.Desired{Generation: 1, Assignments: []*protocol.Assignment{
		{Model: "meter", Release: d.updater.States()[0].GetActive(), Role: infer.RolePrimary},
		{Model: "meter", Release: second.Digest.Bytes(), Role: infer.RoleShare, Share: infer.MaxShare, Decision: 1},
	}})
	d.until("the challenger to run", func() bool { return len(d.engine.Challengers()) == 1 })
	if status, answer := d.infer(); status != http.StatusOK || !strings.Contains(answer, `"model_version":"v1"`) {
		t.Errorf("while the challenger hangs: %d %s", status, answer)
	}
	d.until("the challenger to be taken away", func() bool {
		c := d.updater.States()[0].GetChallenger().GetState()
		return c.GetOutcome().GetCode() == update.CodeCallHung && c.GetActive() == nil && len(d.engine.Challengers()) == 0
	})
	if status, answer := d.infer(); status != http.StatusOK {
		t.Errorf("afterwards: %d %s", status, answer)
	}
	if s := d.updater.States()[0]; s.GetOutcome() != nil || len(s.GetRefused()) != 0 {
		t.Errorf("the primary release is blamed: %v", s)
	}
	if err := d.halt(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// until waits for what other goroutines bring about.
func (d *device) until(what string, ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("waited 20s for %s: %v\n%s", what, d.updater.States(), d.log.String())
		}
	}
}
