package e2e

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/protocol"
)

// A device that was offline until its outbox was full starts again, still
// offline: what waits lies in memory too, and all of the agent must fit 45 MB.
func TestMemoryWithAFullOutbox(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	c := p.enrolled("cam-1", p.path("cam-1"))
	p.server.kill()
	held := fillOutbox(t, filepath.Join(c.state, "outbox.db"))
	c.boot()
	const most = 45_000_000
	var pss int
	c.eventually(time.Minute, "what the start needed to be given back", func() error {
		if pss = proportional(t, c.agent.cmd.Process.Pid); pss > most {
			return fmt.Errorf("PSS is %d bytes, want at most %d", pss, most)
		}
		return nil
	})
	st, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Agent.Outbox.Pending; got < uint64(held) {
		t.Errorf("records that wait: got %d, want %d", got, held)
	}
	t.Logf("%d records of %d bytes wait: PSS %d bytes", st.Agent.Outbox.Pending, st.Agent.Outbox.Bytes, pss)
	c.agent.stop()
}

// fillOutbox makes an outbox that holds almost as much as it may.
func fillOutbox(t *testing.T, path string) (pending int) {
	t.Helper()
	box, _, err := outbox.Open(path, outbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	for hour := int64(0); box.Stats().Bytes < 19_500_000; hour++ {
		var bodies []*protocol.Body
		for m := range 5 {
			bodies = append(bodies, busyWindow(rng, fmt.Sprint("model-", m), hour))
		}
		if err := box.Append(bodies...); err != nil {
			t.Fatal(err)
		}
	}
	return box.Stats().Pending
}

// busyWindow counts so much that little of it can be packed.
func busyWindow(rng *rand.Rand, model string, hour int64) *protocol.Body {
	const streams, bins = 200, 32
	at := hour * 3_600_000
	w := &protocol.Window{
		Model: model, Release: make([]byte, protocol.DigestSize), Role: "primary",
		StartWallMs: at, EndWallMs: at + 300_000, StartMonotonicMs: uint64(at), EndMonotonicMs: uint64(at) + 300_000,
		Rows: 1 << 20, Calls: 1 << 20,
	}
	for range streams {
		h := &protocol.Histogram{Bins: make([]uint64, bins)}
		for i := range h.Bins {
			h.Bins[i] = uint64(rng.IntN(1 << 15))
		}
		w.Streams = append(w.Streams, h)
	}
	return &protocol.Body{
		At:   &protocol.Stamp{Boot: []byte("0123456789abcdef"), WallMs: at + 300_000, MonotonicMs: uint64(at) + 300_000},
		Kind: &protocol.Body_Window{Window: w},
	}
}

// proportional is the Pss of a process in bytes.
func proportional(t *testing.T, pid int) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Skip("this system does not say what is resident:", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int
		if strings.HasPrefix(lines.Text(), "Pss:") {
			if _, err := fmt.Sscanf(lines.Text(), "Pss: %d kB", &kib); err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no Pss in smaps_rollup")
	return 0
}
