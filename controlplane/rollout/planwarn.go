package rollout

import (
	"fmt"
	"strings"
	"time"
)

// warn says what about the plan a person should think of before the start.
func (p *Plan) warn(r *rehearsal) {
	p.warnOfWaves()
	p.warnOfDevices(r)
	p.warnOfTime(r)
	p.warnOfGates()
}

func (p *Plan) say(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

func (p *Plan) warnOfWaves() {
	if p.Devices == 0 {
		p.say("no device would be offered the release")
	}
	for _, w := range p.Waves {
		if len(w.Devices) == 0 && p.Devices > 0 {
			p.say("wave %d would have no device and pass by itself", w.Number)
		}
	}
	if p.Devices > 1 && len(p.Waves[0].Devices)*2 > p.Devices {
		p.say("the first wave has %d of %d devices: it protects few", len(p.Waves[0].Devices), p.Devices)
	}
	for _, c := range p.Conflicts {
		switch c.Outcome {
		case ConflictRefused:
			p.say("rollout %s has %d of the devices: this one cannot start", c.Rollout, c.Devices)
		case ConflictQueued:
			p.say("rollout %s has %d of the devices: this one starts when it has ended", c.Rollout, c.Devices)
		}
	}
}

func (p *Plan) warnOfDevices(r *rehearsal) {
	if n := len(p.Refused); n > 0 {
		p.say("%d devices cannot run the release", n)
	}
	if n := len(p.Unheard); n > 0 {
		p.say("%d devices were not heard of in the last 14 days", n)
	}
	if n := len(p.Unmet); n > 0 {
		p.say("%d devices do not fulfil now what the rollout requires: they are offered the release when they do", n)
	}
	if n := r.countActors(func(a *actor) bool { return len(r.zones[a.zone]) == 0 }); n > 0 {
		p.say("no window opens before the deadline for %d devices", n)
	}
	if n := r.countActors(func(a *actor) bool { return a.zoneless }); n > 0 {
		p.say("%d devices have not told their time zone: windows are those of UTC for them", n)
	}
	if n := r.countActors(r.shut); n > 0 {
		p.say("%d devices are in groups in which as many devices are out of service as the budget allows: they are asked when those serve", n)
	}
	if n := r.countActors(func(a *actor) bool { return a.download() > time.Duration(p.Spec.DeviceDeadline).Seconds() }); n > 0 {
		p.say("%d devices would need more than device_deadline (%v) for the download at %d KiB/s", n, p.Spec.DeviceDeadline, PlanRate>>10)
	}
}

// shut says that a device shares a label with so many that are out of service
// that it is not asked.
func (r *rehearsal) shut(a *actor) bool {
	for _, g := range a.groups {
		if r.limits[g].most <= 0 && !a.down {
			return true
		}
	}
	return false
}

func (r *rehearsal) countActors(is func(a *actor) bool) int {
	n := 0
	for i := range r.devices {
		if is(&r.devices[i]) {
			n++
		}
	}
	return n
}

// warnOfTime compares with the deadlines.
func (p *Plan) warnOfTime(r *rehearsal) {
	for i, w := range p.Waves {
		spec := p.Spec.Waves[i]
		if limit := time.Duration(spec.Deadline); limit > 0 && len(w.Devices) > 0 {
			switch {
			case w.Expected == 0 || w.Expected > limit:
				p.say("wave %d is expected to be open for longer than its deadline of %v: the rollout would halt", w.Number, limit)
			case w.Slow == 0 || w.Slow > limit:
				p.say("wave %d may be open for longer than its deadline of %v", w.Number, limit)
			}
		}
		if n := spec.Evidence.Inferences; n > 0 {
			p.say("wave %d waits for %d predictions, too: how long that takes is not in the plan", w.Number, n)
		}
	}
	if p.Unfinished == 0 {
		return
	}
	p.say("in %d of %d replays of the last 14 days it does not end before its deadline of %v", p.Unfinished, Replays, p.Spec.Deadline)
	if free := r.unbounded().replay(0).total; p.Spec.Budget.bounds() && free < never {
		p.say("it is the budget that makes it too long: without it takes %s", inWords(free))
	}
}

// unbounded is the same rehearsal without a budget.
func (r *rehearsal) unbounded() *rehearsal {
	free, spec := *r, *r.spec
	spec.Budget = Budget{}
	free.spec = &spec
	free.limits = make([]roomy, len(r.limits))
	for i := range free.limits {
		free.limits[i].most = len(r.devices)
	}
	return &free
}

func (b *Budget) bounds() bool {
	return b.InFlight > 0 || b.PerMinute > 0 || b.BytesPerSecond > 0 || len(b.Unavailable) > 0
}

// warnOfGates names waves in which nothing can be seen, and gates that hold a
// rollout up because they cannot answer.
func (p *Plan) warnOfGates() {
	answers := map[GateKind]bool{}
	for _, w := range p.Waves {
		var blind []string
		for _, d := range w.Detectable {
			if d.Least > 0 {
				answers[d.Gate] = true
			} else {
				blind = append(blind, string(d.Gate))
			}
		}
		if len(blind) > 0 && len(blind) == len(w.Detectable) {
			p.say("wave %d is too small or too new to see a regression in %s", w.Number, strings.Join(blind, ", "))
		}
	}
	for _, g := range p.Spec.Gates {
		if g.Inconclusive == Hold && !g.Off && !answers[g.Kind] && p.compared(g.Kind) {
			p.say("gate %s cannot answer in any wave and is to hold: the rollout would wait until its deadline", g.Kind)
		}
	}
}

// compared says whether the gate is one of those that compare devices.
func (p *Plan) compared(kind GateKind) bool {
	for _, w := range p.Waves {
		for _, d := range w.Detectable {
			if d.Gate == kind {
				return true
			}
		}
	}
	return false
}
