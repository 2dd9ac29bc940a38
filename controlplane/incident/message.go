package incident

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Bounds of a message, so that no flood of incidents makes a flood of text.
const (
	maxListed    = 10
	maxTitle     = 200
	maxText      = 8000
	maxSlackText = 3000
)

// Message is what a receiver gets; a webhook gets it as this JSON.
type Message struct {
	ID        string    `json:"id"` // the same at every attempt: what was seen already can be dropped
	At        time.Time `json:"at"`
	Phase     Phase     `json:"phase"` // open when anything in it is new, else reminder, else resolved
	Severity  Severity  `json:"severity"`
	Kind      string    `json:"kind"`
	Model     string    `json:"model,omitempty"`
	Title     string    `json:"title"`
	Text      string    `json:"text"`
	Link      string    `json:"link,omitempty"`
	Incidents []Listed  `json:"incidents"`
	More      int       `json:"more,omitempty"` // incidents beyond those listed
}

// Listed is one incident in a message.
type Listed struct {
	ID       string    `json:"id"`
	Phase    Phase     `json:"phase"`
	Severity Severity  `json:"severity"`
	Version  string    `json:"version,omitempty"`
	Cohort   string    `json:"cohort,omitempty"`
	Device   string    `json:"device,omitempty"`
	Summary  string    `json:"summary"`
	Detail   string    `json:"detail,omitempty"`
	Opened   time.Time `json:"opened"`
	Resolved time.Time `json:"resolved,omitzero"`
	Link     string    `json:"link,omitempty"`
}

// compose writes a message of a group, the gravest first.
func compose(id string, now time.Time, all []due, base string) Message {
	first := &all[0].incident.Cause
	m := Message{
		ID: id, At: now.UTC().Truncate(time.Millisecond), Phase: phaseOf(all), Severity: first.Severity, Kind: first.Kind, Model: first.Model,
		Link: absolute(base, "/incidents"), Incidents: []Listed{}, More: max(0, len(all)-maxListed),
	}
	for _, d := range all[:min(maxListed, len(all))] {
		m.Incidents = append(m.Incidents, listed(d, base))
	}
	m.Title, m.Text = title(&m, len(all)), m.body()
	return m
}

func listed(d due, base string) Listed {
	i := d.incident
	out := Listed{
		ID: i.ID, Phase: d.phase, Severity: i.Cause.Severity, Version: i.Cause.Version, Cohort: i.Cause.Cohort, Device: i.Cause.Device,
		Summary: i.Cause.Summary, Detail: i.Cause.Detail, Opened: time.UnixMilli(i.OpenedMS).UTC(), Link: absolute(base, i.Cause.Link),
	}
	if !i.Live() {
		out.Resolved = time.UnixMilli(i.ResolvedMS).UTC()
	}
	return out
}

// absolute makes a link of a path, nothing when either is missing.
func absolute(base, path string) string {
	if base == "" || path == "" {
		return ""
	}
	return strings.TrimSuffix(base, "/") + path
}

// phaseOf is the phase of the whole: the one that asks for the most attention.
func phaseOf(all []due) Phase {
	phase := PhaseResolved
	for _, d := range all {
		switch d.phase {
		case PhaseOpen:
			return PhaseOpen
		case PhaseReminder:
			phase = PhaseReminder
		case PhaseResolved:
		}
	}
	return phase
}

// title is the message in one line.
func title(m *Message, n int) string {
	what := m.Incidents[0].Summary
	if n > 1 {
		what = fmt.Sprintf("%d incidents: %s, and others", n, what)
	}
	lead := map[Phase]string{PhaseOpen: string(m.Severity), PhaseReminder: "still " + string(m.Severity), PhaseResolved: "resolved"}[m.Phase]
	if m.Model != "" {
		lead += ", " + m.Model
	}
	return line("["+lead+"] "+what, maxTitle)
}

// body says what, where, since when, what to do next, and where to look.
func (m *Message) body() string {
	var b strings.Builder
	for i := range m.Incidents {
		m.Incidents[i].write(&b)
	}
	if m.More > 0 {
		fmt.Fprintf(&b, "… and %d more\n\n", m.More)
	}
	if next := nextStep[m.Kind]; next != "" && m.Phase != PhaseResolved {
		fmt.Fprintf(&b, "What to do: %s\n", next)
	}
	if m.Link != "" {
		fmt.Fprintf(&b, "Incidents: %s\n", m.Link)
	}
	return text(b.String(), maxText)
}

func (t *Listed) write(b *strings.Builder) {
	fmt.Fprintf(b, "%s\n", t.Summary)
	for _, f := range [][2]string{{"version", t.Version}, {"cohort", t.Cohort}, {"device", t.Device}} {
		if f[1] != "" {
			fmt.Fprintf(b, "  %s: %s\n", f[0], f[1])
		}
	}
	fmt.Fprintf(b, "  since: %s\n", t.Opened.Format("2006-01-02 15:04 MST"))
	if !t.Resolved.IsZero() {
		fmt.Fprintf(b, "  over: %s\n", t.Resolved.Format("2006-01-02 15:04 MST"))
	}
	if t.Detail != "" && t.Phase != PhaseResolved {
		fmt.Fprintf(b, "  %s\n", strings.ReplaceAll(t.Detail, "\n", "\n  "))
	}
	if t.Link != "" {
		fmt.Fprintf(b, "  %s\n", t.Link)
	}
	b.WriteByte('\n')
}

// nextStep says what usually helps, by kind.
var nextStep = map[string]string{
	Drift:          "see which features moved (vedette drift show MODEL); if the world has changed, train anew; if not, look at what feeds the devices.",
	SensorFault:    "look at the device's sensor, cable or lens; its neighbours see nothing unusual.",
	Apart:          "look at the device; give it neighbours with the same label to tell a fault from a changed world.",
	Accuracy:       "see since when and where (vedette drift quality MODEL); train anew, or go back to the version before.",
	Prediction:     "see what the model says now (vedette drift show MODEL); get labels, for inputs look as before.",
	Missing:        "look at what feeds the devices: values are missing, or no longer are.",
	NewValues:      "look at what feeds the devices: there are values that training did not know.",
	GateFailed:     "see the gate's evidence (vedette model validate MODEL VERSION); fix the version, or override the gate with a reason.",
	RolloutStopped: "see why (vedette rollout explain ID); then resume, revert or abort it.",
	DeliveryDead:   "put the receiver right, then deliver again (vedette retrain dead, vedette retrain redeliver ID).",
	PublishFailed:  "see the log of vedette publish; the version is registered and not yet a release.",
	StorageFull:    "give the server a larger disk, or a longer limit: a full one takes no more from devices.",
	NotifyDead:     "put the receiver right, then try it (vedette notify test NAME).",
}

// slack is the message as incoming webhooks of Slack take it. The three
// characters that mean something there are escaped.
func (m *Message) slack() ([]byte, error) {
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	b, err := json.Marshal(map[string]string{"text": "*" + escape.Replace(m.Title) + "*\n" + escape.Replace(text(m.Text, maxSlackText))})
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return b, nil
}
