package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// benched runs the benchmark on the built programs and returns what it measured.
func benched(t *testing.T, args ...string) (all []Figure) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a control plane: run it without -short")
	}
	t.Chdir(filepath.Join("..", ".."))
	if _, err := os.Stat(filepath.Join("build", "bin", "vedette-control")); err != nil {
		t.Fatalf("%v: run 'make build' first", err)
	}
	figures := filepath.Join(t.TempDir(), "figures.json")
	if code := run(append([]string{"-json", figures}, args...), t.Output(), t.Output()); code != 0 {
		t.Fatalf("bench %v: exit code %d", args, code)
	}
	raw, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// A few agents go through the story of ten thousand: everything that the
// benchmark measures comes about. How long it takes is not asked here.
func TestFleetStory(t *testing.T) {
	all := benched(t, "-devices", "20", "-report", "1s", "-jitter", "200ms", "-steady", "1s", "-only", "steady,canary,late,storm", "fleet")
	found := map[string]Figure{}
	for _, f := range all {
		found[f.Part+": "+f.What] = f
	}
	for _, what := range []string{
		"fleet: enrolments over HTTPS",
		"steady: resident memory of the server",
		"steady: messages stored",
		"canary: fact sent by the canary to the last new offer received",
		"late: decision to the last device back",
		"late: ledger on disk for the rollout",
		"storm: all dropped to the last agent subscribed again",
		"storm: rows lost",
	} {
		if f, ok := found[what]; !ok || f.Value < 0 {
			t.Errorf("%s: got %+v", what, f)
		}
	}
	if lost := found["storm: rows lost"]; !lost.Met {
		t.Errorf("rows were lost: %+v", lost)
	}
	if stored := found["steady: messages stored"]; stored.Value < 10 {
		t.Errorf("20 agents that report every second store %g messages a second", stored.Value)
	}
}

// What an agent numbers can be checked by the rules of the exact accounting.
func TestBoxNumbersInOrder(t *testing.T) {
	x := newBox(random(16))
	for range 40 {
		x.add([]byte("body"), &protocol.Tally{Rows: 3})
	}
	first, err := x.Send(32)
	if err != nil || len(first) != 32 {
		t.Fatalf("first: got %d records, %v, want 32", len(first), err)
	}
	again, _ := x.Send(32)
	if len(again) != 32 || again[31] != first[31] {
		t.Errorf("again: got %d records, want the same 32", len(again))
	}
	if err := x.Ack(&protocol.Ack{Epoch: x.epoch, Seq: 32}); err != nil {
		t.Fatal(err)
	}
	rest, _ := x.Send(32)
	if len(rest) != 8 || rest[0].GetSeq() != 33 || rest[0].GetPrev() != 32 || rest[7].GetTotal().GetRows() != 120 {
		t.Errorf("rest: got %v", rest)
	}
	if rows, waiting, refused := x.sizes(); rows != 120 || waiting != 8 || refused != "" {
		t.Errorf("sizes: got %d rows, %d waiting, %q", rows, waiting, refused)
	}
}

// The bars are stated for devices that report every minute.
func TestPace(t *testing.T) {
	for _, tc := range []struct{ report, want time.Duration }{
		{time.Minute, 6 * time.Second}, {10 * time.Minute, 6 * time.Second}, {time.Second, 100 * time.Millisecond},
	} {
		if got := (fleetSize{report: tc.report}).pace(6 * time.Second); got != tc.want {
			t.Errorf("pace at %v: got %v, want %v", tc.report, got, tc.want)
		}
	}
}
