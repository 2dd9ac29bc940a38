package rollout

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// warn says what about the plan a person should think of before the start.
func (p *Plan) warn(r *rehearsal) {
	p.warnOfConflicts()
	p.warnOfWaves()
	p.warnOfDevices(r)
	p.warnOfTime(r)
	p.warnOfGates()
}

// devices counts them in words.
func devices(n int) string {
	if n == 1 {
		return "1 device"
	}
	return fmt.Sprintf("%d devices", n)
}

// plural picks the words for one or for several.
func plural(n int, one, several string) string {
	if n == 1 {
		return one
	}
	return several
}

func (p *Plan) say(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// warnOfConflicts says who has the devices. The plan goes on as if they were
// free, so that it can be read before they are.
func (p *Plan) warnOfConflicts() {
	for _, c := range p.Conflicts {
		switch c.Outcome {
		case ConflictRefused:
			p.say("rollout %s has %d of the devices: this one cannot start before that ends; what follows is as if they were free", c.Rollout, c.Devices)
		case ConflictQueued:
			p.say("rollout %s has %d of the devices: this one starts when it has ended; what follows is as if they were free", c.Rollout, c.Devices)
		}
	}
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
}

func (p *Plan) warnOfDevices(r *rehearsal) {
	if n := len(p.Refused); n > 0 {
		p.say("%s cannot run the release", devices(n))
	}
	if n := len(p.Unheard); n > 0 {
		p.say("%s %s not heard of in the last 14 days", devices(n), plural(n, "was", "were"))
	}
	if n := len(p.Unmet); n > 0 {
		p.say("%s not fulfil now what the rollout requires: they are offered the release when they do", plural(n, "1 device does", devices(n)+" do"))
	}
	if n := r.countActors(func(a *actor) bool { return len(r.zones[a.zone]) == 0 }); n > 0 {
		p.say("no window opens before the deadline for %s", devices(n))
	}
	if n := r.countActors(func(a *actor) bool { return a.zoneless }); n > 0 {
		p.say("%s not told their time zone: windows are those of UTC for them", plural(n, "1 device has", devices(n)+" have"))
	}
	if n := r.countActors(r.shut); n > 0 {
		p.say("%s in groups in which as many devices are out of service as the budget allows: they are asked when those serve", plural(n, "1 device is", devices(n)+" are"))
	}
	if n := r.countActors(func(a *actor) bool { return a.download() > time.Duration(p.Spec.DeviceDeadline).Seconds() }); n > 0 {
		p.say("%s would need more than device_deadline (%v) for the download at %d KiB/s", devices(n), p.Spec.DeviceDeadline, PlanRate>>10)
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
		if n := spec.Evidence.Devices; n > len(w.Devices) && len(w.Devices) > 0 {
			p.say("wave %d needs predictions of %s and has %d: it would never pass", w.Number, devices(n), len(w.Devices))
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
	answers, compares := map[GateKind]bool{}, map[GateKind]bool{}
	var blind []string
	for _, w := range p.Waves {
		sees := false
		for _, d := range w.Detectable {
			compares[d.Gate] = true
			answers[d.Gate] = answers[d.Gate] || d.Least > 0
			sees = sees || d.Least > 0
		}
		if len(w.Detectable) > 0 && !sees {
			blind = append(blind, strconv.Itoa(w.Number))
		}
	}
	if n := len(blind); n > 0 {
		p.say("%s %s too small, or too little is known of the past of the devices, to see any regression by comparing", plural(n, "wave", "waves")+" "+strings.Join(blind, ", "), plural(n, "is", "are"))
	}
	if c := p.Spec.Control; len(compares) > 0 && len(p.Waves) > 1 && (c == nil || *c == 0) {
		p.say("there is no control group: what happens to all devices meanwhile is blamed on the release")
	}
	for _, g := range p.Spec.Gates {
		if g.Inconclusive == Hold && !g.Off && !answers[g.Kind] && compares[g.Kind] {
			p.say("gate %s cannot answer in any wave and is to hold: the rollout would wait until its deadline", g.Kind)
		}
	}
}
