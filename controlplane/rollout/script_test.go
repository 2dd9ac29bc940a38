package rollout

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

var update = flag.Bool("update", false, "write the scripts in testdata with what the engine does now")

// Scenarios are golden text scripts: blocks of commands, "----", and what the
// engine says to them. Every script ends with a restart that must replay to the
// same state.
func TestScripts(t *testing.T) {
	for _, file := range scriptFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

// scriptFiles are the paths of all scripts in order.
func scriptFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	edges, edgesErr := filepath.Glob("testdata/edges/*.txt")
	if err != nil || edgesErr != nil || len(edges) == 0 {
		t.Fatalf("no scripts: %v, %v", err, edgesErr)
	}
	files = append(files, edges...)
	slices.Sort(files)
	return files
}

func runScript(t *testing.T, file string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{world: newWorld(t)}
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
		input, _, _ := strings.Cut(block+"\n", "----\n")
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(input)
		if !strings.HasPrefix(block, "#") {
			out.WriteString("----\n" + s.run(input))
		}
	}
	s.restart()
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, want := strings.TrimSpace(out.String()), strings.TrimSpace(string(raw)); got != want {
		t.Errorf("got\n%s\n\nwant\n%s", got, want)
	}
}

// script runs commands in a world.
type script struct {
	*world
	out strings.Builder
}

func (s *script) run(input string) string {
	s.t.Helper()
	s.out.Reset()
	for line := range strings.Lines(input) {
		if fields := strings.Fields(line); len(fields) > 0 {
			s.command(fields[0], fields[1:])
		}
	}
	return s.out.String()
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *script) command(name string, args []string) {
	s.t.Helper()
	switch name {
	case "devices": // devices NAME COUNT [key=value…]
		s.devices(args)
	case "rollout": // rollout [key=value…]
		s.rollout(args)
	case "act": // act ACTION REASON…
		s.show(s.step(&Command{Action: Action(args[0]), Actor: "alice", Reason: strings.Join(args[1:], " ")}))
	case "revise": // revise key=value…: the spec with these changes, as rollout takes them
		spec, _ := s.spec(s.state.Spec, args)
		s.show(s.step(&Command{Action: Revise, Actor: "alice", Reason: "as scripted", Spec: &spec}))
	case "replace": // replace ROLLOUT REASON…: another rollout takes over
		s.show(s.step(&Command{Action: Replace, Actor: "alice", Reason: strings.Join(args[1:], " "), By: args[0]}))
	case "after": // after DURATION: time passes, then the engine steps
		s.now = s.now.Add(s.duration(args[0]))
		s.show(s.step(nil))
	case "wake": // the time passes until the engine wants to look again
		s.wake()
	case "gone": // gone DEVICE…: the fleet has forgotten them
		s.gone(args)
	case "step":
		s.show(s.step(nil))
	case "obey": // obey DEVICE…: they report that they run what they were told
		s.obedient(s.named(args))
		s.show(s.step(nil))
	case "report": // report DEVICE key=value…
		s.reported(args[0], args[1:])
		s.show(s.step(nil))
	case "fact": // fact DEVICE key=value…: something other than a report becomes known
		for _, id := range s.named(args[:1]) {
			s.set(id, func(f *DeviceFacts) { s.change(f, args[1:]) })
		}
	case "told": // told DEVICE…: what desired state says to them now
		s.told(args)
	case "counts": // counts DEVICE new|old|past key=value…: evidence
		s.counts(args[0], args[1], args[2:])
	case "restart":
		s.restart()
	case "state":
		s.printState()
	case "gates":
		for _, g := range Judge(s.state, s.facts, s.now) {
			s.printf("%s: %s: %s", g.Gate, g.Result, g.Text)
		}
	case "explain":
		s.explain(args)
	case "plan":
		s.plan()
	default:
		s.t.Fatalf("unknown command %q", name)
	}
	if s.state != nil {
		s.invariants()
	}
}

func (s *script) duration(text string) time.Duration {
	s.t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *script) named(args []string) []string {
	if len(args) == 1 && args[0] == "all" {
		return s.ids()
	}
	return args
}

func (s *script) devices(args []string) {
	s.t.Helper()
	n, err := strconv.Atoi(args[1])
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range n {
		s.set(args[0]+strconv.Itoa(i+1), func(f *DeviceFacts) {
			f.Selected, f.Profile, f.Reported, f.Assigned = true, "pi", s.now, v1
			serve(v1)(f)
			s.change(f, args[2:])
		})
	}
}

func (s *script) reported(id string, args []string) {
	for _, id := range s.named([]string{id}) {
		s.report(id, func(f *DeviceFacts) { s.change(f, args) })
	}
}

func releaseOf(text string) release.Digest {
	if text == "-" {
		return release.Digest{}
	}
	return release.DigestOf([]byte(text))
}

func (s *script) change(f *DeviceFacts, args []string) {
	s.t.Helper()
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "profile":
			f.Profile = value
		case "site":
			f.Site = value
		case "agent":
			f.Agent = value
		case "holder":
			f.Holder = value
		case "back":
			back := releaseOf(value)
			f.Back = &back
		case "assigned":
			f.Assigned = releaseOf(value)
		case "selected":
			f.Selected = value == "yes"
		case "revoked":
			f.Revoked = value == "yes"
		case "serves":
			serve(releaseOf(value))(f)
		case "shadow": // AGREED/ROWS
			agreed, rows, _ := strings.Cut(value, "/")
			f.Shadow = &Agreement{Agreed: uint64(s.number(agreed)), Rows: uint64(s.number(rows))}
		case "mute": // active but not answering
			f.Serving = value != "yes"
		case "update": // the update machine works on the new release
			f.Target, f.Update = v2, value
		case "ended": // RESULT:CODE
			result, code, _ := strings.Cut(value, ":")
			f.Target, f.Update = release.Digest{}, "idle"
			f.Outcomes = []Outcome{{Result: result, Code: code, Message: "as scripted", Generation: s.seq}}
		default:
			if !s.surroundings(f, key, value) {
				s.t.Fatalf("unknown fact %q", arg)
			}
		}
	}
}

func (s *script) counts(who, which string, args []string) {
	s.t.Helper()
	for _, id := range s.named([]string{who}) {
		e := &Evidence{}
		for _, arg := range args {
			key, value, _ := strings.Cut(arg, "=")
			s.count(e, key, value)
		}
		s.set(id, func(f *DeviceFacts) {
			switch which {
			case "new":
				f.New = e
			case "old":
				f.Old, f.Past = e, e
			case "past":
				f.Past = e
			}
		})
	}
}

func (s *script) count(e *Evidence, key, value string) {
	s.t.Helper()
	numbers := []uint64{}
	for part := range strings.SplitSeq(value, ",") {
		n, err := strconv.ParseUint(part, 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	switch key {
	case "rows":
		e.Rows = numbers[0]
	case "failed":
		e.FailedRows = numbers[0]
	case "p95":
		e.P95US = float64(numbers[0])
	case "labels":
		e.Labels = numbers[0]
	case "correct":
		e.Correct = numbers[0]
	case "classes":
		e.Classes = numbers
	default:
		s.t.Fatalf("unknown count %q", key)
	}
}

func (s *script) rollout(args []string) {
	s.t.Helper()
	if s.state != nil {
		s.restart() // the one before
	}
	s.create(s.spec(Spec{}, args))
}

// spec is a spec with changes.
func (s *script) spec(spec Spec, args []string) (Spec, Requirements) {
	s.t.Helper()
	requires := Requirements{}
	spec.Waves = slices.Clone(spec.Waves)
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "waves":
			spec.Waves = nil
			for i, w := range strings.Split(value, ",") {
				spec.Waves = append(spec.Waves, s.wave(i, w))
			}
		case "soak":
			for i := range spec.Waves {
				spec.Waves[i].Soak = new(release.Duration(s.duration(value)))
			}
		case "quorum":
			for i := range spec.Waves {
				spec.Waves[i].Quorum = s.number(value)
			}
		case "control":
			spec.Control = new(s.number(value))
		case "budget":
			spec.Budget.InFlight = int(s.number(value))
			spec.Revert = spec.Budget
		case "on_failure":
			spec.OnFailure = OnFailure(value)
		case "approval":
			spec.Approval = value == "yes"
		case "on_conflict":
			spec.OnConflict = OnConflict(value)
		case "start_at": // from now
			spec.StartAt = s.now.Add(s.duration(value))
		case "selector":
			spec.Selector = value
		case "version":
			spec.Version = value
		case "shadow": // ROWS:DEADLINE, or off
			if spec.Shadow = nil; value == "off" {
				continue
			}
			rows, deadline, _ := strings.Cut(value, ":")
			spec.Shadow = &ShadowSpec{Rows: uint64(s.number(rows)), Deadline: release.Duration(s.duration(deadline))}
		case "decision_deadline":
			spec.DecisionDeadline = release.Duration(s.duration(value))
		case "deadline":
			spec.Deadline = release.Duration(s.duration(value))
		case "min_agent":
			requires.MinAgent = value
		case "gate": // KIND:LIMIT:INCONCLUSIVE, or KIND:off
			g := s.gate(value)
			others := func(o GateSpec) bool { return o.Kind == g.Kind }
			spec.Gates = append(slices.DeleteFunc(slices.Clone(spec.Gates), others), g)
		default:
			if !s.bound(&spec, key, value) {
				s.t.Fatalf("unknown part of a spec: %q", arg)
			}
		}
	}
	return spec.WithDefaults(), requires
}

func (s *script) number(text string) float64 {
	s.t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

func (s *script) wave(i int, text string) WaveSpec {
	s.t.Helper()
	w := WaveSpec{Name: fmt.Sprintf("wave %d", i+1)}
	text, w.Approval = strings.CutSuffix(text, "!")
	text, quorum, own := strings.Cut(text, "@")
	if own {
		w.Quorum = s.number(quorum)
	}
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		w.Percent = s.number(percent)
		return w
	}
	w.Count = int(s.number(text))
	return w
}

func (s *script) gate(text string) GateSpec {
	s.t.Helper()
	part := strings.Split(text, ":")
	if part[1] == "off" {
		return GateSpec{Kind: GateKind(part[0]), Off: true}
	}
	return GateSpec{Kind: GateKind(part[0]), Limit: new(s.number(part[1])), Inconclusive: Inconclusive(part[2])}
}

// show prints a decision.
func (s *script) show(d *Decision, err error) {
	if err != nil {
		s.printf("error: %v", err)
		return
	}
	for _, c := range d.Changes {
		subject := c.Subject
		if c.Wave > 0 && subject == SubjectWave {
			subject = fmt.Sprintf("wave %d", c.Wave)
		}
		if c.Subject == SubjectDevices {
			subject = strings.Join(c.Devices, " ")
		}
		s.printf("%s: %s -> %s: %s", subject, c.From, c.To, c.Why)
	}
	for _, a := range d.Assign {
		name := nameOf(a.Release)
		if a.Role != "" {
			name += " as " + a.Role
		}
		s.printf("assign %s to %s", name, strings.Join(a.Devices, " "))
	}
}

func (s *script) printState() {
	h := s.state.Header
	deadline := "none"
	if !h.Deadline.IsZero() {
		deadline = h.Deadline.Format("Jan 2 15:04")
	}
	s.printf("%s, deadline %s, on v2: %d", h.Status, deadline, len(s.on()))
	for i, w := range s.state.Waves {
		s.printf("wave %d: %s: %s", i+1, w.State, w.Cause)
	}
	for _, id := range s.ids() {
		if d, ok := s.state.Devices[id]; ok {
			s.printf("%s: %s wave=%d tries=%d late=%t control=%t already=%t %s", id, d.State, d.Wave, d.Tries, d.Late, d.Control, d.Already, d.Code)
		}
	}
}

func (s *script) explain(args []string) {
	for _, id := range args {
		s.printf("%s: %s", id, ExplainDevice(s.state, s.facts, id, s.now))
	}
	if len(args) > 0 {
		return
	}
	e := Explain(s.state, s.facts, s.now)
	s.printf("%s", e.Summary)
	for _, line := range e.Waiting {
		s.printf("- %s", line)
	}
}

func (s *script) plan() {
	p := MakePlan(s.state.ID, s.state.Spec, s.state.Requires, s.facts, nil, s.now)
	s.printf("%d devices, %v, control %v, already %v, held %v", p.Devices, p.Expected, p.Control, p.Already, p.Held)
	for _, w := range p.Waves {
		s.printf("wave %d: %v profiles %v sites %v in %v", w.Number, w.Devices, w.Profiles, w.Sites, w.Expected)
		for _, d := range w.Detectable {
			s.printf("  %s: %s", d.Gate, d.Text)
		}
	}
	for _, w := range p.Warnings {
		s.printf("warning: %s", w)
	}
}
