package main

import (
	"fmt"
	"io"
	"os"
	"strings"
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
		Use: "verify [FILE]", Short: "Check that nothing was changed, and that every decision follows from its facts",
		Long: `Checks every hash, every chain and every anchor of an exported ledger, and takes
every decision of every rollout again from the facts it states, without the
server. It names the first record that does not fit, or the first decision that
does not follow, with what was recorded and what follows. Without FILE it
fetches the ledger first; FILE - is the standard input.

The server anchors the ledger right before each export and ends the export with
that anchor. So an export that is empty or ends with anything else has lost its
end and fails. One cut right after an older anchor does not: compare the time of
the last anchor, which is printed, with when the export was made.

An export may be larger than the memory: one rollout is replayed after the
other. What does not come from a file is kept in one for the time of the check.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			switch {
			case len(given) == 0:
				c, err := a.connect()
				if err != nil {
					return err
				}
				return a.auditCopy(func(w io.Writer) error { return c.ExportLedger(cmd.Context(), w) })
			case given[0] == "-":
				return a.auditCopy(func(w io.Writer) error {
					_, err := io.Copy(w, a.in)
					return err
				})
			}
			return withFile(given[0], a.audit)
		},
	}
}

// auditCopy audits what fill writes, by way of a file that is removed again.
func (a *app) auditCopy(fill func(w io.Writer) error) error {
	f, err := os.CreateTemp("", "vedette-ledger-*")
	if err != nil {
		return fileError(err)
	}
	defer func() { _ = f.Close(); _ = os.Remove(f.Name()) }()
	if err := fill(f); err != nil {
		return err
	}
	return a.audit(f)
}

// audited is what "ledger verify" found.
type audited struct {
	Records  uint64    `json:"records"`
	Chains   int       `json:"chains"`
	Anchored uint64    `json:"anchored"`    // up to this record no chain can have lost its end unseen
	At       time.Time `json:"anchored_at"` // when the anchor at the end was made
	Loose    uint64    `json:"loose"`       // records written while that was made, which it does not cover
	runner.Replayed
}

// audit checks that nobody changed the ledger, and that the engine decides
// again what the ledger says it decided.
func (a *app) audit(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fileError(err)
	}
	export, sum, err := a.auditHashes(f, info.Size())
	if err != nil {
		return operator.Errorf(operator.Conflict, "the ledger does not hold together: %s", strings.TrimPrefix(err.Error(), ledger.ErrTampered.Error()+": ")).
			WithHint("keep this export; compare it with an older one to see what was changed")
	}
	if err := ends(sum); err != nil {
		return err
	}
	replayed, err := a.auditDecisions(export, f)
	if err != nil {
		return operator.Errorf(operator.Conflict, "a rollout was not decided as the ledger says: %w; a fact may have been altered, or another version of the server decided", err).
			WithHint("was it decided by another version of vedette-control? Verify with that one's tool too")
	}
	result := audited{sum.Records, sum.Chains, sum.Anchored, sum.AnchoredAt, sum.Loose, replayed}
	return a.print(result, func(w io.Writer) { showAudited(w, &result) })
}

func (a *app) auditHashes(f *os.File, size int64) (*runner.Export, ledger.Summary, error) {
	bar := a.bar("checking hashes", size)
	defer bar.close()
	read := int64(0)
	return runner.AuditExport(&tapped{r: io.NewSectionReader(f, 0, size), seen: func(n int) {
		read += int64(n)
		bar.set(read)
	}})
}

func (a *app) auditDecisions(x *runner.Export, f *os.File) (runner.Replayed, error) {
	bar := a.bar("taking decisions again", x.Bytes())
	defer bar.close()
	read := int64(0)
	return x.Replay(f, func(n int) {
		read += int64(n)
		bar.set(read)
	})
}

// tapped tells how much is read from a reader.
type tapped struct {
	r    io.Reader
	seen func(bytes int)
}

// Read reads and tells.
func (t *tapped) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.seen(n)
	return n, err
}

func showAudited(w io.Writer, r *audited) {
	fmt.Fprintf(w, "whole: %d records in %d chains, anchored up to record %d at %s\n", r.Records, r.Chains, r.Anchored, timeText(r.At))
	if r.Loose > 0 {
		fmt.Fprintf(w, "not anchored yet: %d records written at that moment\n", r.Loose)
	}
	fmt.Fprintf(w, "replayed: %d decisions of %d rollouts, each the same again\n", r.Decisions, r.Rollouts)
	if r.Older > 0 {
		fmt.Fprintf(w, "not replayed: %d decisions by a server with an older engine\n", r.Older)
	}
	if r.Elsewhere > 0 {
		fmt.Fprintf(w, "not replayed to the end: %d rollouts with a record whose body is not in the export\n", r.Elsewhere)
	}
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
