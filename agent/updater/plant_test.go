package updater_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/trial"
)

// plantEnv names the fault that TestRandomSchedules is to live with.
const plantEnv = "VEDETTE_PLANT"

// plants are faults put into the device of a schedule, by name.
var plants = map[string]func(*schedule){
	"no file is synced":            func(s *schedule) { s.fsys = &looseFS{FS: s.fs, file: func(string) bool { return true }} },
	"no file of a model is synced": func(s *schedule) { s.fsys = &looseFS{FS: s.fs, sync: isModelFile} },
	"no folder is synced": func(s *schedule) {
		s.fsys = &looseFS{FS: s.fs, sync: func(name string) bool { return path.Ext(name) == "" }}
	},
	"the journal is not synced": func(s *schedule) {
		s.fsys = &looseFS{FS: s.fs, sync: func(name string) bool { return name == "journal" }}
	},
	"the journal forgets refusals":  func(s *schedule) { s.fsys = &forgetfulFS{FS: s.fs} },
	"every start finds no journal":  func(s *schedule) { s.fsys = &blindFS{FS: s.fs} },
	"memory is not admitted":        func(s *schedule) { s.budget = 0 },
	"a wrong release passes trials": func(s *schedule) { s.trier.judge = s.passAll },
}

func isModelFile(name string) bool {
	return len(path.Base(name)) == 64 || strings.HasSuffix(name, ".part")
}

// A proof that cannot fail proves nothing: each planted fault is found, by what
// it breaks.
func TestSchedulesFindPlantedFaults(t *testing.T) {
	if os.Getenv(plantEnv) != "" {
		t.Skip("this process lives with a planted fault")
	}
	wants := map[string]string{
		"no file is synced":             "no release of|damaged|unverified",
		"no file of a model is synced":  "damaged|unverified",
		"no folder is synced":           "no release of|damaged|unverified|is tried again under",
		"the journal is not synced":     "is tried again under",
		"the journal forgets refusals":  "is tried again under",
		"every start finds no journal":  "is tried again under",
		"memory is not admitted":        "active releases take",
		"a wrong release passes trials": "v3 is active",
	}
	for name := range plants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said, err := schedulesWith(t, exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRandomSchedules$", "-test.failfast"), name)
			switch {
			case err == nil:
				t.Errorf("no schedule finds it")
			case wants[name] == "" || !regexp.MustCompile(wants[name]).MatchString(said):
				t.Errorf("want a complaint %q, got\n%.3000s", wants[name], said)
			case !strings.Contains(said, "again: VEDETTE_SEED="):
				t.Errorf("nobody is told how to see it again:\n%.3000s", said)
			}
		})
	}
}

func schedulesWith(t *testing.T, cmd *exec.Cmd, plant string) (said string, err error) {
	t.Helper()
	cmd.Env = append(os.Environ(), plantEnv+"="+plant, "VEDETTE_FULL=")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// looseFS says that it has synced what it has not.
type looseFS struct {
	slots.FS
	file func(name string) bool // files being written
	sync func(name string) bool // files and folders synced by name
}

func (l *looseFS) Sync(name string) error {
	if l.sync != nil && l.sync(name) {
		return nil
	}
	return l.FS.Sync(name)
}

func (l *looseFS) Create(name string) (slots.File, error) {
	f, err := l.FS.Create(name)
	if err != nil || l.file == nil || !l.file(name) {
		return f, err
	}
	return looseFile{f}, nil
}

type looseFile struct{ slots.File }

func (looseFile) Sync() error { return nil }

// forgetfulFS keeps no refusals in journals.
type forgetfulFS struct{ slots.FS }

func (f *forgetfulFS) Rename(oldname, newname string) error {
	if path.Dir(newname) != "journal" || !strings.HasPrefix(path.Base(newname), "model-") {
		return f.FS.Rename(oldname, newname)
	}
	raw, err := slots.ReadRecord(f.FS, oldname, 1<<20)
	if err != nil {
		return err
	}
	var entry map[string]any
	if err := json.Unmarshal(raw, &entry); err != nil {
		return err
	}
	delete(entry["machine"].(map[string]any), "refused")
	if raw, err = json.Marshal(entry); err != nil {
		return err
	}
	return slots.WriteRecord(f.FS, newname, append(raw, '\n'))
}

// blindFS shows no machine in the journal.
type blindFS struct{ slots.FS }

func (b *blindFS) Open(name string) (fs.File, error) {
	if path.Dir(name) == "journal" && !strings.HasPrefix(path.Base(name), "desired") {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return b.FS.Open(name)
}

func (s *schedule) passAll(c trial.Candidate) trial.Verdict {
	v := s.judge(c)
	v.OK = true
	return v
}

// mutant is a fault in the code itself, as a text replaced in one of its files.
type mutant struct{ name, file, old, new, want string }

var mutants = []mutant{
	{
		"a step is done before it is journaled", "../updater/run.go",
		"	if err := u.write(m, next, m.trial, at); err != nil && !entersAgain(e, old, next) {\n		return err\n	}\n	u.set(func() { m.machine, m.at = next, at })",
		"	u.set(func() { m.machine, m.at = next, at })\n	u.announce(m, old, next)\n	defer func() { _ = u.write(m, next, m.trial, at) }()", "is tried again under",
	},
	{
		"what is active is changed before it is loaded", "../updater/work.go",
		"	if err := u.serve(ctx, m, slot); err != nil {\n		return failed(d, err, codeActivate, false)\n	}\n	if err := m.slots.Activate(m.name, d); err != nil {",
		"	if err := m.slots.Activate(m.name, d); err == nil {\n		_ = u.serve(ctx, m, slot)\n	} else {", "is active",
	},
	{"files are not read back", "../slots/check.go", "	for _, f := range m.Files() {", "	for _, f := range m.Files()[:0] {", "damaged|unverified"},
	{"a refused release is not remembered", "../update/step.go", "	if o.Result == ResultRefused || o.Result == ResultReverted {", "	if false {", "is tried again under"},
	{"other models are not counted", "../updater/work.go", "				sum += u.takes(other, l, d)", "				_ = u.takes(other, l, d)", "active releases take"},
	{"a failed load is not tried again", "../updater/restore.go", "		m.mendAt = u.cfg.Now().Add(u.cfg.Limits.Backoff(m.mends, u.cfg.Random()))", "		m.mendAt = time.Time{}", "is active, 000000000000 serves"},
	{"the record is renamed before it is synced", "../slots/fs.go", "		err = f.Sync()", "		err = nil", "no release of|damaged"},
}

// Faults in the code itself are found too.
func TestSchedulesFindMutants(t *testing.T) {
	if os.Getenv("VEDETTE_FULL") == "" {
		t.Skip("builds the package once per mutant: set VEDETTE_FULL=1")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-failfast", "-timeout=2m", "-run=^TestRandomSchedules$", "-overlay", m.overlay(t), ".")
			said, err := schedulesWith(t, cmd, "none")
			if err == nil || !regexp.MustCompile(m.want).MatchString(said) || strings.Contains(said, "build failed") {
				t.Errorf("want a complaint %q, got %v\n%.3000s", m.want, err, said)
			}
		})
	}
}

// overlay writes the mutated file and says to the compiler where it is.
func (m mutant) overlay(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(raw), m.old); n != 1 {
		t.Fatalf("%s has the text to change %d times: say here what it looks like now", m.file, n)
	}
	dir := t.TempDir()
	changed, list := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{changed: strings.Replace(string(raw), m.old, m.new, 1), list: string(replace)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return list
}
