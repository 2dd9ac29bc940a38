package score

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder is where a test scores the file in, some of whose rows are bad.
type folder struct{ dir string }

func newFolder(t *testing.T) folder {
	t.Helper()
	d := folder{t.TempDir()}
	var in strings.Builder
	in.WriteString("a,b,c\n")
	for r := range 41 {
		if r%7 == 3 {
			in.WriteString("bad,0,0\n")
			continue
		}
		fmt.Fprintf(&in, "%d,%d.25,1\n", r, r)
	}
	d.write(t, "in", in.String())
	return d
}

func (d folder) path(name string) string { return filepath.Join(d.dir, name) }

func (d folder) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(d.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// read returns a file, or what is wrong with it.
func (d folder) read(name string) string {
	raw, err := os.ReadFile(d.path(name))
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// run scores in to out, with rejects in bad.
func (d folder) run(ctx context.Context, t *testing.T, edit func(*Config)) error {
	t.Helper()
	f, err := os.Open(d.path("in"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cfg := Config{
		Model: &sums{}, Schema: testSchema(), Input: Input{Reader: f, Name: d.path("in")}, Output: d.path("out"), Rejects: d.path("bad"),
		InFormat: CSV, OutFormat: CSV, OnError: OnErrorNull, Batch: 4, RowGroup: 4,
	}
	edit(&cfg)
	_, err = Run(ctx, cfg)
	return err
}

// interrupt ends a run after some batches.
func (d folder) interrupt(t *testing.T, edit func(*Config)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := d.run(ctx, t, func(c *Config) {
		edit(c)
		c.Progress = func(p Progress) {
			if p.Rows >= 12 {
				cancel()
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want %v", err, context.Canceled)
	}
}

// TestResumeCutsOff goes on after a kill that left far more in the files than
// the checkpoint knows, and more than the rest of the run will write over.
func TestResumeCutsOff(t *testing.T) {
	for _, format := range []string{CSV, JSONLines, Parquet} {
		want, got := newFolder(t), newFolder(t)
		edit := func(c *Config) { c.OutFormat, c.Input.Name = format, "in" }
		if err := want.run(t.Context(), t, edit); err != nil {
			t.Fatal(err)
		}
		got.interrupt(t, edit)
		for _, name := range []string{"out.part", "bad.part"} {
			got.write(t, name, got.read(name)+strings.Repeat("9999,half a line", 10_000))
		}
		if err := got.run(t.Context(), t, func(c *Config) { edit(c); c.Resume = true }); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"out", "bad"} {
			if g, w := got.read(name), want.read(name); g != w {
				t.Errorf("%s: %s has %d bytes and is not as that of an unbroken run of %d", format, name, len(g), len(w))
			}
		}
	}
}

// TestNothingIsReplaced finds files that were there before as they were.
func TestNothingIsReplaced(t *testing.T) {
	for _, resume := range []bool{false, true} {
		for _, name := range []string{"out", "bad", "report"} {
			d := newFolder(t)
			d.write(t, name, "precious")
			edit := func(c *Config) { c.Resume, c.Report = resume, d.path("report") }
			if err := d.run(t.Context(), t, edit); !errors.Is(err, ErrFiles) || !strings.Contains(err.Error(), "--force") {
				t.Errorf("resume %t, %s: %v, want %v", resume, name, err, ErrFiles)
			}
			if got := d.read(name); got != "precious" {
				t.Errorf("resume %t, %s is now %.40q", resume, name, got)
			}
			if left, _ := filepath.Glob(d.path("*.*")); len(left) > 0 {
				t.Errorf("resume %t, %s: left behind: %q", resume, name, left)
			}
			if err := d.run(t.Context(), t, func(c *Config) { edit(c); c.Replace = true }); err != nil {
				t.Errorf("resume %t, %s, to be replaced: %v", resume, name, err)
			}
		}
	}
}

// TestFinishedIsNotResumed says that a run is over instead of doing it again.
func TestFinishedIsNotResumed(t *testing.T) {
	d := newFolder(t)
	d.interrupt(t, func(*Config) {})
	resume := func(c *Config) { c.Resume = true }
	if err := d.run(t.Context(), t, resume); err != nil {
		t.Fatal(err)
	}
	want := d.read("out")
	if err := d.run(t.Context(), t, resume); !errors.Is(err, ErrFiles) || !strings.Contains(err.Error(), "nothing is left to resume") {
		t.Errorf("%v, want %v", err, ErrFiles)
	}
	if got := d.read("out"); got != want {
		t.Errorf("out is now %.80q", got)
	}
}

// TestResumeReplacesWhatTheRunMay goes on with the permission that the interrupted
// run had: what appeared since is not the run's to replace.
func TestResumeReplacesWhatTheRunMay(t *testing.T) {
	for _, may := range []bool{true, false} {
		d := newFolder(t)
		d.interrupt(t, func(c *Config) { c.Replace = may })
		d.write(t, "out", "precious")
		err := d.run(t.Context(), t, func(c *Config) { c.Resume = true })
		if may && err != nil || !may && !errors.Is(err, ErrFiles) {
			t.Errorf("may replace %t: %v", may, err)
		}
		if kept := d.read("out") == "precious"; kept == may {
			t.Errorf("may replace %t, was kept %t", may, kept)
		}
	}
}

// TestInputIsNeverWritten under any of its names, nor one result over another.
func TestInputIsNeverWritten(t *testing.T) {
	d := newFolder(t)
	want := d.read("in")
	for link, of := range map[string]string{"link": "in", "out2.part": "in", "out3.checkpoint": "in", "bad2.part": "in", "here": "."} {
		if err := os.Symlink(of, d.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(d.path("in"), d.path("hard")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ out, rejects, report string }{
		{"in", "bad", ""},
		{"./here/in", "bad", ""},
		{"link", "bad", ""},
		{"hard", "bad", ""},
		{"out2", "bad", ""},
		{"out3", "bad", ""},
		{"out", "in", ""},
		{"out", "bad2", ""},
		{"out", "bad", "hard"},
		{"out", "out", ""},
		{"out", "here/out", ""},
		{"out", "out.part", ""},
		{"out", "bad", "out.checkpoint"},
		{"out", "bad", "./bad"},
	} {
		for _, resume := range []bool{false, true} {
			err := d.run(t.Context(), t, func(cfg *Config) {
				cfg.Output, cfg.Rejects, cfg.Replace, cfg.Resume = d.path(c.out), d.path(c.rejects), true, resume
				if c.report != "" {
					cfg.Report = d.path(c.report)
				}
			})
			if !errors.Is(err, ErrFiles) || !strings.Contains(err.Error(), "would overwrite") {
				t.Errorf("%+v: %v, want %v", c, err, ErrFiles)
			}
			if got := d.read("in"); got != want {
				t.Fatalf("%+v: the input is now %.80q", c, got)
			}
		}
	}
}

// TestResultsAreForOthersToRead as far as the process lets them read what it makes.
func TestResultsAreForOthersToRead(t *testing.T) {
	d := newFolder(t)
	if err := d.run(t.Context(), t, func(*Config) {}); err != nil {
		t.Fatal(err)
	}
	if err := (&Report{Rows: 7}).Save(d.path("report")); err != nil {
		t.Fatal(err)
	}
	if got := d.read("report"); !strings.Contains(got, `"rows": 7`) {
		t.Errorf("report %s", got)
	}
	if err := os.WriteFile(d.path("like"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(d.path("like"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"out", "bad", "report"} {
		if got, err := os.Stat(d.path(name)); err != nil || got.Mode() != want.Mode() {
			t.Errorf("%s: %v, %v, want mode %v", name, got.Mode(), err, want.Mode())
		}
	}
}
