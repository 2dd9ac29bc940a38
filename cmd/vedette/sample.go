package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sampling"
)

// identityFile is the private half of the key that sampled rows are sealed for.
// It is no *.key: those sign.
const identityFile = "samples.identity"

func sampleCommand(a *app) *cobra.Command {
	return group("sample", "Fetch rows that devices sent for labelling", `A version may allow some rows to leave the devices, to be labelled by people. That
is written in the manifest that the publisher signs ("vedette model pack
--sample-to"), so neither the server nor a setting can widen it. Rows are drawn by chance
(1% by default), the strata dealt with in turn, encrypted on the device for the
publisher, and deleted when they expire.

  vedette key sample-init                        makes the publisher's key
  vedette model push … --sample-to age1…         allows it for a version
  vedette sample pull MODEL --to rows.csv        decrypts rows, ready to be labelled
  vedette truth push rows.csv --model MODEL …    gives the labels back`,
		samplePlan(a), samplePull(a), sampleSpec(a))
}

func keySampleInit(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "sample-init", Short: "Make the key that sampled rows are encrypted to",
		Long: `Makes an age X25519 key beside the publisher's keys and prints its public half,
which "vedette model pack --sample-to" takes. Whoever holds the private half reads the
rows that devices send for labelling; whoever loses it loses those not yet
fetched. It signs nothing. The age program reads it too.`,
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			ring, err := a.keyring()
			if err != nil {
				return err
			}
			id, err := ring.newIdentity()
			if err != nil {
				return err
			}
			a.remark("private key in %s", ring.path(identityFile))
			public := map[string]string{"recipient": id.Recipient().String(), "identity": ring.path(identityFile)}
			return a.print(public, func(w io.Writer) { fmt.Fprintln(w, id.Recipient()) })
		},
	}
}

// newIdentity makes and stores the key of samples, once.
func (k keyring) newIdentity() (*age.X25519Identity, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fileError(err)
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, fileError(err)
	}
	f, err := os.OpenFile(k.path(identityFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, operator.Errorf(operator.Conflict, "%s is there already", k.path(identityFile)).
			WithHint("rows that are sealed for it can be read with it alone: move it away if a new one is to take its place")
	}
	if err != nil {
		return nil, fileError(err)
	}
	_, err = fmt.Fprintf(f, "# created: %s\n# public key: %s\n%s\n", time.Now().UTC().Format(time.RFC3339), id.Recipient(), id)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, fileError(err)
	}
	return id, nil
}

// identities reads the key of samples.
func (a *app) identities(path string) ([]age.Identity, error) {
	if path == "" {
		ring, err := a.keyring()
		if err != nil {
			return nil, err
		}
		path = ring.path(identityFile)
	}
	b, err := readFile(path, maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, operator.Errorf(operator.Invalid, "there is no key of samples at %s", path).
			WithHint(`give it with --identity FILE; "vedette key sample-init" makes one`)
	}
	if err != nil {
		return nil, err
	}
	ids, err := age.ParseIdentities(strings.NewReader(string(b)))
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "read %s: %w", path, err).WithHint("it must be an age identity: AGE-SECRET-KEY-1…")
	}
	return ids, nil
}

func sampleSpec(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "spec", Short: "Print an example of a sampling plan that explains each field",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(a.out, samplingSpec)
			return err
		},
	}
}

const samplingSpec = `{
  "recipient": "age1…",
  "rows": 16,
  "rate": 0.01,
  "strata": "class",
  "expires": "720h"
}

recipient  public half of the publisher's key ("vedette key sample-init"); required
rows       at most so many rows of one window (5 minutes) leave a device: 1 to 64, default 16
rate       part of all rows that is drawn: above 0, at most 1, default 0.01
strata     what tells rows apart, so that rare ones are sampled too: class (that was
           predicted), confidence (below 0.5, 0.8, 0.95, above), condition (values missing,
           outside of the signed range, ordinary) or none; default class where there are classes
expires    how long after its window a sample is deleted: 1h to 8784h, default 720h

Give it as it is above, without the explanations: vedette model pack … --sampling FILE
`

func samplePlan(a *app) *cobra.Command {
	var f sampleFlags
	cmd := &cobra.Command{
		Use: "plan MODEL", Aliases: []string{"list"}, Short: "Show what is held for labelling, by stratum, and what the versions allow",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			q, err := f.query(time.Now())
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			s, err := c.Samples(cmd.Context(), given[0], q)
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { showSamples(w, s) })
		},
	}
	f.register(cmd)
	return cmd
}

// sampleFlags choose samples.
type sampleFlags struct{ since, version string }

func (f *sampleFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.since, "since", "", "only windows that ended since: a duration such as 24h, or a time")
	cmd.Flags().StringVar(&f.version, "version", "", "only rows that this version predicted")
}

func (f *sampleFlags) query(now time.Time) (operator.SampleQuery, error) {
	q := operator.SampleQuery{Version: f.version}
	if f.since == "" {
		return q, nil
	}
	if d, err := time.ParseDuration(f.since); err == nil {
		q.Since = now.Add(-d).UTC().Truncate(time.Millisecond)
		return q, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, f.since); err == nil {
			q.Since = t.UTC()
			return q, nil
		}
	}
	return q, usagef("--since %s is neither a duration such as 24h nor a time such as 2026-11-23", f.since)
}

func showSamples(w io.Writer, s *operator.Samples) {
	facts(w, "model", s.Model, "samples", count(s.Samples), "rows", count(s.Rows), "size", bytesText(s.Bytes),
		"from", timeText(s.Oldest), "to", timeText(s.Newest), "next expires", timeText(s.Expires))
	rows := [][]string{}
	for _, p := range s.Strata {
		rows = append(rows, []string{p.Version, p.Stratum, count(p.Rows), count(p.Seen), count(p.Devices)})
	}
	if len(rows) > 0 {
		heading(w, "held")
		grid(w, []string{"version", "stratum", "rows", "drawn from", "devices"}, rows)
	}
	heading(w, "allowed by signed manifests")
	rows = rows[:0]
	for _, p := range s.Plans {
		rows = append(rows, []string{
			p.Version, fmt.Sprintf("%g%%", 100*p.Rate), count(p.Rows), p.Strata, p.Expires.String(), p.Recipient,
		})
	}
	if len(rows) == 0 {
		fmt.Fprintln(w, `no version allows any row to leave a device ("vedette model pack --sample-to")`)
		return
	}
	grid(w, []string{"version", "rate", "rows a window", "strata", "expires", "recipient"}, rows)
}

func samplePull(a *app) *cobra.Command {
	var f sampleFlags
	var identity, to string
	cmd := &cobra.Command{
		Use:   "pull MODEL --to FILE",
		Short: "Decrypt sampled rows into a file that is ready to be labelled",
		Long: `Fetches the sealed rows of a model, opens them here with the publisher's identity,
and writes them as CSV or JSON Lines, by the name of the file: prediction id,
device, time, version, stratum, weight, prediction, confidence, an empty label, and the
inputs. Rows of rare strata stand for fewer rows than others: weight says for how many.

In CSV, text that a spreadsheet would take for a formula has a ' before it.

Fill in the label and give the same file to "vedette truth push". The file holds
what devices saw in the clear: it is made readable for you alone.`,
		Example: "  vedette sample pull digits --since 24h --to rows.csv",
		Args:    args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			q, err := f.query(time.Now())
			if err != nil {
				return err
			}
			if ext := filepath.Ext(to); ext != ".csv" && ext != ".jsonl" {
				return usagef("name a file ending in .csv or .jsonl with --to")
			}
			ids, err := a.identities(identity)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			return a.pullSamples(cmd.Context(), c, given[0], q, ids, to)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&identity, "identity", "", "file with the private key (default: the one beside the publisher's keys)")
	cmd.Flags().StringVar(&to, "to", "", "file to write: .csv or .jsonl")
	return cmd
}

// pulled is what a pull came to.
type pulled struct {
	Model   string `json:"model"`
	File    string `json:"file"`
	Samples int    `json:"samples"`
	Rows    int    `json:"rows"`
	Foreign int    `json:"sealed_for_others"`
	Unread  int    `json:"not_readable"`
}

func (a *app) pullSamples(ctx context.Context, c *client.Client, model string, q operator.SampleQuery, ids []age.Identity, to string) error {
	out, err := createRows(to)
	if err != nil {
		return err
	}
	defer out.discard()
	p := &puller{c: c, model: model, ids: ids, out: out, schemas: map[string]*release.Manifest{}, result: &pulled{Model: model, File: to}, say: a.remark}
	if err := p.all(ctx, q); err != nil {
		return err
	}
	if p.result.Samples > 0 && p.result.Foreign == p.result.Samples {
		return operator.Errorf(operator.Invalid, "all %d samples of %s: %w", p.result.Samples, model, sampling.ErrIdentity)
	}
	if err := out.keep(); err != nil {
		return err
	}
	return a.print(p.result, func(w io.Writer) {
		facts(w, "model", model, "samples", count(p.result.Samples), "rows", count(p.result.Rows), "sealed for others", countOr(p.result.Foreign, ""), "not readable", countOr(p.result.Unread, ""), "file", to)
		fmt.Fprintf(w, "label them, then: vedette truth push %s --model %s --reason …\n", to, model)
	})
}

// puller opens samples page by page.
type puller struct {
	c       *client.Client
	model   string
	ids     []age.Identity
	out     *rowsFile
	schemas map[string]*release.Manifest // by version
	result  *pulled
	say     func(format string, args ...any) // to people
}

func (p *puller) all(ctx context.Context, q operator.SampleQuery) error {
	for {
		page, err := p.c.SealedSamples(ctx, p.model, q)
		if err != nil {
			return err
		}
		for i := range page.Items {
			if err := p.open(ctx, &page.Items[i]); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		q.Cursor = page.Next
	}
}

func (p *puller) open(ctx context.Context, s *operator.SealedSample) error {
	p.result.Samples++
	rows, err := sampling.Open(s.Sealed, p.ids...)
	if errors.Is(err, sampling.ErrIdentity) {
		p.result.Foreign++
		return nil
	}
	if err != nil {
		p.skip(s, err)
		return nil
	}
	m, err := p.manifest(ctx, s)
	if err != nil {
		return err
	}
	list, err := rowsOf(s, m, rows)
	if err != nil {
		p.skip(s, err)
		return nil
	}
	for _, row := range list {
		if err := p.out.write(row); err != nil {
			return err
		}
		p.result.Rows++
	}
	return nil
}

// skip leaves out what no honest device makes: one that lies must not keep the
// rows of the others from being labelled.
func (p *puller) skip(s *operator.SealedSample, err error) {
	p.result.Unread++
	p.say("sample of %s, %s left out: %v", s.Device, timeText(s.To), err)
}

// manifest is that of the version that predicted.
func (p *puller) manifest(ctx context.Context, s *operator.SealedSample) (*release.Manifest, error) {
	name := s.Release.String()
	if m := p.schemas[name]; m != nil {
		return m, nil
	}
	v, err := p.c.Version(ctx, p.model, name)
	if err != nil {
		return nil, err
	}
	if v.Manifest == nil {
		return nil, operator.Errorf(operator.NotFound, "the manifest of %s %s is not there", p.model, s.Version)
	}
	p.schemas[name] = v.Manifest
	return v.Manifest, nil
}
