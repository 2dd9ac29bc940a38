package dashboard

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// specYAML writes a spec as people write it, its fields in the order of the
// documentation.
func specYAML(s *operator.RolloutSpec) (string, error) {
	text, err := rollout.FormatSpec(s)
	return string(text), err
}

// completeSpec reads a spec as a person wrote it, fills in its defaults and checks it.
func completeSpec(text string) (*operator.RolloutSpec, error) {
	parsed, err := rollout.ParseSpec([]byte(text))
	if err == nil {
		parsed = parsed.WithDefaults()
		err = parsed.Validate()
	}
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "%w", err)
	}
	return operatorSpec(&parsed)
}

// operatorSpec is a spec of the engine as the API has it: the same JSON.
func operatorSpec(s *rollout.Spec) (*operator.RolloutSpec, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "read spec: %w", err)
	}
	var out operator.RolloutSpec
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, operator.Errorf(operator.Invalid, "read spec: %w", err)
	}
	return &out, nil
}

// term is one line of a spec in words.
type term struct {
	Name, Text string
}

// termsOf says what a spec asks for, beside waves and gates.
func termsOf(s *operator.RolloutSpec) []term {
	var out []term
	add := func(name, format string, args ...any) { out = append(out, term{name, fmt.Sprintf(format, args...)}) }
	if s.Selector == "" {
		add("Devices", "all")
	} else {
		add("Devices", "%s", s.Selector)
	}
	if s.Control != nil {
		add("Control group", "%s %% of them, until the last wave", formatNumber(100**s.Control))
	}
	if s.Alpha != nil {
		add("Harmless versions stopped", "at most %s %%", formatNumber(100**s.Alpha))
	}
	if s.Shadow != nil {
		add("Shadow first", "%s", shadowText(s.Shadow))
	}
	if text := budgetText(&s.Budget); text != "" {
		add("Budget", "%s", text)
	}
	if text := budgetText(&s.Revert); text != "" {
		add("Budget of going back", "%s", text)
	}
	for _, w := range s.Windows {
		add("Window", "%s", windowText(&w))
	}
	if text := requireText(&s.Require); text != "" {
		add("Devices must", "%s", text)
	}
	if s.OnFailure == operator.OnFailureRevert {
		add("On failure", "every device goes back")
	} else {
		add("On failure", "it halts and waits for a person")
	}
	return append(out, timesOf(s)...)
}

func timesOf(s *operator.RolloutSpec) []term {
	var out []term
	add := func(name, text string) { out = append(out, term{name, text}) }
	if s.OnConflict == "queue" {
		add("On conflict", "it waits for the other rollout to end")
	}
	if s.Supersedes != "" {
		add("Takes over", s.Supersedes)
	}
	if !s.StartAt.IsZero() {
		add("Not before", s.StartAt.UTC().Format("2006-01-02 15:04 UTC"))
	}
	for _, d := range []struct {
		name string
		of   time.Duration
	}{
		{"A device may take", time.Duration(s.DeviceDeadline)}, {"A person may take", time.Duration(s.DecisionDeadline)}, {"In all it may take", time.Duration(s.Deadline)},
	} {
		if d.of > 0 {
			add(d.name, formatDuration(d.of))
		}
	}
	return out
}

func budgetText(b *operator.Budget) string {
	var parts []string
	if b.InFlight > 0 {
		parts = append(parts, formatCount(b.InFlight)+" at a time")
	}
	if b.PerMinute > 0 {
		parts = append(parts, formatCount(b.PerMinute)+" a minute")
	}
	if b.BytesPerSecond > 0 {
		size, _ := formatBytes(b.BytesPerSecond) // a number always has a size
		parts = append(parts, size+" a second")
	}
	for _, u := range b.Unavailable {
		most := formatCount(u.Max)
		if u.Percent > 0 {
			most = formatNumber(u.Percent) + " %"
		}
		parts = append(parts, most+" away per "+u.Label)
	}
	return strings.Join(parts, ", ")
}

func windowText(w *operator.WindowSpec) string {
	zone := w.TimeZone
	switch zone {
	case "":
		zone = "UTC"
	case "device":
		zone = "the device’s own time"
	}
	return w.Cron + " for " + formatDuration(time.Duration(w.Duration)) + ", " + zone
}

func requireText(r *operator.Require) string {
	var parts []string
	if r.Unmetered {
		parts = append(parts, "be on a link without a meter")
	}
	if r.Mains {
		parts = append(parts, "be on mains")
	}
	if r.Battery > 0 {
		parts = append(parts, fmt.Sprintf("have %d %% of their battery left", r.Battery))
	}
	return strings.Join(parts, ", ")
}

func shadowText(s *operator.ShadowSpec) string {
	parts := []string{}
	if s.Rows > 0 {
		parts = append(parts, formatCount(s.Rows)+" rows on each device")
	}
	if s.Share > 0 && s.Share < 1000 {
		parts = append(parts, formatNumber(float64(s.Share)/10)+" % of the calls")
	}
	if s.Deadline > 0 {
		parts = append(parts, formatDuration(time.Duration(s.Deadline))+" at most")
	}
	return strings.Join(parts, ", ")
}
