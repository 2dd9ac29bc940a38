package rollout

import (
	"fmt"
	"time"
)

// cast makes the actors of a rehearsal.
type cast struct {
	turn     *turn
	r        *rehearsal
	calendar *calendar
	presence Presence
	patterns map[Hours]*pattern
	zones    map[string]int
	groups   []group
	limits   []map[string]int // by group and value of its label, the index in rehearsal.limits
	buckets  map[string]int
}

// allHours is the presence of a device that is always there.
var allHours = func() Hours {
	h := Hours{Known: HeardHours}
	for i := range h.Bits {
		h.Bits[i] = ^uint64(0)
	}
	return h
}()

func (c *cast) actor(id string) actor {
	f := c.turn.facts.device(id)
	a := actor{id: id, bytes: c.turn.toDownload(&f), control: c.turn.device(id).Control}
	what, _ := c.r.spec.Require.unmet(&f)
	a.unmet = what != ""
	a.work = (a.bytes + PlanRate - 1) / PlanRate
	if s := c.r.spec.Shadow; s != nil && !f.Active.IsZero() {
		a.work += int64(time.Duration(s.Deadline).Seconds()) // careful: nobody knows how soon it has its rows
	}
	a.zone, a.zoneless = c.zone(f.TimeZone)
	a.down = c.turn.unavailable(id, &f)
	for i := range c.groups {
		a.groups = append(a.groups, c.limit(i, f.Groups[c.groups[i].limit.Label]))
	}
	a.there, a.bucket = c.pattern(id), c.bucket(&a)
	return a
}

func (c *cast) pattern(id string) *pattern {
	hours := allHours
	if c.presence != nil {
		hours = c.presence.Heard(id, c.turn.now)
	}
	p, ok := c.patterns[hours]
	if !ok {
		p = patternOf(&hours)
		c.patterns[hours] = p
	}
	return p
}

// zone is the index of the openings of a device's time zone, and whether that is
// not known although windows go by it.
func (c *cast) zone(name string) (i int, unknown bool) {
	if !c.calendar.zones {
		name = ""
	}
	i, ok := c.zones[name]
	if !ok {
		i = len(c.r.zones)
		c.zones[name] = i
		c.r.zones = append(c.r.zones, c.r.openings(name))
	}
	return i, !c.calendar.in(name).known
}

// limit is the index of what a label's value allows beside the devices that are
// out of service now.
func (c *cast) limit(i int, value string) int {
	if c.limits[i] == nil {
		c.limits[i] = map[string]int{}
	}
	at, ok := c.limits[i][value]
	if !ok {
		at = len(c.r.limits)
		c.limits[i][value] = at
		g := &c.groups[i]
		c.r.limits = append(c.r.limits, roomy{most: g.most(value) - g.down[value]})
	}
	return at
}

func (c *cast) bucket(a *actor) int {
	key := fmt.Sprint(a.zone, a.down, a.groups)
	i, ok := c.buckets[key]
	if !ok {
		i = len(c.buckets)
		c.buckets[key] = i
	}
	return i
}
