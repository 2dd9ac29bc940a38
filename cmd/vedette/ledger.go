package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/ledger"
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
		Long: `Checks every hash, every chain and every anchor of an exported ledger, without the
server. Without FILE it fetches the ledger first.`,
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

func (a *app) audit(r io.Reader) error {
	sum, err := ledger.Audit(r)
	if err != nil {
		return operator.Errorf(operator.Conflict, "the ledger does not hold together: %w", err).
			WithHint("keep this export; compare it with an older one to see what was changed")
	}
	result := map[string]any{
		"records": sum.Records, "chains": sum.Chains, "anchors": sum.Anchors, "anchored": sum.Anchored, "blobs": sum.Blobs,
	}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "whole: %d records in %d chains; anchored up to record %d\n", sum.Records, sum.Chains, sum.Anchored)
	})
}
