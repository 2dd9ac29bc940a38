package promotion

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// lab notes what it is asked for, and is broken at first.
type lab struct {
	asked []string
	err   error
}

func (l *lab) Try(_ context.Context, _ string, d release.Digest, since time.Time) error {
	l.asked = append(l.asked, "try "+d.Short()+" "+since.Format(time.TimeOnly))
	return l.err
}

func (l *lab) Done(_ context.Context, _ string, d release.Digest) error {
	l.asked = append(l.asked, "done "+d.Short())
	return l.err
}

// TestLabWorksWhileGatesAreMissing: the lab tries the version for as long as the
// promotion waits for its gates, also when it could not before, and not after.
func TestLabWorksWhileGatesAreMissing(t *testing.T) {
	w := newWorld(t)
	l := &lab{err: errors.New("busy")}
	k, err := Open(t.Context(), Config{
		Bucket: w.bucket, Versions: w, Gates: w, Fleet: w, Stages: w, Candidates: w, Ledger: w, Lab: l, Now: func() time.Time { return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Keeper = k
	w.policy(automatic)
	w.blocked = errors.New("gate latency lacks evidence")
	d := w.publish("2", 2, map[string]string{operator.TagRetrain: "q-7"})
	w.look(0)
	l.err = nil
	w.look(time.Minute)
	w.blocked = nil
	w.look(time.Minute)
	try := "try " + d.Short() + " 12:00:00"
	if got, want := strings.Join(l.asked, ", "), strings.Join([]string{try, try, "done " + d.Short()}, ", "); got != want {
		t.Errorf("the lab was asked for %s, want %s", got, want)
	}
}

// TestNoLabWithoutGates: a policy that asks for no gates keeps no lab busy.
func TestNoLabWithoutGates(t *testing.T) {
	w := newWorld(t)
	l := &lab{}
	w.cfg.Lab = l
	w.policy(strings.Replace(automatic, "on: retrain", "on: retrain\ngates: none", 1))
	w.publish("2", 2, map[string]string{operator.TagRetrain: "q-7"})
	w.look(0)
	if len(l.asked) != 0 {
		t.Errorf("the lab was asked for %q", l.asked)
	}
}
