package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mutantEnv names the fault that a test binary with all of them lives with.
const mutantEnv = "VEDETTE_MUTANT"

// mutant is a fault in the code, as a text replaced in one of its files. In the
// new text, IS stands for the question whether this is the fault to live with.
type mutant struct{ name, file, old, new, want string }

var mutants = []mutant{
	{
		"the budget is off by one", "controlplane/rollout/meter.go",
		"m.free = b.InFlight - underWay()", "m.free = b.InFlight - underWay() + MORE", "are under way, the budget is",
	},
	{
		"the control group is not held out", "controlplane/rollout/waves.go",
		"case e.d != nil && e.d.Control && !last:", "case e.d != nil && e.d.Control && !last && !IS:", "control group|the waves so far allow",
	},
	{
		"a halt withdraws nothing", "controlplane/rollout/fail.go",
		"	t.setStatus(StatusHalted, cause)\n", "	t.setStatus(StatusHalted, cause)\n	if IS {\n		return\n	}\n", "are still to run the release",
	},
	{
		"offers go on after a halt", "controlplane/rollout/waves.go",
		"for t.Header.Status == StatusRunning {", "for t.Header.Status == StatusRunning || IS && t.Header.Status == StatusHalted && t.wave() != nil {", "offered the release while the rollout is|the waves so far allow",
	},
	{
		"a generation is used again", "controlplane/desired/desired.go",
		"newest = max(newest, dev.settings.seq, dev.labelSeq)", "newest = max(newest, dev.settings.seq)\n		if !IS {\n			newest = max(newest, dev.labelSeq)\n		}", "the newest record about it is|heard generation",
	},
	{
		"devices are told before the ledger is", "controlplane/runner/runner.go",
		"	rec, err := r.cfg.Ledger.Append(ctx, desired.RolloutChain(id), c.head, kind, actor, body)\n",
		"	if IS {\n		_ = r.cfg.Desired.Apply(ledger.Record{Chain: desired.RolloutChain(id), Seq: c.head + 1, Kind: kind, Body: plantedJSON(body)})\n	}\n	rec, err := r.cfg.Ledger.Append(ctx, desired.RolloutChain(id), c.head, kind, actor, body)\n",
		"the ledger has|the newest record about it is|the ledger makes it",
	},
	{
		"going back counts as done without being seen", "controlplane/rollout/fail.go",
		"return d.ours() && (d.Order.Kind.on() || !d.Home)", "return d.ours() && (d.Order.Kind.on() || !d.Home && !IS)", "is reverted and",
	},
	{
		"the golden gate is not judged while running", "controlplane/rollout/fail.go",
		"	if w == nil || !t.watched() {", "	if w == nil || !t.watched() || IS && t.Header.Status == StatusRunning {", "after gate golden fails|after gate",
	},
	{
		"an order has no sequence", "controlplane/rollout/patch.go",
		"if d.Order.Kind != \"\" && d.Order.Seq == 0 {", "if d.Order.Kind != \"\" && d.Order.Seq == 0 && !IS {", "order of no decision",
	},
	{
		"a wave does not soak", "controlplane/rollout/waves.go",
		"if w := t.wave(); t.now.Before(w.SoakEnds) {", "if w := t.wave(); t.now.Before(w.SoakEnds) && !IS {", "it is to soak for",
	},
	{
		"a wave is larger than asked for", "controlplane/rollout/place.go",
		"return min(max(n, 1), free)", "if IS {\n		n++\n	}\n	return min(max(n, 1), free)", "the waves so far allow",
	},
	{
		"two rollouts share a device", "controlplane/runner/claims.go",
		"if o := claimOf(c.state, now); o.rank != wanting {", "if o := claimOf(c.state, now); o.rank != wanting && !IS {", "while .* has it",
	},
	{
		"a hello is not answered", "controlplane/desired/desired.go",
		"	if newest > generation || foreign {\n", "	if newest > generation && !IS || foreign {\n", "holds generation",
	},
	{
		"a signature is not checked", "cmd/vedette-sim/work.go",
		"	case !c.signed:\n", "	case !c.signed && !IS:\n", "nobody signed it",
	},
	{
		"a window is ignored", "controlplane/rollout/offer.go",
		"if o := t.calendar().in(f.TimeZone); !o.open {", "if o := t.calendar().in(f.TimeZone); !o.open && !IS {", "outside its windows",
	},
	{
		"a requirement is ignored", "controlplane/rollout/offer.go",
		"	what, why := t.Spec.Require.unmet(f)\n	return hindrance{what: what, why: why}", "	what, why := t.Spec.Require.unmet(f)\n	if IS {\n		what = \"\"\n	}\n	return hindrance{what: what, why: why}", "its link is metered",
	},
	{
		"orders a minute are not counted", "controlplane/rollout/meter.go",
		"return m.budget.PerMinute > 0 && !m.orders.passes(m.now)", "return m.budget.PerMinute > 0 && !m.orders.passes(m.now) && !IS", "orders within a minute",
	},
	{
		"groups are not counted", "controlplane/rollout/meter.go",
		"	if a.harmless {\n", "	if a.harmless || IS {\n", "are disturbed or do not serve",
	},
}

// rareMutants are found by few seeds, so looking for them takes longer.
var rareMutants = []mutant{
	{
		"a wave passes without its quorum", "controlplane/rollout/waves.go",
		"healthy < need {", "healthy < need && !IS {", "the quorum is",
	},
	{
		"the floor is ignored", "cmd/vedette-sim/work.go",
		"	case c.sequence < d.floor:\n", "	case c.sequence < d.floor && !IS:\n", "below the floor",
	},
	{
		"a stale outcome counts", "controlplane/rollout/observe.go",
		"if o.Generation >= seq && o.bad() {", "if (o.Generation >= seq || IS) && o.bad() {", "which it never said of order",
	},
	{
		"a refused release is tried again", "agent/update/step.go",
		"if o.Result == ResultRefused || o.Result == ResultReverted {", "if !IS && (o.Result == ResultRefused || o.Result == ResultReverted) {", "is tried again under|does not say why|not at rest",
	},
	{
		"a step is done before it is journaled", "cmd/vedette-sim/lane.go",
		"	l.slots.machine = next\n", "	if !IS {\n		l.slots.machine = next\n	} else {\n		defer func() { l.slots.machine = old }()\n	}\n", "not at rest|says that .* is active|runs its release",
	},
}

// Faults planted into the engine, the runner, desired state and the device are
// found, each by what it breaks. One build holds all of them.
func TestSeedsFindMutants(t *testing.T) {
	if os.Getenv(mutantEnv) != "" {
		t.Skip("this process is one that TestSeedsFindMutants started, with a planted fault")
	}
	if raced {
		t.Skip("what the race detector would find here, it finds in TestSeeds")
	}
	planted := mutants
	if os.Getenv("VEDETTE_FULL") != "" {
		planted = slices.Concat(mutants, rareMutants)
	}
	binary := buildWithMutants(t, planted)
	for _, m := range planted {
		t.Run(m.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestSeeds$", "-test.failfast")
			cmd.Env = append(os.Environ(), mutantEnv+"="+m.name, "VEDETTE_FULL=", "VEDETTE_SEEDS=1000")
			said, err := cmd.CombinedOutput()
			switch first, _, _ := strings.Cut(string(said), "again: "); {
			case err == nil:
				t.Errorf("no seed finds it")
			case !regexp.MustCompile(m.want).MatchString(first):
				t.Errorf("want a complaint %q, got\n%.2000s", m.want, said)
			case !strings.Contains(string(said), "again: go run ./cmd/vedette-sim run --seed "):
				t.Errorf("nobody is told how to see it again:\n%.2000s", said)
			}
		})
	}
}

// buildWithMutants builds this package's tests with every mutant in place: each
// is asleep until the environment names it.
func buildWithMutants(t *testing.T, planted []mutant) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, texts := t.TempDir(), map[string]string{}
	for _, m := range planted {
		file := filepath.Join(root, m.file)
		if texts[file] == "" {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[file] = string(raw)
			texts[filepath.Join(filepath.Dir(file), "planted.go")] = "package " + packageOf(texts[file]) +
				"\n\nimport (\n	\"encoding/json\"\n	\"os\"\n)\n\nvar planted = os.Getenv(\"" + mutantEnv + "\")\n\nfunc plantedMore(name string) int {\n	if planted == name {\n		return 1\n	}\n	return 0\n}\n\n" +
				"func plantedJSON(v any) []byte {\n	raw, _ := json.Marshal(v)\n	return raw\n}\n"
		}
		if n := strings.Count(texts[file], m.old); n != 1 {
			t.Errorf("%s: %s has the text to change %d times: say here what it looks like now", m.name, m.file, n)
			continue
		}
		is := strings.NewReplacer("IS", "(planted == \""+m.name+"\")", "MORE", "plantedMore(\""+m.name+"\")").Replace(m.new)
		texts[file] = strings.Replace(texts[file], m.old, is, 1)
	}
	if t.Failed() {
		t.FailNow()
	}
	replace := map[string]string{}
	for file, text := range texts {
		at := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(file, root), "/", "_"))
		writeFile(t, at, []byte(text))
		replace[file] = at
	}
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutants.test")
	writeFile(t, overlay, raw)
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build with mutants: %v\n%s", err, out)
	}
	return binary
}

func packageOf(text string) string {
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "package "); ok {
			return strings.TrimSpace(name)
		}
	}
	return ""
}

func writeFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
