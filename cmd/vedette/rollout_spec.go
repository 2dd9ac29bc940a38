package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// specFlags describe a rollout.
type specFlags struct {
	file     string
	selector string

	waves    []string
	soak     time.Duration
	quorum   float64
	lateness time.Duration

	gates   []string
	noGates []string
	control float64
	alpha   float64
	shadow  uint64

	budget      int
	perMinute   int
	maxRate     string
	unavailable []string
	windows     []string
	unmetered   bool
	mains       bool
	battery     int

	onFailure  string
	onConflict string
	supersedes string
	approval   bool
	startAt    string
	deadline   time.Duration
}

func (f *specFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.file, "file", "f", "", `spec as YAML or JSON, see "vedette rollout spec"; flags given beside it win`)
	fs.StringVarP(&f.selector, "selector", "l", "", "label selector (default: all devices)")
	fs.StringArrayVar(&f.waves, "wave", nil, `wave: a count or a percentage of all, e.g. 1 or 50% or "100%,soak=1h,approval" (repeat)`)
	fs.DurationVar(&f.soak, "soak", 0, "how long devices must be seen healthy, for waves that do not say")
	fs.Float64Var(&f.quorum, "quorum", 0, "share of a wave that must be healthy, for waves that do not say")
	fs.DurationVar(&f.lateness, "lateness", 0, "silence after which a device holds no wave up, for waves that do not say")
	fs.StringArrayVar(&f.gates, "gate", nil, `gate with its limit, e.g. accuracy=0.02 or "errors=0.01,min=100,hold" (repeat)`)
	fs.StringArrayVar(&f.noGates, "no-gate", nil, "gate to leave out (repeat)")
	fs.Float64Var(&f.control, "control", 0, "share of devices held out until the last wave")
	fs.Float64Var(&f.alpha, "alpha", 0, "chance that the comparing gates stop a harmless release (default 0.05)")
	fs.Uint64Var(&f.shadow, "shadow", 0, "rows to compute beside the old version on each device before it switches")
	fs.IntVar(&f.budget, "budget", 0, "devices under way at one time (default: no limit)")
	fs.IntVar(&f.perMinute, "per-minute", 0, "devices that are asked a minute (default: no limit)")
	fs.StringVar(&f.maxRate, "max-rate", "", "bytes that all devices download a second, e.g. 2MB/s")
	fs.StringArrayVar(&f.unavailable, "max-unavailable", nil, "devices under way or down among those that share a label's value, e.g. site=1 or site=10% (repeat)")
	fs.StringArrayVar(&f.windows, "window", nil, `when devices may be asked: cron, duration and zone, e.g. "0 22 * * *,6h,Europe/Berlin" or ",device" for each device's own (repeat)`)
	fs.BoolVar(&f.unmetered, "unmetered", false, "ask devices only while their link is not billed by volume")
	fs.BoolVar(&f.mains, "mains", false, "ask devices only while they do not run on a battery")
	fs.IntVar(&f.battery, "min-battery", 0, "ask devices that run on a battery only from this percentage on")
	fs.StringVar(&f.onFailure, "on-failure", "", "when a gate fails: pause or revert")
	fs.StringVar(&f.onConflict, "on-conflict", "", "when another rollout has some of the devices: refuse or queue")
	fs.StringVar(&f.supersedes, "supersedes", "", "rollout whose devices this one takes over when it starts")
	fs.BoolVar(&f.approval, "approval", false, "a person approves before the first wave")
	fs.StringVar(&f.startAt, "start-at", "", "not before this time, e.g. 2026-12-01T22:00:00+01:00")
	fs.DurationVar(&f.deadline, "deadline", 0, "for the whole rollout")
}

// spec joins file, arguments and flags.
func (f *specFlags) spec(cmd *cobra.Command, given []string) (operator.RolloutSpec, error) {
	s, err := f.fromFile()
	if err != nil {
		return s, err
	}
	if len(given) > 0 {
		s.Model = given[0]
	}
	if len(given) > 1 {
		s.Version = given[1]
	}
	if s.Model == "" || s.Version == "" {
		return s, usagef("name MODEL and VERSION, as arguments or in the file")
	}
	return s, f.change(cmd, &s)
}

// change lets the flags that are given win over a spec.
func (f *specFlags) change(cmd *cobra.Command, s *operator.RolloutSpec) error {
	s.Selector = firstOf(f.selector, s.Selector)
	s.OnFailure = operator.OnFailure(firstOf(f.onFailure, string(s.OnFailure)))
	s.OnConflict = firstOf(f.onConflict, s.OnConflict)
	s.Supersedes = firstOf(f.supersedes, s.Supersedes)
	for name, set := range map[string]func(){
		"approval":    func() { s.Approval = f.approval },
		"control":     func() { s.Control = &f.control },
		"alpha":       func() { s.Alpha = &f.alpha },
		"budget":      func() { s.Budget.InFlight = f.budget },
		"per-minute":  func() { s.Budget.PerMinute = f.perMinute },
		"unmetered":   func() { s.Require.Unmetered = f.unmetered },
		"mains":       func() { s.Require.Mains = f.mains },
		"min-battery": func() { s.Require.Battery = f.battery },
		"deadline":    func() { s.Deadline = release.Duration(f.deadline) },
		"shadow":      func() { s.Shadow = f.shadowed(s.Shadow) },
	} {
		if cmd.Flags().Changed(name) {
			set()
		}
	}
	for _, step := range []func(*operator.RolloutSpec) error{f.addTimes, f.addBudget, f.addGates} {
		if err := step(s); err != nil {
			return err
		}
	}
	return f.addWaves(s, cmd.Flags().Changed("soak"))
}

// shadowed is a shadow phase with the given rows; 0 takes it away.
func (f *specFlags) shadowed(s *operator.ShadowSpec) *operator.ShadowSpec {
	if f.shadow == 0 {
		return nil
	}
	out := operator.ShadowSpec{}
	if s != nil {
		out = *s
	}
	out.Rows = f.shadow
	return &out
}

// readSpec reads a spec with the server's own parser, so that a misspelt field
// is refused here already.
func readSpec(path string) (rollout.Spec, error) {
	b, err := readFile(path, rollout.MaxSpecSize)
	if err != nil {
		return rollout.Spec{}, err
	}
	s, err := rollout.ParseSpec(b)
	if err != nil {
		return s, operator.Errorf(operator.Invalid, "%s: %w", path, err).WithHint("`vedette rollout spec` prints one with every field explained")
	}
	return s, nil
}

func (f *specFlags) fromFile() (out operator.RolloutSpec, err error) {
	if f.file == "" {
		return out, nil
	}
	parsed, err := readSpec(f.file)
	if err != nil {
		return out, err
	}
	return operatorSpec(parsed)
}

// operatorSpec is a spec of the engine as the API has it: the same JSON.
func operatorSpec(s rollout.Spec) (out operator.RolloutSpec, err error) {
	b, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	return out, err
}

func (f *specFlags) addTimes(s *operator.RolloutSpec) error {
	if f.startAt != "" {
		at, err := time.Parse(time.RFC3339, f.startAt)
		if err != nil {
			return usagef("--start-at %q: give date, time and zone, such as 2026-12-01T22:00:00+01:00", f.startAt)
		}
		s.StartAt = at.UTC()
	}
	if len(f.windows) > 0 {
		s.Windows = nil
	}
	for _, text := range f.windows {
		w, err := parseWindow(text)
		if err != nil {
			return usagef("--window %q: %w", text, err)
		}
		s.Windows = append(s.Windows, w)
	}
	return nil
}

// parseWindow reads "0 22 * * *,6h" or "0 22 * * 1,3,5,6h,device". Lists of days
// have commas, too, so the duration is looked for from the end.
func parseWindow(text string) (operator.WindowSpec, error) {
	parts := strings.Split(text, ",")
	for zone := range 2 { // without one, then with
		at := len(parts) - 1 - zone
		if at < 1 {
			break
		}
		d, err := time.ParseDuration(strings.TrimSpace(parts[at]))
		if err != nil {
			continue
		}
		return operator.WindowSpec{
			Cron: strings.TrimSpace(strings.Join(parts[:at], ",")), Duration: release.Duration(d),
			TimeZone: strings.TrimSpace(strings.Join(parts[at+1:], ",")),
		}, nil
	}
	return operator.WindowSpec{}, errors.New(`give cron and duration and perhaps a zone, such as "0 22 * * *,6h,Europe/Berlin"`)
}

func (f *specFlags) addBudget(s *operator.RolloutSpec) error {
	if f.maxRate != "" {
		n, err := parseRate(f.maxRate)
		if err != nil {
			return usagef("--max-rate %q: %w", f.maxRate, err)
		}
		s.Budget.BytesPerSecond = n
	}
	if len(f.unavailable) > 0 {
		s.Budget.Unavailable = nil
	}
	for _, text := range f.unavailable {
		u, err := parseUnavailable(text)
		if err != nil {
			return usagef("--max-unavailable %q: %w", text, err)
		}
		s.Budget.Unavailable = append(s.Budget.Unavailable, u)
	}
	return nil
}

// parseRate reads "500k/s" or "2MB/s" as bytes a second.
func parseRate(text string) (int64, error) {
	n, err := parseBytes(strings.TrimSuffix(strings.TrimSpace(text), "/s"))
	if err != nil || n > math.MaxInt64 {
		return 0, errors.New("give bytes a second, such as 500k/s or 2MB/s")
	}
	return int64(n), nil
}

// parseUnavailable reads "site=1" or "site=10%".
func parseUnavailable(text string) (operator.UnavailableLimit, error) {
	label, limit, _ := strings.Cut(text, "=")
	u := operator.UnavailableLimit{Label: label}
	var err error
	if percent, ok := strings.CutSuffix(limit, "%"); ok {
		u.Percent, err = strconv.ParseFloat(percent, 64)
	} else {
		u.Max, err = strconv.Atoi(limit)
	}
	if err != nil || label == "" {
		return u, errors.New("give a label and a count or a percentage, such as site=1 or site=10%")
	}
	return u, nil
}

func (f *specFlags) addWaves(s *operator.RolloutSpec, soak bool) error {
	if len(f.waves) > 0 {
		s.Waves = nil
	}
	for _, text := range f.waves {
		w, err := parseWave(text)
		if err != nil {
			return usagef("--wave %q: %w", text, err)
		}
		s.Waves = append(s.Waves, w)
	}
	if len(s.Waves) == 0 && (soak || f.quorum > 0 || f.lateness > 0) {
		for _, w := range rollout.DefaultWaves() {
			s.Waves = append(s.Waves, operator.WaveSpec{Name: w.Name, Count: w.Count, Percent: w.Percent})
		}
	}
	for i := range s.Waves {
		w := &s.Waves[i]
		if d := release.Duration(f.soak); w.Soak == nil && soak {
			w.Soak = &d
		}
		if w.Quorum == 0 {
			w.Quorum = f.quorum
		}
		if w.Lateness == 0 {
			w.Lateness = release.Duration(f.lateness)
		}
	}
	return nil
}

// parseWave reads "1", "50%" or "100%,soak=1h,quorum=0.8,approval,name=rest".
func parseWave(text string) (operator.WaveSpec, error) {
	var w operator.WaveSpec
	size, options, _ := strings.Cut(text, ",")
	var err error
	if percent, ok := strings.CutSuffix(size, "%"); ok {
		w.Percent, err = strconv.ParseFloat(percent, 64)
	} else {
		w.Count, err = strconv.Atoi(size)
	}
	if err != nil {
		return w, fmt.Errorf("begin with a count or a percentage: %w", err)
	}
	return w, eachOption(options, func(key, value string) error { return waveOption(&w, key, value) })
}

func waveOption(w *operator.WaveSpec, key, value string) (err error) {
	switch key {
	case "name":
		w.Name = value
	case "approval":
		w.Approval = true
	case "soak":
		w.Soak = new(release.Duration)
		err = w.Soak.UnmarshalText([]byte(value))
	case "lateness":
		err = w.Lateness.UnmarshalText([]byte(value))
	case "deadline":
		err = w.Deadline.UnmarshalText([]byte(value))
	case "quorum":
		w.Quorum, err = strconv.ParseFloat(value, 64)
	case "devices":
		w.Evidence.Devices, err = strconv.Atoi(value)
	case "inferences":
		w.Evidence.Inferences, err = strconv.ParseUint(value, 10, 64)
	case "hours":
		w.Evidence.Hours, err = strconv.ParseFloat(value, 64)
	default:
		err = fmt.Errorf("%q is not known: name, soak, quorum, lateness, deadline, approval, and what has to be seen: devices, inferences, hours", key)
	}
	return err
}

// eachOption calls fn for each "key=value" or "key" of a list with commas.
func eachOption(text string, fn func(key, value string) error) error {
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (f *specFlags) addGates(s *operator.RolloutSpec) error {
	set := func(g operator.GateSpec) {
		s.Gates = slices.DeleteFunc(s.Gates, func(old operator.GateSpec) bool { return old.Kind == g.Kind })
		s.Gates = append(s.Gates, g)
	}
	for _, text := range f.gates {
		g, err := parseGate(text)
		if err != nil {
			return usagef("--gate %q: %w", text, err)
		}
		set(g)
	}
	for _, kind := range f.noGates {
		if !slices.Contains(rollout.Kinds(), rollout.GateKind(kind)) {
			return usagef("--no-gate %q: gates are %v", kind, rollout.Kinds())
		}
		set(operator.GateSpec{Kind: kind, Off: true})
	}
	return nil
}

// parseGate reads "accuracy=0.02" or "errors=0.01,min=100,hold".
func parseGate(text string) (operator.GateSpec, error) {
	first, options, _ := strings.Cut(text, ",")
	kind, limit, given := strings.Cut(first, "=")
	g := operator.GateSpec{Kind: kind}
	if !slices.Contains(rollout.Kinds(), rollout.GateKind(kind)) {
		return g, fmt.Errorf("gates are %v", rollout.Kinds())
	}
	if given {
		v, err := strconv.ParseFloat(limit, 64)
		if err != nil {
			return g, fmt.Errorf("limit: %w", err)
		}
		g.Limit = &v
	}
	return g, eachOption(options, func(key, value string) (err error) {
		switch key {
		case "min":
			g.Min, err = strconv.ParseUint(value, 10, 64)
		case "hold", "pass":
			g.Inconclusive = key
		default:
			err = fmt.Errorf("%q is not known: min, hold and pass are", key)
		}
		return err
	})
}
