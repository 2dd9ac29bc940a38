package rollout

import (
	"bytes"
	"container/heap"
	"crypto/sha256"
)

// spares are the devices that can take the place of silent ones, ready to be
// asked for one after the other: when half of a large fleet is away at night,
// thousands of places are filled in one step.
type spares struct {
	rollout string
	fresh   ranking // were not found silent before
	tried   ranking // were, and come when there is no other: of two that are away, one would forever stand for the other
}

func (t *turn) spares(free []candidate) *spares {
	s := &spares{rollout: t.ID, fresh: ranking{}, tried: ranking{}}
	for _, c := range free {
		s.add(c, t.Devices[c.id])
	}
	return s
}

func (s *spares) add(c candidate, d *Device) {
	to := s.fresh
	if d != nil && d.Code == CodeReplaced {
		to = s.tried
	}
	to.add(c.profile, ranked{rank: rank(s.rollout, forWaves, c.id), id: c.id})
}

// next takes the device that choose would, of all that are left; ok is false
// for none.
func (s *spares) next() (id string, ok bool) {
	if id, ok = s.fresh.next(); ok {
		return id, true
	}
	return s.tried.next()
}

// ranked is a device with its rank.
type ranked struct {
	rank [sha256.Size]byte
	id   string
}

// ranking are devices by firmware profile, in each the lowest rank first.
type ranking map[string]*ranks

func (r ranking) add(profile string, d ranked) {
	if r[profile] == nil {
		r[profile] = &ranks{}
	}
	heap.Push(r[profile], d)
}

// next takes one device of the largest profile, as apportion shares out one; of
// equal ones the first by name.
func (r ranking) next() (id string, ok bool) {
	var from *ranks
	var name string
	for profile, all := range r {
		if all.Len() == 0 {
			continue
		}
		if from == nil || all.Len() > from.Len() || all.Len() == from.Len() && profile < name {
			from, name = all, profile
		}
	}
	if from == nil {
		return "", false
	}
	return heap.Pop(from).(ranked).id, true
}

// ranks is a heap.
type ranks []ranked

var _ heap.Interface = (*ranks)(nil)

func (r *ranks) Len() int           { return len(*r) }
func (r *ranks) Swap(i, j int)      { (*r)[i], (*r)[j] = (*r)[j], (*r)[i] }
func (r *ranks) Less(i, j int) bool { return bytes.Compare((*r)[i].rank[:], (*r)[j].rank[:]) < 0 }

// Push implements heap.Interface.
func (r *ranks) Push(x any) { *r = append(*r, x.(ranked)) }

// Pop implements heap.Interface.
func (r *ranks) Pop() any {
	last := len(*r) - 1
	x := (*r)[last]
	*r = (*r)[:last]
	return x
}
