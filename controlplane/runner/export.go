package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/ledger"
)

// Replayed is what VerifyExport has decided anew.
type Replayed struct {
	Rollouts  int `json:"rollouts"`
	Decisions int `json:"decisions"`
	// Elsewhere counts rollouts that could not be replayed because a body of
	// theirs was too large for its record and is not in the export.
	Elsewhere int `json:"elsewhere"`
}

// VerifyExport replays the rollouts of an exported ledger: with the facts each
// record states, the engine must decide again what was decided. It says nothing
// about who wrote the records; ledger.Verify does.
func VerifyExport(r io.Reader) (Replayed, error) {
	chains, err := rolloutsOf(r)
	if err != nil {
		return Replayed{}, err
	}
	var done Replayed
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		records := chains[name]
		if slices.ContainsFunc(records, func(rec ledger.Record) bool { return rec.Blob != "" }) {
			done.Elsewhere++
			continue
		}
		if err := Verify(records); err != nil {
			return done, fmt.Errorf("%s: %w", name, err)
		}
		done.Rollouts++
		done.Decisions += len(records) - 1
	}
	return done, nil
}

// rolloutsOf reads the records of all rollouts, by chain.
func rolloutsOf(r io.Reader) (map[string][]ledger.Record, error) {
	chains, prefix := map[string][]ledger.Record{}, desired.RolloutChain("")
	for dec := json.NewDecoder(r); ; {
		var rec ledger.Record
		err := dec.Decode(&rec)
		if errors.Is(err, io.EOF) {
			return chains, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read export: %w", err)
		}
		if strings.HasPrefix(rec.Chain, prefix) {
			chains[rec.Chain] = append(chains[rec.Chain], rec)
		}
	}
}
