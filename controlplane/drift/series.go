package drift

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// chunkBuckets is how many buckets one checkpoint record of a series holds: a
// chart changes at its end, and only the end is written again.
const chunkBuckets = 64

type seriesKey struct {
	release release.Digest
	cohort  string
}

// series is a chart in chunks, by number of the chunk since 1970.
type series struct {
	chunks map[int64]*chunk
	newest int64 // number of the newest bucket
}

// chunk is the checkpoint of a part of a series.
type chunk struct {
	Seq      uint64         `json:"seq"` // of the last message in it
	Release  release.Digest `json:"release"`
	Cohort   string         `json:"cohort"`
	Number   int64          `json:"number"`
	BucketMS int64          `json:"bucket_ms"` // with another resolution it cannot be used
	Points   []Point        `json:"points"`    // by time

	dirty bool
}

// point changes the bucket that a moment lies in, unless its chunk includes the
// message already.
func (m *Monitor) point(seq uint64, t *track, atMS int64, change func(*Point)) {
	if m.releases[t.digest] == nil {
		return // nobody asked for it to be watched, and anybody can make digests up
	}
	c := m.chunk(seriesKey{t.digest, m.cohort(t.state.Device)}, atMS)
	if c == nil || seq <= c.Seq {
		return
	}
	change(c.point(atMS, m.cfg.Bucket))
	c.Seq, c.dirty = seq, true
}

// chunk returns the chunk of a moment, nil when that is older than is kept.
func (m *Monitor) chunk(k seriesKey, atMS int64) *chunk {
	s := m.series[k]
	if s == nil {
		s = &series{chunks: map[int64]*chunk{}}
		m.series[k] = s
	}
	bucket := atMS / m.cfg.Bucket.Milliseconds()
	if bucket <= s.newest-int64(m.cfg.Buckets) {
		return nil
	}
	s.newest = max(s.newest, bucket)
	n := bucket / chunkBuckets
	c := s.chunks[n]
	if c == nil {
		c = &chunk{Release: k.release, Cohort: k.cohort, Number: n, BucketMS: m.cfg.Bucket.Milliseconds()}
		s.chunks[n] = c
		delete(m.deleted, c.key())
		m.prune(s)
	}
	return c
}

// prune drops chunks that lie before what is kept.
func (m *Monitor) prune(s *series) {
	for n, c := range s.chunks {
		if (n+1)*chunkBuckets <= s.newest-int64(m.cfg.Buckets) {
			m.deleted[c.key()] = true
			delete(s.chunks, n)
		}
	}
}

// point returns the bucket of a moment, a new one in its place at first.
func (c *chunk) point(atMS int64, bucket time.Duration) *Point {
	at := atMS - atMS%bucket.Milliseconds()
	i, found := slices.BinarySearchFunc(c.Points, at, func(p Point, at int64) int { return cmp.Compare(p.AtMS, at) })
	if !found {
		c.Points = slices.Insert(c.Points, i, Point{AtMS: at, MaxPSI: -1, Accuracy: -1})
	}
	return &c.Points[i]
}

// rate adds the calibration of labels.
func (p *Point) rate(bins []ratedBin) {
	for _, b := range bins {
		p.Rated += b.Count
		p.RatedRight += b.Correct
		p.Confidence += b.Confidence
		p.Squared += b.Squared
		p.Hits += b.Hits
	}
}

// points returns copies of the newest buckets, oldest first.
func (s *series) points(buckets int, bucket time.Duration) []Point {
	oldest := (s.newest - int64(buckets) + 1) * bucket.Milliseconds()
	var ps []Point
	for _, n := range slices.Sorted(maps.Keys(s.chunks)) {
		ps = append(ps, s.chunks[n].Points...)
	}
	ps = slices.DeleteFunc(ps, func(p Point) bool { return p.AtMS < oldest })
	for i := range ps {
		if ps[i].Labels > 0 {
			ps[i].Accuracy = float64(ps[i].Correct) / float64(ps[i].Labels)
		}
	}
	return ps
}

// Series returns the charts of a model, "" for all, by release and cohort.
func (m *Monitor) Series(model string) []Series {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Series
	for k, s := range m.series {
		r := m.releases[k.release]
		if r == nil || model != "" && r.Model != model {
			continue
		}
		out = append(out, Series{
			Model: r.Model, Release: k.release, Version: r.Version, Cohort: k.cohort, Bucket: m.cfg.Bucket, Points: s.points(m.cfg.Buckets, m.cfg.Bucket),
		})
	}
	slices.SortFunc(out, func(a, b Series) int {
		return cmp.Or(cmp.Compare(a.Model, b.Model),
			cmp.Compare(m.releases[a.Release].Sequence, m.releases[b.Release].Sequence),
			slices.Compare(a.Release[:], b.Release[:]), cmp.Compare(a.Cohort, b.Cohort))
	})
	return out
}
