package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/broker"
	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/ledger"
)

// records are how many a ledger has that is going to be damaged.
const records = 20

// fill makes a store with a ledger and returns its only block and a copy of the
// directory as a kill would have left it.
func fill(t *testing.T, start func(dir string) *broker.Broker) (clean, killed string) {
	t.Helper()
	clean, killed = t.TempDir(), t.TempDir()
	b := start(clean)
	l := open(t, b, ledger.Options{})
	for i := range records {
		add(t, l, []string{"operator", "rollout.x"}[i%2], ledger.Any, "some text")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx, 0); err != nil { // marks the end
		t.Fatal(err)
	}
	if err := os.CopyFS(killed, os.DirFS(clean)); err != nil {
		t.Fatal(err)
	}
	b.Close()
	return clean, killed
}

// A ledger that lost a record is not opened: the error names the record.
func TestOpenFindsDamage(t *testing.T) {
	overwrite := func(at func(size int) int) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at(len(b)):], "XXXXX"); return b }
	}
	for name, c := range map[string]struct {
		damage        func([]byte) []byte // nil: the file is removed
		clean, killed string              // the error after a clean stop and after a kill
	}{
		"first record": {overwrite(func(int) int { return 100 }), "record 1 cannot be read", "records 1 to 20 are missing"},
		"in the middle": {
			overwrite(func(n int) int { return n / 2 }), "record 11 cannot be read", "records 11 to 20 are missing",
		},
		"last record": {
			overwrite(func(n int) int { return n - 100 }), "record 20 cannot be read", "records 20 to 20 are missing",
		},
		"end cut off": {
			func(b []byte) []byte { return b[:len(b)*3/4] }, "5 of 20 records are missing, the first is record 16", "records 16 to 20 are missing",
		},
		"file removed": {nil, "20 of 20 records are missing, the first is record 1", "records 1 to 20 are missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := brokertest.CA(t)
			start := func(dir string) *broker.Broker { return brokertest.StartAt(t, dir, ca) }
			clean, killed := fill(t, start)
			for dir, want := range map[string]string{clean: c.clean, killed: c.killed} {
				damage(t, dir, c.damage)
				_, err := ledger.Open(t.Context(), start(dir).Conn(), ledger.Options{})
				if !errors.Is(err, ledger.ErrDamaged) || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want ErrDamaged and %q", err, want)
				}
			}
		})
	}
}

// damage changes or removes the one block of a ledger.
func damage(t *testing.T, dir string, change func([]byte) []byte) {
	t.Helper()
	block := filepath.Join(dir, "jetstream", "$G", "streams", "LEDGER", "msgs", "1.blk")
	if change == nil {
		if err := os.Remove(block); err != nil {
			t.Fatal(err)
		}
		return
	}
	data, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(block, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A store that was killed and not damaged is whole.
func TestOpenAfterKill(t *testing.T) {
	ca := brokertest.CA(t)
	start := func(dir string) *broker.Broker { return brokertest.StartAt(t, dir, ca) }
	_, killed := fill(t, start)
	l := open(t, start(killed), ledger.Options{})
	if last, err := l.Last(t.Context()); err != nil || last != records {
		t.Errorf("last is %d, %v; want %d", last, err, records)
	}
}

// An export anchors what it holds and ends with that: one that lost its last
// records does not.
func TestExportEndsWithAnchor(t *testing.T) {
	l := open(t, brokertest.Start(t), ledger.Options{})
	if empty := export(t, l); len(empty) != 0 {
		t.Errorf("export of an empty ledger: %q", empty)
	}
	add(t, l, "a", 0, "1")
	add(t, l, "b", 0, "1")
	whole := export(t, l)
	if again := export(t, l); !bytes.Equal(again, whole) {
		t.Errorf("a second export adds something:\n%s", again)
	}
	add(t, l, "a", ledger.Any, "2")
	lines := slices.Collect(bytes.Lines(export(t, l)))
	for n, want := range map[int]ledger.Summary{
		0: {},
		2: {Records: 2, Chains: 2, Loose: 2},
		3: {Records: 3, Chains: 3, Anchors: 1, Anchored: 2},
		4: {Records: 4, Chains: 3, Anchors: 1, Anchored: 2, Loose: 1},
		5: {Records: 5, Chains: 3, Anchors: 2, Anchored: 4},
	} {
		got, err := ledger.Audit(bytes.NewReader(bytes.Join(lines[:n], nil)))
		if ends := !got.AnchoredAt.IsZero(); ends != (n == 3 || n == 5) {
			t.Errorf("%d records: ends with an anchor: %v", n, ends)
		}
		got.AnchoredAt = want.AnchoredAt
		if err != nil || got != want {
			t.Errorf("%d records: got %+v, %v; want %+v", n, got, err, want)
		}
	}
}
