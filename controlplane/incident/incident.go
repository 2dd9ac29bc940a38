// Package incident tells people of what is wrong, once per cause. Whoever finds
// something wrong raises a Cause under a key; the same key again is the same
// incident, counted and not told again. It is open until somebody acknowledges
// it, and resolved when the cause is cleared or a person says so. A cause that
// comes back within the grace time opens the same incident again, and the more
// often it does the longer the grace: what flaps is told once, not every time.
//
// Messages are grouped: what a model suffers of one kind within the group wait
// is one message for each receiver. A message is stored with its incidents before
// it is sent, under an id that stays the same at every attempt: a crash between
// the two sends it again, and forgets nothing. Silences keep messages back and
// change nothing else.
//
// Deciding is apart from doing: what to tell follows from incidents, silences,
// configuration and the time (plan.go); Board keeps the state, and Run sends.
package incident

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Severity says how much a cause matters.
type Severity string

// Severities, the least first.
const (
	Info     Severity = "info"     // worth knowing, nothing to do
	Warning  Severity = "warning"  // look at it in working hours
	Critical Severity = "critical" // look at it now
)

// rank orders severities; what is not known is a warning.
func (s Severity) rank() int {
	switch s {
	case Info:
		return 0
	case Critical:
		return 2
	case Warning:
	}
	return 1
}

// Kinds of causes.
const (
	Drift          = "drift"           // a cohort left its training data
	SensorFault    = "sensor_fault"    // a device left its cohort
	Apart          = "apart"           // a device left training, and nobody can tell why
	Accuracy       = "accuracy"        // accuracy is proven below its floor
	Prediction     = "prediction"      // predictions of a cohort left training, its inputs did not
	Missing        = "missing"         // another share of missing values
	NewValues      = "new_values"      // another share of values unknown to training
	GateFailed     = "gate_failed"     // a validation gate refuses a version
	RolloutStopped = "rollout_stopped" // a rollout was halted, or went back
	DeliveryDead   = "delivery_dead"   // an event was given up for a destination
	PublishFailed  = "publish_failed"  // a version could not be packed, signed or published
	StorageFull    = "storage_full"    // room for what devices send runs out
	NotifyDead     = "notify_dead"     // a receiver of messages like these cannot be reached
	Test           = "test"            // a message sent to try a receiver
)

// kinds are those that a receiver can choose.
var kinds = []string{Drift, SensorFault, Apart, Accuracy, Prediction, Missing, NewValues, GateFailed, RolloutStopped, DeliveryDead, PublishFailed, StorageFull, NotifyDead}

// Cause is something wrong, as its finder tells it. Texts are cut to their
// bounds and freed of control characters rather than refused.
type Cause struct {
	Key      string   `json:"key"`  // the same key is the same cause; at most 300 bytes
	Kind     string   `json:"kind"` // one of the kinds above
	Severity Severity `json:"severity,omitempty"`
	Model    string   `json:"model,omitempty"`
	Version  string   `json:"version,omitempty"`
	Cohort   string   `json:"cohort,omitempty"`
	Device   string   `json:"device,omitempty"`
	Summary  string   `json:"summary"`          // what is wrong, in a line
	Detail   string   `json:"detail,omitempty"` // evidence, and what to do next
	Link     string   `json:"link,omitempty"`   // page of the dashboard that shows it: a path
}

// Bounds of a cause, in bytes.
const (
	maxKey     = 300
	maxName    = 128
	maxSummary = 300
	maxDetail  = 2000
	maxLink    = 500
)

// ErrCause says that a cause cannot be told from others.
var ErrCause = errors.New("an incident needs a key of at most 300 bytes and a kind")

// clean checks what identifies a cause and bounds the rest.
func (c Cause) clean() (Cause, error) {
	if c.Key == "" || len(c.Key) > maxKey || c.Kind == "" || len(c.Kind) > maxName {
		return c, fmt.Errorf("%w: key %.80q, kind %.80q", ErrCause, c.Key, c.Kind)
	}
	if c.Severity != Info && c.Severity != Critical {
		c.Severity = Warning
	}
	for _, s := range []*string{&c.Model, &c.Version, &c.Cohort, &c.Device} {
		*s = line(*s, maxName)
	}
	c.Summary, c.Detail = line(c.Summary, maxSummary), text(c.Detail, maxDetail)
	if c.Summary == "" {
		c.Summary = c.Kind
	}
	if !strings.HasPrefix(c.Link, "/") || strings.HasPrefix(c.Link, "//") || len(c.Link) > maxLink || c.Link != line(c.Link, maxLink) {
		c.Link = ""
	}
	return c, nil
}

// line is s on one line: a header or a subject made of it stays one.
func line(s string, limit int) string { return strings.ReplaceAll(text(s, limit), "\n", " ") }

// text is s with at most limit bytes, valid UTF-8, and no control characters
// but line feeds.
func text(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.TrimSpace(s)
	if len(s) <= limit {
		return s
	}
	const more = "…"
	return strings.ToValidUTF8(s[:limit-len(more)], "") + more
}

// State of an incident.
type State string

// States. Acknowledged is open with somebody at it: no more reminders.
const (
	Open         State = "open"
	Acknowledged State = "acknowledged"
	Resolved     State = "resolved"
)

// Incident is one cause and what became of it.
type Incident struct {
	ID         string  `json:"id"`
	Cause      Cause   `json:"cause"` // as it was raised last
	State      State   `json:"state"`
	Count      int     `json:"count"`           // times raised
	Flaps      int     `json:"flaps,omitempty"` // times opened again
	OpenedMS   int64   `json:"opened_ms"`       // first time
	SinceMS    int64   `json:"since_ms"`        // opened last
	LastMS     int64   `json:"last_ms"`         // raised last
	ResolvedMS int64   `json:"resolved_ms,omitempty"`
	ByHand     bool    `json:"by_hand,omitempty"` // a person resolved it
	Owner      string  `json:"owner,omitempty"`   // who acknowledged it
	Timeline   []Entry `json:"timeline"`          // oldest first
	// Told is what each receiver knows, by its name.
	Told map[string]Told `json:"told,omitempty"`
}

// Entry is one thing that happened to an incident.
type Entry struct {
	AtMS int64  `json:"at_ms"`
	What string `json:"what"`          // one of the constants below
	Who  string `json:"who,omitempty"` // a person, or the receiver told; empty for the server itself
	Text string `json:"text,omitempty"`
}

// What entries say.
const (
	EntryOpened       = "opened"
	EntryReopened     = "reopened"
	EntryWorse        = "worse" // its severity rose
	EntryAcknowledged = "acknowledged"
	EntryResolved     = "resolved"
	EntryTold         = "told"
	EntryNotTold      = "not told" // a message was given up
)

// maxTimeline bounds an incident's entries. The first ones tell how it began.
const (
	maxTimeline  = 60
	keepTimeline = 10
)

// Live tells whether the cause still stands.
func (i *Incident) Live() bool { return i.State != Resolved }

func (i *Incident) clone() *Incident {
	c := *i
	c.Timeline = slices.Clone(i.Timeline)
	c.Told = maps.Clone(i.Told)
	if c.Told == nil {
		c.Told = map[string]Told{}
	}
	return &c
}

func (i *Incident) enter(e Entry) {
	e.Who, e.Text = line(e.Who, maxName), text(e.Text, maxSummary)
	if len(i.Timeline) >= maxTimeline {
		i.Timeline = slices.Delete(i.Timeline, keepTimeline, keepTimeline+1)
	}
	i.Timeline = append(i.Timeline, e)
}

// open makes the incident of a cause. Its id follows from the key and the
// incident before it, so one that was stored without an answer is the same when
// it is raised again.
func open(now time.Time, c Cause, before *Incident, flaps int) *Incident {
	last := ""
	if before != nil {
		last = before.ID
	}
	ms := now.UnixMilli()
	h := sha256.Sum256([]byte(c.Key + "\x00" + last))
	i := &Incident{
		ID: "inc-" + hex.EncodeToString(h[:6]), Cause: c, State: Open, Count: 1, Flaps: flaps,
		OpenedMS: ms, SinceMS: ms, LastMS: ms, Told: map[string]Told{},
	}
	i.enter(Entry{AtMS: ms, What: EntryOpened, Text: c.Summary})
	return i
}

// raise takes in that the cause was seen again.
func (i *Incident) raise(now time.Time, c Cause) {
	was := i.Cause.Severity
	i.Cause, i.Count, i.LastMS = c, i.Count+1, max(i.LastMS, now.UnixMilli())
	switch {
	case !i.Live():
		i.State, i.SinceMS, i.ResolvedMS, i.ByHand, i.Owner = Open, now.UnixMilli(), 0, false, ""
		i.Flaps++
		i.enter(Entry{AtMS: now.UnixMilli(), What: EntryReopened, Text: c.Summary})
	case c.Severity.rank() > was.rank():
		i.enter(Entry{AtMS: now.UnixMilli(), What: EntryWorse, Text: string(c.Severity) + ": " + c.Summary})
	}
}

// resolve closes the incident; who is empty when its cause went away by itself.
func (i *Incident) resolve(now time.Time, who, reason string) {
	i.State, i.ResolvedMS, i.ByHand = Resolved, max(now.UnixMilli(), i.OpenedMS), who != ""
	i.enter(Entry{AtMS: now.UnixMilli(), What: EntryResolved, Who: who, Text: reason})
}

// Grace of a cause that comes back.
const (
	// DefaultGrace is longer than two looks of most finders.
	DefaultGrace = 10 * time.Minute
	// maxGrace is what the grace of a flapping cause grows to by doubling.
	maxGrace = 4 * time.Hour
	// flapMemory is how long a resolved incident counts against its cause.
	flapMemory = 24 * time.Hour
)

// graceOf is how long after its end an incident is taken up again.
func (i *Incident) graceOf(base time.Duration) time.Duration {
	g := base
	for range i.Flaps {
		if g *= 2; g >= maxGrace {
			return max(maxGrace, base)
		}
	}
	return g
}
