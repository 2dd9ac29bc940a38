package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// lineageTree draws each thing below the one that came of it.
func lineageTree(w io.Writer, l *operator.Provenance) {
	t := &tree{w: w}
	if l.Window != nil {
		t.down("predictions of %s, %s to %s: %d rows", l.Window.Device, timeText(l.Window.Start), timeText(l.Window.End), l.Window.Rows)
		for i := range l.Window.Others {
			o := &l.Window.Others[i]
			t.note("in this hour also %d rows with %s: see vedette model lineage %s %s", o.Rows, firstOf(o.Version, o.Release.Short()), o.Model, firstOf(o.Version, o.Release.String()))
		}
	}
	t.down("release %s %s, sequence %d, stage %s, %s", l.Release.Model, l.Release.Version, l.Sequence, l.Stage, l.Release.Release.Short())
	t.note("signed by role %s, %d of %d needed: %s", l.Signature.Role, len(l.Signature.KeyIDs), l.Signature.Threshold, shortIDs(l.Signature.KeyIDs))
	t.note("published %s by %s", timeText(l.Published), l.By)
	for _, r := range l.Rollouts {
		wave := ""
		if r.Wave > 0 {
			wave = fmt.Sprintf(", in wave %d", r.Wave)
		}
		t.note("brought by rollout %s (%s) of %s, %s%s", r.ID, r.Status, r.Creator, timeText(r.Created), wave)
	}
	if c := l.Candidate; c != nil {
		t.down("%s, registered %s by %s", c.Source, timeText(c.Registered), c.User)
		if c.Retrain != "" {
			t.note("answers retrain request %s", c.Retrain)
		}
	}
	if l.Run != nil {
		t.run(l.Run)
	}
	t.origins(l)
	for _, gap := range l.Gaps {
		fmt.Fprintf(w, "not known: %s\n", gap)
	}
}

func (t *tree) run(r *operator.LineageRun) {
	t.down("run %s %s by %s, %s, %s", r.ID, r.Name, r.User, timeText(r.Started), r.Status)
	if r.Seed != "" {
		t.note("seed %s", r.Seed)
	}
	if len(r.Params) > 0 {
		t.note("params %s", labelText(r.Params))
	}
	for _, key := range slices.Sorted(maps.Keys(r.Environment)) {
		t.note("%s %s", key, r.Environment[key])
	}
}

// origins are what the run was made of.
func (t *tree) origins(l *operator.Provenance) {
	if l.Data != "" {
		t.note("data %s", l.Data)
	}
	if l.Run != nil {
		for _, d := range l.Run.Datasets {
			t.note("dataset %s %s@%s", d.Context, d.Name, d.Digest)
		}
	}
	if l.Commit != "" {
		t.note("code %s", l.Commit)
	}
	if l.Author != "" {
		t.note("author %s", l.Author)
	}
	if l.Parent != nil {
		t.note("derived from %s %s, %s", l.Parent.Model, l.Parent.Version, l.Parent.Release.Short())
	}
}

// tree writes lines that hang on the one above.
type tree struct {
	w     io.Writer
	depth int
}

// down begins the next thing back.
func (t *tree) down(format string, args ...any) {
	mark := ""
	if t.depth > 0 {
		mark = "└─ "
	}
	fmt.Fprintf(t.w, "%s%s%s\n", strings.Repeat("   ", max(0, t.depth-1)), mark, fmt.Sprintf(format, args...))
	t.depth++
}

// note says more about the newest thing.
func (t *tree) note(format string, args ...any) {
	fmt.Fprintf(t.w, "%s· %s\n", strings.Repeat("   ", t.depth), fmt.Sprintf(format, args...))
}

func shortIDs(ids []string) string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id[:min(12, len(id))]
	}
	return strings.Join(out, ", ")
}
