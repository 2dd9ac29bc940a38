package runner

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/ledger"
)

// Replayed is what an export's rollouts gave when they were decided anew.
type Replayed struct {
	Rollouts  int `json:"rollouts"`
	Decisions int `json:"decisions"` // the same again
	// Older counts decisions of an older format: what this program decides may
	// differ from them, so they are taken as they are.
	Older int `json:"older"`
	// Elsewhere counts the rollouts beside these that were replayed no further
	// than to a record whose body is not in the export.
	Elsewhere int `json:"elsewhere"`
}

// Export knows where an exported ledger has the records of each rollout, so that
// one after the other can be replayed whatever the size of the whole.
type Export struct {
	places map[string][]ledger.Place // by chain
}

// AuditExport checks that nobody changed an exported ledger, as ledger.Audit
// does, and notes where the rollouts are.
func AuditExport(r io.Reader) (*Export, ledger.Summary, error) {
	x := &Export{places: map[string][]ledger.Place{}}
	prefix := desired.RolloutChain("")
	sum, err := ledger.AuditEach(r, func(rec *ledger.Record, at ledger.Place) {
		if strings.HasPrefix(rec.Chain, prefix) {
			x.places[rec.Chain] = append(x.places[rec.Chain], at)
		}
	})
	return x, sum, err
}

// Bytes is how much Replay reads at most.
func (x *Export) Bytes() int64 {
	n := int64(0)
	for _, chain := range x.places {
		for _, at := range chain {
			n += int64(at.Length)
		}
	}
	return n
}

// Replay decides every rollout of the export anew, from the facts that each
// record states. The error is a *Broken that names the first record of the
// ledger that does not follow from those before it. Seen is told how many
// bytes have been read, nil for nobody.
func (x *Export) Replay(r io.ReaderAt, seen func(bytes int)) (Replayed, error) {
	var done Replayed
	var first *Broken
	for _, chain := range slices.Sorted(maps.Keys(x.places)) {
		v := &replay{}
		err := x.replay(r, chain, v, seen)
		broken, found := errors.AsType[*Broken](err)
		switch {
		case err == nil:
			done.Rollouts++
		case errors.Is(err, errNoBody):
			done.Elsewhere++
		case !found:
			return done, fmt.Errorf("replay %s: %w", chain, err)
		case first == nil || broken.Seq < first.Seq:
			first = broken
		}
		done.Decisions += v.again
		done.Older += v.older
	}
	if first != nil {
		return done, first
	}
	return done, nil
}

// replay takes the decisions of one chain again, up to the first that differs.
func (x *Export) replay(r io.ReaderAt, chain string, v *replay, seen func(bytes int)) error {
	var line []byte
	for _, at := range x.places[chain] {
		line = slices.Grow(line[:0], at.Length)[:at.Length]
		if n, err := r.ReadAt(line, at.Offset); n < at.Length {
			return fmt.Errorf("read export: %w", err)
		}
		if seen != nil {
			seen(at.Length)
		}
		rec, err := ledger.ParseLine(line)
		if err != nil {
			return fmt.Errorf("read export: %w", err)
		}
		if rec.Blob != "" && len(rec.Body) == 0 {
			return errNoBody
		}
		if err := v.next(rec); err != nil {
			return err
		}
	}
	return nil
}
