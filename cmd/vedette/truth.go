package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
)

func truthCommand(a *app) *cobra.Command {
	return group("truth", "Upload what was right about predictions, and see what came of it", `Devices keep a prediction for 24 hours, or the last 100,000 of them. What was right
about it can be told to the device itself (POST /v2/models/MODEL/feedback), or
uploaded here: the server passes each truth on to the device that predicted,
which counts it into the accuracy of the version.`,
		truthPush(a), truthShow(a))
}

// truthFlags are how a file of truths is read.
type truthFlags struct {
	model, reason string
	columns       truthColumns
	rejects       string
	wait          time.Duration
}

func truthPush(a *app) *cobra.Command {
	var f truthFlags
	cmd := &cobra.Command{
		Use:   "push FILE --model MODEL --reason TEXT",
		Short: "Upload truths from a CSV, JSON Lines or Parquet file",
		Long: `Reads a prediction id and a label from each row and uploads them. A label is a
class of the model or the index of one; rows with an empty label are passed over,
so a file from "vedette sample pull" can be given back half labelled.

The id says which device predicted, unless the caller named the prediction
himself: then a column must name the device. Truths wait for their devices for 26
hours, which is longer than a device keeps a prediction.

An upload that breaks off continues where it stopped when it is run again, and the
same file again changes nothing. Rows that are not taken are listed with their line and
the reason; the others are. When none is taken it exits with 1.`,
		Example: `  vedette truth push labels.csv --model digits --reason "night shift, read by hand"
  vedette truth push labels.parquet --model digits --id-column prediction --label-column digit --device-column camera --reason audit --wait 1m`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if f.model == "" {
				return usagef("name the model with --model")
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			return a.pushTruths(cmd.Context(), c, given[0], &f)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.model, "model", "", "model that predicted")
	fs.StringVar(&f.columns.id, "id-column", "id", "column of the prediction's id")
	fs.StringVar(&f.columns.label, "label-column", "label", "column of what was right")
	fs.StringVar(&f.columns.device, "device-column", "", "column of the device (default: device, where there is one)")
	fs.StringVar(&f.rejects, "rejects", "", "write all rows that were not taken to this file: line, reason")
	fs.DurationVar(&f.wait, "wait", 0, "wait for so long until the devices have taken all")
	reasonFlag(cmd, &f.reason)
	return cmd
}

// chunkRows is how many rows one request has: some 200 KB.
const chunkRows = 2000

// pushed is what an upload came to.
type pushed struct {
	Upload    *operator.TruthUpload  `json:"upload"`
	Rows      int64                  `json:"rows"`
	Unlabeled int64                  `json:"unlabelled"`
	Repeated  int                    `json:"chunks_taken_before"`
	Rejects   []operator.TruthReject `json:"rejects,omitempty"`
}

func (a *app) pushTruths(ctx context.Context, c *client.Client, path string, f *truthFlags) error {
	reason, err := a.reason(f.reason, "upload truths")
	if err != nil {
		return err
	}
	id, size, err := uploadID(path, f)
	if err != nil {
		return err
	}
	up, err := c.BeginTruths(ctx, f.model, operator.TruthBegin{ID: id, Name: filepath.Base(path), Reason: reason})
	if err != nil {
		return err
	}
	result := &pushed{}
	err = withFile(path, func(file *os.File) error {
		rows, err := openTruths(file, size, f.columns)
		if err != nil {
			return err
		}
		progress := a.bar("uploading", size)
		defer progress.close()
		p := &pusher{c: c, model: f.model, upload: id, held: up.Chunks, out: result, progress: func() { progress.set(rows.offset()) }}
		return p.all(ctx, rows)
	})
	if err != nil {
		return err
	}
	if err := writeRejects(f.rejects, result.Rejects); err != nil {
		return err
	}
	if result.Upload, err = awaitTruths(ctx, c, f.model, id, f.wait); err != nil {
		return err
	}
	return errors.Join(a.print(result, func(w io.Writer) { showPushed(w, result) }), result.refused())
}

// refused is an error where rows had labels and not one was taken.
func (p *pushed) refused() error {
	if p.Upload.Queued > 0 || p.Upload.Rejected == 0 {
		return nil
	}
	return operator.Errorf(operator.Invalid, "no row of %s was taken", p.Upload.Name).
		WithHint("look at the reasons above: ids are those of the answers, and a prediction that its caller named needs --device-column")
}

// uploadID follows from everything that decides what is uploaded, so that the
// same file continues its own upload.
func uploadID(path string, f *truthFlags) (id string, size int64, err error) {
	h := sha256.New()
	err = withFile(path, func(r *os.File) error {
		size, err = io.Copy(h, r)
		if err != nil {
			return fileError(err)
		}
		return nil
	})
	fmt.Fprintf(h, "\x00%s\x00%s\x00%s\x00%s", f.model, f.columns.id, f.columns.label, f.columns.device)
	return hex.EncodeToString(h.Sum(nil)[:16]), size, err
}

// pusher sends rows in chunks.
type pusher struct {
	c             *client.Client
	model, upload string
	held          []string // chunks that the server has
	out           *pushed
	progress      func()
}

func (p *pusher) all(ctx context.Context, rows truthRows) error {
	chunk := make([]operator.TruthRow, 0, chunkRows)
	for {
		row, err := rows.next()
		switch {
		case errors.Is(err, io.EOF):
			return p.send(ctx, chunk)
		case err != nil:
			return operator.Errorf(operator.Invalid, "%w", err).WithHint("mend the file and run it again: what was uploaded counts once")
		}
		p.out.Rows++
		if row.Label == "" {
			p.out.Unlabeled++
			continue
		}
		if chunk = append(chunk, row); len(chunk) == chunkRows {
			if err := p.send(ctx, chunk); err != nil {
				return err
			}
			chunk = chunk[:0]
		}
	}
}

func (p *pusher) send(ctx context.Context, chunk []operator.TruthRow) error {
	if len(chunk) == 0 {
		return nil
	}
	raw, err := json.Marshal(chunk)
	if err != nil {
		return fmt.Errorf("encode truths: %w", err)
	}
	sum := sha256.Sum256(raw)
	name := hex.EncodeToString(sum[:])
	p.progress()
	if slices.Contains(p.held, name) {
		p.out.Repeated++
		return nil
	}
	done, err := p.c.PushTruths(ctx, p.model, p.upload, name, operator.TruthChunk{Rows: chunk})
	if err != nil {
		return err
	}
	p.out.Rejects = append(p.out.Rejects, done.Rejects...)
	return nil
}

func writeRejects(path string, rejects []operator.TruthReject) error {
	if path == "" {
		return nil
	}
	var out []byte
	for _, r := range rejects {
		out = fmt.Appendf(out, "%d,%s\n", r.Line, strconv.Quote(r.Reason))
	}
	return writeFile(path, out, 0o644)
}

// awaitTruths waits until no truth of the upload waits any more, for some time.
func awaitTruths(ctx context.Context, c *client.Client, model, id string, most time.Duration) (*operator.TruthUpload, error) {
	const every = 500 * time.Millisecond
	for until := time.Now().Add(most); ; {
		up, err := c.TruthUpload(ctx, model, id)
		if err != nil || up.Waiting == 0 || !time.Now().Before(until) {
			return up, err
		}
		select {
		case <-ctx.Done():
			return up, nil
		case <-time.After(every):
		}
	}
}

func showPushed(w io.Writer, p *pushed) {
	facts(w, "upload", p.Upload.ID, "rows", count(p.Rows), "without a label", countOr(p.Unlabeled, ""), "chunks taken before", countOr(p.Repeated, ""))
	showCounts(w, &p.Upload.TruthCounts)
	rejects := p.Rejects
	if len(rejects) == 0 {
		rejects = p.Upload.Rejects // of a run before
	}
	showRejects(w, rejects)
	if n := len(p.Upload.Behind); p.Upload.Waiting > 0 {
		fmt.Fprintf(w, "%d truths wait for %d devices; see what comes of it with: vedette truth show %s\n", p.Upload.Waiting, n, p.Upload.Model)
	}
}

func showCounts(w io.Writer, c *operator.TruthCounts) {
	facts(w, "queued", count(c.Queued), "matched", count(c.Matched), "unmatched", count(c.Unmatched), "had a label", countOr(c.Repeated, ""),
		"refused by devices", countOr(c.Refused, ""), "expired", countOr(c.Expired, ""), "waiting", count(c.Waiting), "rejected", count(c.Rejected))
}

// shownRejects is how many rejected rows are listed.
const shownRejects = 20

func showRejects(w io.Writer, rejects []operator.TruthReject) {
	if len(rejects) == 0 {
		return
	}
	heading(w, "rejected")
	rows := [][]string{}
	for _, r := range rejects[:min(len(rejects), shownRejects)] {
		rows = append(rows, []string{strconv.FormatInt(r.Line, 10), r.Reason})
	}
	grid(w, []string{"line", "reason"}, rows)
	if n := len(rejects) - shownRejects; n > 0 {
		fmt.Fprintf(w, "… and %d more: --rejects FILE lists all\n", n)
	}
}

func truthShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show MODEL [UPLOAD]", Short: "Show what became of uploaded truths",
		Long: `Lists the uploads of a model. Matched truths are counted in the accuracy of the
version that predicted. Unmatched ones found no prediction on their device: it was
older than 24 hours or than the last 100,000, or the id is wrong. Waiting ones are for devices
that are offline.`,
		Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if len(given) == 2 {
				up, err := c.TruthUpload(cmd.Context(), given[0], given[1])
				if err != nil {
					return err
				}
				return a.print(up, func(w io.Writer) { showUpload(w, up) })
			}
			all, err := c.Truths(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(all, func(w io.Writer) { truthTable(w, all) })
		},
	}
}

func showUpload(w io.Writer, u *operator.TruthUpload) {
	facts(w, "upload", u.ID, "model", u.Model, "file", u.Name, "by", u.Actor, "reason", u.Reason, "at", timeText(u.At), "devices", count(u.Devices))
	showCounts(w, &u.TruthCounts)
	if len(u.Behind) > 0 {
		heading(w, "waiting for")
		for _, d := range u.Behind {
			fmt.Fprintln(w, d)
		}
	}
	showRejects(w, u.Rejects)
}

func truthTable(w io.Writer, all *operator.Truths) {
	if len(all.Uploads) == 0 {
		none(w, "truths uploaded")
		return
	}
	rows := [][]string{}
	for _, u := range all.Uploads {
		rows = append(rows, []string{
			u.ID, timeText(u.At), u.Name, u.Actor, count(u.Devices), count(u.Matched), count(u.Unmatched), count(u.Repeated),
			count(u.Refused), count(u.Expired), count(u.Waiting), count(u.Rejected),
		})
	}
	grid(w, []string{"upload", "at", "file", "by", "devices", "matched", "unmatched", "repeated", "refused", "expired", "waiting", "rejected"}, rows)
}
