package incident

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Told is what a receiver knows of an incident.
type Told struct {
	Phase    Phase    `json:"phase"`
	Severity Severity `json:"severity"`
	AtMS     int64    `json:"at_ms"` // when the message was made
}

// Phase is what a message says of an incident.
type Phase string

// Phases.
const (
	PhaseOpen     Phase = "open"
	PhaseReminder Phase = "reminder" // it still stands
	PhaseResolved Phase = "resolved"
)

// Defaults of settings.
const (
	// DefaultGroupWait gathers what one cause does to many devices.
	DefaultGroupWait = 30 * time.Second
	// DefaultRepeat reminds a few times in a working day.
	DefaultRepeat = 4 * time.Hour
)

// Notice is one message for one receiver.
type Notice struct {
	ID       string         `json:"id"` // the same at every attempt
	Receiver string         `json:"receiver"`
	AtMS     int64          `json:"at_ms"`
	Items    []Item         `json:"items"`
	Message  Message        `json:"message"`
	State    delivery.State `json:"state"`
}

// Item is what a notice tells of one incident.
type Item struct {
	Incident string   `json:"incident"`
	Phase    Phase    `json:"phase"`
	Severity Severity `json:"severity"`
}

// planner works out whom to tell what at one moment. It changes nothing.
type planner struct {
	now       time.Time
	settings  *operator.NotifySettings
	incidents map[string]*Incident
	silences  map[string]*Silence
	link      string
	next      time.Time // when there is something to tell that is not yet due; zero for never
}

// plan returns the notices that are due.
func (p *planner) plan() []Notice {
	p.next = time.Time{}
	var out []Notice
	for i := range p.settings.Receivers {
		r := &p.settings.Receivers[i]
		groups := map[string][]due{}
		for _, inc := range p.incidents {
			if d, ok := p.due(r, inc); ok {
				groups[inc.group()] = append(groups[inc.group()], d)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(groups)) {
			if n, ok := p.notice(r, groups[name]); ok {
				out = append(out, n)
			}
		}
	}
	return out
}

// group is what belongs together in one message.
func (i *Incident) group() string { return i.Cause.Kind + "\x00" + i.Cause.Model }

// due is one incident that a receiver is to be told of, and from when.
type due struct {
	incident *Incident
	phase    Phase
	at       time.Time
}

func (p *planner) due(r *operator.Receiver, i *Incident) (due, bool) {
	if !listens(r, i) {
		return due{}, false
	}
	if s := p.silenced(i); s != nil {
		p.wake(time.UnixMilli(s.UntilMS))
		return due{}, false
	}
	told := i.Told[r.Name]
	knows := told.Phase == PhaseOpen || told.Phase == PhaseReminder
	switch {
	case !i.Live():
		return due{i, PhaseResolved, i.quietSince()}, knows && !r.Quiet
	case i.State == Acknowledged:
		return due{}, false
	case !knows:
		return due{i, PhaseOpen, time.UnixMilli(i.SinceMS).Add(p.groupWait())}, true
	case i.Cause.Severity.rank() > told.Severity.rank():
		return due{i, PhaseOpen, p.now}, true
	}
	return due{i, PhaseReminder, time.UnixMilli(told.AtMS).Add(p.repeat())}, true
}

// quietSince is from when a resolved incident is over for good: at once when a
// person says so, and otherwise when its grace time has passed.
func (i *Incident) quietSince() time.Time {
	end := time.UnixMilli(i.ResolvedMS)
	if i.ByHand {
		return end
	}
	return end.Add(i.graceOf(DefaultGrace))
}

// listens tells whether a receiver wants to know of an incident. That a receiver
// cannot be reached is told to the others.
func listens(r *operator.Receiver, i *Incident) bool {
	c := &i.Cause
	return c.Key != deadKey(r.Name) && c.Severity.rank() >= least(r.Severity) &&
		(len(r.Kinds) == 0 || slices.Contains(r.Kinds, c.Kind)) &&
		(len(r.Models) == 0 || slices.Contains(r.Models, c.Model))
}

func least(s string) int {
	if s == "" {
		return 0
	}
	return Severity(s).rank()
}

func deadKey(receiver string) string { return "notify/" + receiver }

func (p *planner) groupWait() time.Duration {
	return cmp.Or(time.Duration(p.settings.GroupWait), DefaultGroupWait)
}

func (p *planner) repeat() time.Duration {
	return cmp.Or(time.Duration(p.settings.Repeat), DefaultRepeat)
}

// silenced returns the silence that keeps an incident quiet the longest.
func (p *planner) silenced(i *Incident) *Silence { return silencing(p.silences, &i.Cause, p.now) }

func (p *planner) wake(at time.Time) {
	if p.next.IsZero() || at.Before(p.next) {
		p.next = at
	}
}

// notice makes one message of a group once the first of it is due. What would be
// due soon after goes with it.
func (p *planner) notice(r *operator.Receiver, all []due) (Notice, bool) {
	first := slices.MinFunc(all, func(a, b due) int { return a.at.Compare(b.at) })
	if first.at.After(p.now) {
		p.wake(first.at)
		return Notice{}, false
	}
	all = slices.DeleteFunc(all, func(d due) bool { return d.at.After(p.now.Add(p.groupWait())) })
	slices.SortFunc(all, func(a, b due) int {
		return cmp.Or(cmp.Compare(b.incident.Cause.Severity.rank(), a.incident.Cause.Severity.rank()),
			cmp.Compare(a.incident.OpenedMS, b.incident.OpenedMS), cmp.Compare(a.incident.ID, b.incident.ID))
	})
	n := Notice{ID: noticeID(r.Name, all), Receiver: r.Name, AtMS: p.now.UnixMilli(), State: delivery.State{NextMS: p.now.UnixMilli()}}
	for _, d := range all {
		n.Items = append(n.Items, Item{d.incident.ID, d.phase, d.incident.Cause.Severity})
	}
	n.Message = compose(n.ID, p.now, all, cmp.Or(p.settings.Link, p.link))
	return n, true
}

// noticeID follows from what a notice says, so that one that was stored without
// an answer is the same when it is made again.
func noticeID(receiver string, all []due) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", receiver)
	for _, d := range all {
		fmt.Fprintf(h, "%s %s %d %d\n", d.incident.ID, d.phase, d.incident.SinceMS, d.incident.Told[receiver].AtMS)
	}
	return "notice-" + hex.EncodeToString(h.Sum(nil)[:8])
}
