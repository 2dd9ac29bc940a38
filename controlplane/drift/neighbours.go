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
// device with much traffic sees a changed world in its newest rows when others
// still hold a day of the old one, which is no fault of its sensor. The span
// reaches back until one neighbour has rows enough. The answer is nil when the
// device's own rows do not reach back as far, or nobody is left.
func (g *group) beside(t *track) (c *Comparison, fine bool) {
	others, fine := g.neighbours(t)
	if len(others) == 0 {
		return nil, false
	}
	since := others[0].judged.from
	for _, o := range others {
		since = max(since, o.judged.from)
	}
	since = min(since, t.judged.from)
	all := newSample(g.layout)
	for _, o := range others {
		all.take(o.state.Segments, g.layout, since)
	}
	own := newSample(g.layout)
	own.take(t.state.Segments, g.layout, since)
	if all.rows == 0 || own.rows == 0 || 2*(own.to-own.from) < all.to-max(since, all.from) {
		return nil, false
	}
	n := compare(g.layout, all.settle(), own.settle(), g.cfg)
	return &n, fine
}

// take adds the segments of which at least half lies after a moment.
func (x *sample) take(gs []segment, l *layout, since int64) {
	for i := len(gs) - 1; i >= 0; i-- {
		g := &gs[i]
		if g.Start+(g.End-g.Start)/2 < since || g.In.len() != l.in || g.Out.len() != l.out {
			return
		}
		x.add(g)
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
