package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
)

func ledgerCommand(a *app) *cobra.Command {
	return group("ledger", "Read and verify the record of every decision and command", "", ledgerShow(a), ledgerExport(a), ledgerVerify(a))
}

func ledgerShow(a *app) *cobra.Command {
	var q operator.LedgerQuery
	cmd := &cobra.Command{
		Use: "show", Short: "Show the newest records", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			page, err := c.Ledger(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(page.Items, func(w io.Writer) { ledgerTable(w, page) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Chain, "chain", "", "only this chain, e.g. operator or rollout.digits-2-1")
	f.StringVar(&q.Kind, "kind", "", "only this kind")
	f.IntVar(&q.Limit, "limit", 50, "how many")
	return cmd
}

func ledgerTable(w io.Writer, page *operator.Page[operator.LedgerRecord]) {
	if len(page.Items) == 0 {
		none(w, "records")
		return
	}
	rows := [][]string{}
	for i := range page.Items {
		r := &page.Items[i]
		rows = append(rows, []string{count(r.Seq), timeText(r.At), r.Chain, count(r.Index), r.Kind, r.Actor, r.Hash[:min(len(r.Hash), 12)]})
	}
	grid(w, []string{"seq", "time", "chain", "index", "kind", "actor", "hash"}, rows)
	if page.Next != "" {
		fmt.Fprintf(w, "%d records in all\n", page.Total)
	}
}

func ledgerExport(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "export FILE", Short: "Write the whole ledger as JSON lines (- for the terminal)",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if given[0] == "-" {
				return c.ExportLedger(cmd.Context(), a.out)
			}
			f, err := os.Create(given[0])
			if err != nil {
				return fileError(err)
			}
			if err := c.ExportLedger(cmd.Context(), f); err != nil {
				_ = f.Close()
				_ = os.Remove(given[0]) // half a ledger must not be taken for a whole one
				return err
			}
			if err := f.Close(); err != nil {
				return fileError(err)
			}
			a.remark("written to %s; check it with: vedette ledger verify %s", given[0], given[0])
			return nil
		},
	}
}

func ledgerVerify(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "verify [FILE]", Short: "Check that nothing was changed, removed or slipped in",
		Long: `Checks every hash, every chain and every anchor of an exported ledger, and takes
every decision of every rollout again from the facts it states, without the
server. Without FILE it fetches the ledger first.

The server anchors the ledger right before each export and ends the export with
that anchor. So an export that is empty or ends with anything else has lost its
end and fails. One cut right after an older anchor does not: compare the time of
the last anchor, which is printed, with when the export was made.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 1 {
				return withFile(given[0], func(f *os.File) error { return a.audit(f) })
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, w := io.Pipe()
			go func() { w.CloseWithError(c.ExportLedger(cmd.Context(), w)) }()
			defer func() { _ = r.Close() }()
			return a.audit(r)
		},
	}
}

// audited is what "ledger verify" found.
type audited struct {
	Records   uint64    `json:"records"`
	Chains    int       `json:"chains"`
	Anchored  uint64    `json:"anchored"`    // up to this record no chain can have lost its end unseen
	At        time.Time `json:"anchored_at"` // when the anchor at the end was made
	Loose     uint64    `json:"loose"`       // records written while that was made, which it does not cover
	Rollouts  int       `json:"rollouts"`
	Decisions int       `json:"decisions"` // of rollouts, taken again and found the same
	Elsewhere int       `json:"elsewhere"` // rollouts with a record too large to be in the export
}

// audit checks that nobody changed the ledger, and that the engine decides
// again what the ledger says it decided.
func (a *app) audit(r io.Reader) error {
	copied, w := io.Pipe()
	replayed, done := runner.Replayed{}, make(chan error, 1)
	go func() {
		var err error
		replayed, err = runner.VerifyExport(copied)
		_ = copied.CloseWithError(errReplayed) // the audit reads on without it
		done <- err
	}()
	sum, err := ledger.Audit(io.TeeReader(r, &forgiving{w}))
	w.CloseWithError(err) // nil ends the copy
	replayErr := <-done
	if err != nil {
		return operator.Errorf(operator.Conflict, "the ledger does not hold together: %w", err).
			WithHint("keep this export; compare it with an older one to see what was changed")
	}
	if replayErr != nil {
		return operator.Errorf(operator.Conflict, "a rollout was not decided as the ledger says: %w", replayErr).
			WithHint("was it decided by another version of vedette-control? Verify with that one's tool too")
	}
	if err := ends(sum); err != nil {
		return err
	}
	result := audited{sum.Records, sum.Chains, sum.Anchored, sum.AnchoredAt, sum.Loose, replayed.Rollouts, replayed.Decisions, replayed.Elsewhere}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "whole: %d records in %d chains, anchored up to record %d at %s\n", result.Records, result.Chains, result.Anchored, timeText(result.At))
		if result.Loose > 0 {
			fmt.Fprintf(w, "not anchored yet: %d records written at that moment\n", result.Loose)
		}
		fmt.Fprintf(w, "replayed: %d decisions of %d rollouts, each the same again\n", result.Decisions, result.Rollouts)
		if result.Elsewhere > 0 {
			fmt.Fprintf(w, "not replayed: %d rollouts with a record too large to be in the export\n", result.Elsewhere)
		}
	})
}

// ends checks that an export has its end, which is the anchor made for it.
func ends(sum ledger.Summary) error {
	if sum.Records > 0 && !sum.AnchoredAt.IsZero() {
		return nil
	}
	err := operator.Errorf(operator.Conflict, "the ledger's end is missing: %d records stand after the newest anchor, and more may have followed", sum.Loose)
	if sum.Records == 0 {
		err = operator.Errorf(operator.Conflict, "the export is empty")
	}
	return err.WithHint("the server ends every export with an anchor; take a new one with: vedette ledger export FILE")
}

// errReplayed says that the replay has ended and wants no more of the export.
var errReplayed = errors.New("replay has ended")

// forgiving goes on when nobody reads the copy any more: what ended the replay
// is told by the replay.
type forgiving struct{ w *io.PipeWriter }

// Write copies, as long as somebody reads.
func (f *forgiving) Write(p []byte) (int, error) {
	if _, err := f.w.Write(p); err != nil && !errors.Is(err, errReplayed) {
		return 0, err
	}
	return len(p), nil
}
