package drift

import (
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// start is when every simulation begins.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// readCSV reads numbers below a header; columns that are not numbers become 0
// and are returned as text in the last result.
func readCSV(tb testing.TB, name string) (rows [][]float32, last []string) {
	tb.Helper()
	f, err := os.Open(filepath.Join("..", "..", "deploy", "demo", "models", name))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	for _, line := range all[1:] {
		row := make([]float32, len(line))
		for i, s := range line {
			v, _ := strconv.ParseFloat(s, 32)
			row[i] = float32(v)
		}
		rows = append(rows, row)
		last = append(last, line[len(line)-1])
	}
	return rows, last
}

// centroids reads digits by the nearest mean image: a real classifier that a
// test can train. What it has read is known: cameras see the same images again.
type centroids struct {
	mean  [10][64]float64
	known map[uint64][]float32 // scores by the hash of an image
	hash  sketch.Hasher
}

func trainCentroids(images [][]float32, labels [][]float32) *centroids {
	c := centroids{known: map[uint64][]float32{}}
	var n [10]float64
	for i, x := range images {
		k := int(labels[i][0])
		n[k]++
		for j := range 64 {
			c.mean[k][j] += float64(x[j])
		}
	}
	for k := range c.mean {
		for j := range c.mean[k] {
			c.mean[k][j] /= n[k]
		}
	}
	return &c
}

func (c *centroids) scores(x []float32) []float32 {
	h := c.hash.Row([]sketch.Tensor{{Name: "X", Shape: []int64{64}, Width: 64, Data: x[:64]}}, 0)
	out, known := c.known[h]
	if !known {
		out = c.read(x)
		c.known[h] = out
	}
	return out
}

func (c *centroids) read(x []float32) []float32 {
	var d [10]float64
	best := math.Inf(1)
	for k := range c.mean {
		for j := range 64 {
			e := float64(x[j]) - c.mean[k][j]
			d[k] += e * e
		}
		best = math.Min(best, d[k])
	}
	var z float64
	for k := range d {
		d[k] = math.Exp((best - d[k]) / 200)
		z += d[k]
	}
	out := make([]float32, 10)
	for k := range d {
		out[k] = float32(d[k] / z)
	}
	return out
}

func argmax(p []float32) int {
	best := 0
	for i := range p {
		if p[i] > p[best] {
			best = i
		}
	}
	return best
}

func digitsSchema() *release.Schema {
	s := &release.Schema{
		Inputs: []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 64}}},
		Scores: "probabilities",
	}
	for k := range 10 {
		s.Classes = append(s.Classes, strconv.Itoa(k))
	}
	return s
}

func digitsBatch(c *centroids, images [][]float32, condition string) *sketch.Batch {
	b := &sketch.Batch{Rows: len(images), Classes: 10, Condition: condition, Inputs: []sketch.Tensor{{Name: "X", Shape: []int64{64}, Width: 64}}}
	for _, x := range images {
		b.Inputs[0].Data = append(b.Inputs[0].Data, x[:64]...)
		b.Scores = append(b.Scores, c.scores(x)...)
	}
	return b
}

func baselineOf(tb testing.TB, schema *release.Schema, batches ...*sketch.Batch) *sketch.Baseline {
	tb.Helper()
	b, err := sketch.NewBuilder(schema)
	if err != nil {
		tb.Fatal(err)
	}
	for _, x := range batches {
		if err := b.Add(x); err != nil {
			tb.Fatal(err)
		}
	}
	base, err := b.Baseline()
	if err != nil {
		tb.Fatal(err)
	}
	return base
}

type lens func(x []float32) []float32

func clean(x []float32) []float32 { return x[:64] }

// fade is what deploy/demo does to images: blur, half the contrast, haze.
func fade(x []float32) []float32 {
	at := func(r, c int) float32 { return x[min(max(r, 0), 7)*8+min(max(c, 0), 7)] }
	out := make([]float32, 64)
	for r := range 8 {
		for c := range 8 {
			var sum float32
			for i, wi := range []float32{1, 2, 1} {
				for j, wj := range []float32{1, 2, 1} {
					sum += wi * wj * at(r+i-1, c+j-1)
				}
			}
			out[r*8+c] = float32(math.Floor(float64(sum/16*0.5 + 3 + 0.5)))
		}
	}
	return out
}

// deadRow is a sensor whose fourth row of pixels sees nothing.
func deadRow(x []float32) []float32 {
	out := append([]float32(nil), x[:64]...)
	clear(out[24:32])
	return out
}

// camera is one simulated device that cycles through images.
type camera struct {
	name    string
	boot    []byte
	counter *sketch.Counter
	through lens
	at      int
}

// fleet feeds a monitor as ingest would.
type fleet struct {
	t       testing.TB
	m       *Monitor
	seq     uint64
	now     time.Time
	images  [][]float32
	reader  *centroids
	release release.Digest
	log     []*protocol.Accepted // everything applied, seq = index + 1
	cameras []*camera
}

func newFleet(tb testing.TB, cfg Config) *fleet {
	tb.Helper()
	return &fleet{t: tb, m: New(cfg), now: start}
}

func (f *fleet) apply(a *protocol.Accepted) {
	f.seq++
	f.log = append(f.log, a)
	f.m.Apply(f.seq, a)
}

func (f *fleet) add(name, site string, base *sketch.Baseline) *camera {
	f.t.Helper()
	f.m.SetLabels(name, map[string]string{"site": site})
	c, err := sketch.NewCounter(base)
	if err != nil {
		f.t.Fatal(err)
	}
	cam := &camera{name: name, boot: []byte((name + "................")[:16]), counter: c, through: clean, at: 37 * len(f.cameras)}
	f.cameras = append(f.cameras, cam)
	f.apply(&protocol.Accepted{
		Device: name, ReceivedMs: f.now.UnixMilli() + 40, Sent: f.stamp(cam),
		Body: &protocol.Accepted_Hello{Hello: &protocol.Hello{}},
	})
	return cam
}

// stamp is by a device's clock, which stands in 1970.
func (f *fleet) stamp(c *camera) *protocol.Stamp {
	ms := f.now.Sub(start).Milliseconds()
	return &protocol.Stamp{Boot: c.boot, MonotonicMs: uint64(ms), WallMs: ms}
}

func (f *fleet) record(c *camera, body *protocol.Body) {
	body.At = f.stamp(c)
	data, err := proto.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	f.apply(&protocol.Accepted{
		Device: c.name, ReceivedMs: f.now.UnixMilli() + 40, Sent: f.stamp(c),
		Body: &protocol.Accepted_Record{Record: &protocol.Record{Body: data}},
	})
}

// tick lets every camera see rows images within d and report them.
func (f *fleet) tick(d time.Duration, rows int) {
	f.t.Helper()
	from := f.now
	f.now = f.now.Add(d)
	for _, c := range f.cameras {
		f.report(c, from, rows)
	}
}

func (f *fleet) report(c *camera, from time.Time, rows int) {
	f.t.Helper()
	var seen [][]float32
	var correct uint64
	for range rows {
		raw := f.images[c.at%len(f.images)]
		c.at++
		x := c.through(raw)
		seen = append(seen, x)
		if argmax(f.reader.scores(x)) == int(raw[64]) {
			correct++
		}
	}
	b := digitsBatch(f.reader, seen, "")
	c.counter.Reset()
	c.counter.Count(b)
	var h sketch.Hasher
	distinct, latency := sketch.NewDistinct(), sketch.NewLatency()
	for r := range rows {
		distinct.Add(h.Row(b.Inputs, r))
		latency.Add(2 * time.Millisecond)
	}
	lat, _ := latency.Encode()
	dis, _ := distinct.Encode()
	w := &protocol.Window{
		Model: "digits", Release: f.release[:], Role: "primary", Rows: uint64(rows), Calls: uint64(rows),
		StartMonotonicMs: uint64(from.Sub(start).Milliseconds()), EndMonotonicMs: uint64(f.now.Sub(start).Milliseconds()),
		Streams: c.counter.Histograms(), Latency: lat, Distinct: dis,
	}
	f.record(c, &protocol.Body{Kind: &protocol.Body_Window{Window: w}})
	f.record(c, &protocol.Body{Kind: &protocol.Body_Labels{Labels: &protocol.Labels{
		Model: "digits", Release: f.release[:], Matched: uint64(rows), Correct: correct,
		StartMonotonicMs: w.GetStartMonotonicMs() + 1, EndMonotonicMs: w.GetEndMonotonicMs(),
	}}})
}

func (f *fleet) score() Score {
	f.t.Helper()
	ss := f.m.Scores("digits")
	for _, s := range ss {
		if s.Release == f.release {
			return s
		}
	}
	f.t.Fatal("release has no score")
	return Score{}
}

// trained is a version and the baseline of what it was trained on.
type trained struct {
	reader *centroids
	base   *sketch.Baseline
}

// versions are those of the demonstration, made once for all tests.
var versions = map[string]trained{}

func versionOf(tb testing.TB, v string) trained {
	tb.Helper()
	if have, ok := versions[v]; ok {
		return have
	}
	train, conditions := readCSV(tb, "digits-"+v+".train.csv")
	labels, _ := readCSV(tb, "digits-"+v+".expected.csv")
	out := trained{reader: trainCentroids(train, labels)}
	var parts []*sketch.Batch
	for i, from := 1, 0; i <= len(train); i++ {
		if i == len(train) || conditions[i] != conditions[from] {
			parts = append(parts, digitsBatch(out.reader, train[from:i], conditions[from]))
			from = i
		}
	}
	out.base = baselineOf(tb, digitsSchema(), parts...)
	versions[v] = out
	return out
}

// demo is the fleet of the demonstration: eight cameras on three sites.
func demo(tb testing.TB, version int) *fleet {
	tb.Helper()
	f := newFleet(tb, Config{MaxAge: time.Minute, Bucket: 5 * time.Second, Block: time.Minute})
	v := strconv.Itoa(version)
	made := versionOf(tb, v)
	f.images, _ = readCSV(tb, "heldout.csv")
	f.reader = made.reader
	f.release = release.Digest{byte(version)}
	if err := f.m.SetRelease(Release{Digest: f.release, Model: "digits", Version: v, Sequence: uint64(version)}, made.base); err != nil {
		tb.Fatal(err)
	}
	for i, site := range []string{"a", "a", "a", "b", "b", "b", "c", "c"} {
		f.add("cam-"+site+strconv.Itoa(i), site, made.base)
	}
	return f
}
