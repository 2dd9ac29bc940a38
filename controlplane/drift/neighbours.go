package drift

import "github.com/vedette-edge/vedette/protocol/sketch"

// maxNeighbours bounds the members that a device of a large cohort is compared
// with: they are evenly picked, and hold rows enough. All of them for each
// device would be quadratic.
const maxNeighbours = 32

// neighbours are members beside t that say something about its time, and
// whether they are fine: fewer than half of them left training, so that one
// faulty neighbour excuses nobody.
func (g *group) neighbours(t *track) (others []*track, fine bool) {
	for _, o := range g.tracks {
		if o != t && o.judged != nil && o.enough() && o.judged.to >= t.judged.from {
			others = append(others, o)
		}
	}
	if n := len(others); n > maxNeighbours {
		for i := range maxNeighbours {
			others[i] = others[i*n/maxNeighbours]
		}
		others = others[:maxNeighbours]
	}
	drifted := 0
	for _, o := range others {
		drifted += oneIf(o.score.Apart > 0)
	}
	return others, 2*drifted < len(others)
}

// beside compares a device with its neighbours over the same span of time: a
// device with much traffic, or one that reports early, sees a changed world in
// its newest rows when others still hold a day of the old one, and that is no
// fault of its sensor. The span reaches back until one neighbour has rows enough
// and ends where the last of them does. A device whose own rows do not reach back
// as far must have been apart for as long instead. The answer is nil when the
// device can be compared with nobody.
func (g *group) beside(t *track) (c *Comparison, fine bool) {
	others, fine := g.neighbours(t)
	if len(others) == 0 {
		return nil, false
	}
	since, until := others[0].judged.from, others[0].judged.to
	for _, o := range others {
		since, until = max(since, o.judged.from), max(until, o.judged.to)
	}
	reach := since
	since = min(since, t.judged.from)
	all, own := newSample(g.layout), newSample(g.layout)
	for _, o := range others {
		all.take(o.state.Segments, since, until)
	}
	own.take(t.state.Segments, since, until)
	short := 2*(own.to-own.from) < all.to-max(since, all.from)
	if all.rows == 0 || own.rows == 0 || short && (t.apart == 0 || t.apart > reach) {
		return nil, false
	}
	n := compare(g.layout, all.settle(), own.settle(), g.cfg)
	return &n, fine
}

// take adds the segments of which at least half lies between two moments.
func (x *sample) take(gs []segment, since, until int64) {
	for i := len(gs) - 1; i >= 0; i-- {
		g := &gs[i]
		middle := g.Start + (g.End-g.Start)/2
		if middle < since || g.In.len() != len(x.in) || g.Out.len() != len(x.out) {
			return
		}
		if middle <= until {
			x.add(g)
		}
	}
}

// part is the members of a cohort at one site, added up: sites, versions and the
// fleet are sums of them. Counts are packed, for they are kept between looks.
type part struct {
	site                     string
	rows                     segment
	devices, judged, drifted int
	predicted                int // members whose predictions left training
}

// parts adds the members of a cohort up by site.
func (g *group) parts(site func(device string) string) []part {
	var out []part
	at := map[string]int{}
	sums := []*sample{}
	for _, t := range g.tracks {
		name := site(t.state.Device)
		i, known := at[name]
		if !known {
			i = len(out)
			at[name] = i
			out, sums = append(out, part{site: name}), append(sums, newSample(g.layout))
		}
		p := &out[i]
		p.devices++
		if t.judged == nil {
			continue
		}
		sums[i].join(t.judged)
		p.judged += oneIf(t.enough())
		p.drifted += oneIf(t.score.Apart > 0)
		p.predicted += oneIf(t.score.ApartOn(sketch.Output) > 0)
	}
	for i, x := range sums {
		out[i].rows = x.segment()
	}
	return out
}

// segment packs a sample. Its registers stay what they are.
func (x *sample) segment() segment {
	g := segment{Start: x.from, End: x.to, Rows: x.rows, In: packCells(x.in), Out: packCells(x.out)}
	if x.registers != nil {
		if d, err := sketch.DistinctOf(x.registers); err == nil {
			g.Distinct, _ = d.Encode() // nil is not known, which is on the safe side
		}
	}
	return g
}
