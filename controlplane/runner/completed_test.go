package runner

import (
	"testing"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
)

// enrol adds a device that runs v1.
func (h *house) enrol(id string) {
	h.t.Helper()
	if err := h.fleet.Enrolled(h.t.Context(), id, map[string]string{"site": id[:1]}); err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	h.told[id] = &deviceState{running: versions["v1"]}
	h.mu.Unlock()
	h.report(id, &protocol.Report{Models: []*protocol.ModelState{{Model: "digits", Active: versions["v1"].Bytes(), Serving: true}}})
}

func healthy(device string) func(s *rollout.State) bool {
	return func(s *rollout.State) bool {
		d, ok := s.Device(device)
		return ok && d.State == rollout.DeviceHealthy
	}
}

// A device that comes after the end gets what is right then: the release of the
// newest completed rollout that it matches.
func TestCompletedRolloutsAdmitDevices(t *testing.T) {
	h := newHouse(t, "a1", "b1")
	first := h.create(spec("v2"))
	h.act(first, rollout.Start)
	h.until(first, is(rollout.StatusCompleted))
	h.enrol("b2")
	if v := h.until(first, healthy("b2")); v.State.Header.Status != rollout.StatusCompleted {
		t.Errorf("with a new device the rollout is %s, want it to stay completed", v.State.Header.Status)
	}

	narrow := spec("v3")
	narrow.Selector = "site=b"
	second := h.create(narrow)
	h.act(second, rollout.Start)
	h.until(second, is(rollout.StatusCompleted))
	h.enrol("a2")
	h.enrol("b3")
	h.until(first, healthy("a2"))
	h.until(second, healthy("b3"))
	for device, want := range map[string]string{"a1": "v2", "a2": "v2", "b1": "v3", "b2": "v3", "b3": "v3"} {
		h.mu.Lock()
		running, seen := h.told[device].running, len(h.told[device].seen)
		h.mu.Unlock()
		if running != versions[want] {
			t.Errorf("%s runs %s, want %s", device, running.Short(), want)
		}
		if device == "b3" && seen > 1 {
			t.Errorf("b3 was asked to run %d releases, want one", seen)
		}
	}
	h.verify(first)
	h.verify(second)
}

// When a newer rollout is for all of its devices, nobody looks at one any more.
func TestOutlivedRolloutsRest(t *testing.T) {
	h := newHouse(t, "a1", "b1")
	var ids []string
	for _, version := range []string{"v2", "v3"} {
		id := h.create(spec(version))
		h.act(id, rollout.Start)
		h.until(id, is(rollout.StatusCompleted))
		ids = append(ids, id)
	}
	if got := h.runner.driven(); len(got) != 1 || got[0] != ids[1] {
		t.Errorf("driven are %v, want only %s", got, ids[1])
	}
	h.act(ids[1], rollout.Rollback)
	h.until(ids[1], is(rollout.StatusReverted))
	if got := h.runner.driven(); len(got) != 1 || got[0] != ids[0] {
		t.Errorf("after the rollback driven are %v, want %s again", got, ids[0])
	}
}
