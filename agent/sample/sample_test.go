package sample

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sampling"
)

// sink keeps what is to be sent.
type sink struct {
	bodies []*protocol.Body
	fail   error
}

func (s *sink) Append(bodies ...*protocol.Body) error {
	if s.fail == nil {
		s.bodies = append(s.bodies, bodies...)
	}
	return s.fail
}

// boot is a clock that the test moves.
type boot struct{ ms uint64 }

func (b *boot) Stamp() *protocol.Stamp {
	return &protocol.Stamp{Boot: make([]byte, protocol.BootSize), MonotonicMs: b.ms, WallMs: 1_800_000_000_000 + int64(b.ms)}
}

var digest = release.DigestOf([]byte("v1"))

// bench is a sampler of one release with a recipient that the test holds.
type bench struct {
	*Sampler

	t        testing.TB
	sink     *sink
	boot     *boot
	identity *age.X25519Identity
	calls    int
}

func newBench(tb testing.TB, change func(*release.Manifest)) *bench {
	tb.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		tb.Fatal(err)
	}
	b := &bench{t: tb, sink: &sink{}, boot: &boot{}, identity: id}
	b.Sampler = New(b.sink, b.boot, Config{Rand: rand.New(rand.NewPCG(1, 2))})
	m := manifest(id.Recipient().String())
	if change != nil {
		change(m)
	}
	b.SetRelease(digest, infer.RolePrimary, m)
	return b
}

func manifest(recipient string) *release.Manifest {
	return &release.Manifest{
		Model: "m",
		Schema: release.Schema{
			Inputs: []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 2}, Features: []release.Feature{
				{Name: "a", Min: new(0.0), Max: new(10.0)}, {Name: "b"},
			}}},
			Outputs: []release.Tensor{{Name: "label", Datatype: "INT64", Shape: []int64{-1}}, {Name: "scores", Datatype: "FP32", Shape: []int64{-1, 3}}},
			Classes: []string{"cat", "dog", "owl"}, Label: "label", Scores: "scores",
		},
		Sampling: &release.Sampling{Recipient: recipient, Rows: 12, Rate: 1, Strata: release.StrataClass, Expires: release.Duration(time.Hour)},
	}
}

// serve predicts rows, each a class and its first input.
func (b *bench) serve(role string, classes []int64, first ...float32) {
	b.calls++
	in, scores := make([]float32, 0, 2*len(classes)), make([]float32, 3*len(classes))
	for i, class := range classes {
		x := float32(class)
		if i < len(first) {
			x = first[i]
		}
		in = append(in, x, float32(b.calls))
		for j := range 3 {
			scores[3*i+j] = 0.05
		}
		scores[3*i+int(class)] = 0.9
	}
	b.Served(&infer.Call{
		Model: "m", Release: digest, Role: role, ID: fmt.Sprint("id", b.calls), Rows: len(classes), At: time.UnixMilli(int64(b.calls)),
		Inputs:  []infer.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{int64(len(classes)), 2}, Data: in}},
		Outputs: []infer.Tensor{{Name: "label", Datatype: "INT64", Shape: []int64{int64(len(classes))}, Data: classes}, {Name: "scores", Datatype: "FP32", Shape: []int64{int64(len(classes)), 3}, Data: scores}},
	})
}

// closed is the sample of the window that ends now, nil for none, with its rows.
func (b *bench) closed() (*protocol.Sample, []*protocol.SampleRow) {
	b.t.Helper()
	b.sink.bodies = nil
	b.boot.ms += 300_000
	if err := b.CloseWindow(); err != nil {
		b.t.Fatal(err)
	}
	if len(b.sink.bodies) == 0 {
		return nil, nil
	}
	s := b.sink.bodies[0].GetSample()
	rows, err := sampling.Open(s.GetSealed(), b.identity)
	if err != nil {
		b.t.Fatal(err)
	}
	return s, rows.GetRows()
}

func TestRowsAreThoseServed(t *testing.T) {
	b := newBench(t, nil)
	b.boot.ms = 5000
	b.serve(infer.RolePrimary, []int64{2, 0})
	s, rows := b.closed()
	if s.GetModel() != "m" || !bytes.Equal(s.GetRelease(), digest[:]) || s.GetEndMonotonicMs() != 305_000 || s.GetExpiresMs() != 3_600_000 {
		t.Errorf("got %v", s)
	}
	if len(rows) != 2 {
		t.Fatalf("%d rows, want 2", len(rows))
	}
	slices.SortFunc(rows, func(a, b *protocol.SampleRow) int { return strings.Compare(a.GetId(), b.GetId()) })
	in, err := sampling.Numbers(rows[0].GetInputs()[0])
	if err != nil || !slices.Equal(in, []float64{2, 1}) {
		t.Errorf("inputs are %v, %v, want 2 and 1", in, err)
	}
	scores, err := sampling.Numbers(rows[0].GetOutputs()[1])
	if err != nil || len(scores) != 3 || float32(scores[2]) != 0.9 {
		t.Errorf("scores are %v, %v", scores, err)
	}
	if r := rows[1]; r.GetId() != "id1/1" || r.GetStratum() != "cat" || r.GetWallMs() != 1 {
		t.Errorf("second row is %v", r)
	}
	if bytes.Contains(s.GetSealed(), []byte("id1/1")) {
		t.Error("the sample can be read")
	}
	if again, _ := b.closed(); again != nil {
		t.Error("a window without calls has a sample")
	}
}

// Rare classes are dealt with before the common one takes what is left.
func TestRowsAreDealtToStrata(t *testing.T) {
	b := newBench(t, nil)
	for range 500 {
		b.serve(infer.RolePrimary, []int64{0})
	}
	b.serve(infer.RolePrimary, []int64{1, 1, 2})
	s, rows := b.closed()
	got := map[string][2]uint64{}
	for _, st := range s.GetStrata() {
		got[st.GetName()] = [2]uint64{st.GetSeen(), uint64(st.GetRows())}
	}
	want := map[string][2]uint64{"cat": {500, 9}, "dog": {2, 2}, "owl": {1, 1}}
	if len(rows) != 12 || len(got) != 3 || got["cat"] != want["cat"] || got["dog"] != want["dog"] || got["owl"] != want["owl"] {
		t.Errorf("%d rows of %v, want 12 of %v", len(rows), got, want)
	}
}

// Every row has the same chance: of 100 rows 12 are taken, 400 times over.
func TestReservoirIsUniform(t *testing.T) {
	b := newBench(t, func(m *release.Manifest) { m.Sampling.Strata = release.StrataNone })
	const windows, calls = 400, 100
	taken := map[float64]int{}
	for range windows {
		b.calls = 0
		for range calls {
			b.serve(infer.RolePrimary, []int64{0})
		}
		for _, w := range b.take() {
			for _, r := range w.rows {
				in, _ := sampling.Numbers(r.GetInputs()[0])
				taken[in[1]]++
			}
		}
	}
	mean := float64(windows) * 12 / calls
	chi2 := 0.0
	for call := 1; call <= calls; call++ {
		d := float64(taken[float64(call)]) - mean
		chi2 += d * d / mean
	}
	if chi2 > 149 { // 99.9% of chi-square with 99 degrees of freedom, and these have a little less
		t.Errorf("chi-square of the calls taken is %.0f, at most 149 by chance", chi2)
	}
}

func TestRateIsKept(t *testing.T) {
	for _, rate := range []float64{0.5, 0.01} {
		b := newBench(t, func(m *release.Manifest) { m.Sampling.Rate, m.Sampling.Strata = rate, release.StrataNone })
		const calls, rows = 1500, 7
		classes := make([]int64, rows)
		for range calls {
			b.serve(infer.RolePrimary, classes)
		}
		s, _ := b.closed()
		got, want := float64(s.GetStrata()[0].GetSeen()), rate*calls*rows
		if sd := math.Sqrt(want * (1 - rate)); math.Abs(got-want) > 5*sd {
			t.Errorf("rate %g: %v of %d rows were drawn, want %v ± %v", rate, got, calls*rows, want, 5*sd)
		}
	}
}

func TestStrata(t *testing.T) {
	nan := float32(math.NaN())
	for strata, want := range map[string][]string{
		release.StrataNone:       {"all"},
		release.StrataClass:      {"cat", "dog", "owl"},
		release.StrataConfidence: {"0.8 to 0.95"},
		release.StrataCondition:  {"missing", "ordinary", "outside"},
	} {
		b := newBench(t, func(m *release.Manifest) { m.Sampling.Strata = strata })
		b.serve(infer.RolePrimary, []int64{0, 1, 2}, 5, 11, nan)
		s, _ := b.closed()
		var got []string
		for _, st := range s.GetStrata() {
			got = append(got, st.GetName())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", strata, got, want)
		}
	}
}

// Nothing leaves a device that the manifest does not allow, and settings only
// narrow that.
func TestNothingElseIsSampled(t *testing.T) {
	none := newBench(t, func(m *release.Manifest) { m.Sampling = nil })
	none.serve(infer.RolePrimary, []int64{0})
	if s, _ := none.closed(); s != nil {
		t.Error("a release without a plan is sampled")
	}
	b := newBench(t, nil)
	b.serve(infer.RoleShadow, []int64{0})
	b.Served(&infer.Call{Model: "m", Release: digest, Rows: 1, Err: errors.New("failed")})
	b.Served(&infer.Call{Model: "m", Release: release.DigestOf([]byte("v2")), Rows: 1})
	if s, _ := b.closed(); s != nil {
		t.Error("a shadow, a failed call or another release is sampled")
	}
	b.Apply(&protocol.Settings{SampleRows: 3})
	b.serve(infer.RolePrimary, make([]int64, 20))
	if _, rows := b.closed(); len(rows) != 3 {
		t.Errorf("%d rows under a setting of 3", len(rows))
	}
	b.Apply(&protocol.Settings{SampleRows: 60})
	b.serve(infer.RolePrimary, make([]int64, 20))
	if _, rows := b.closed(); len(rows) != 12 {
		t.Errorf("%d rows under a setting of 60, the manifest allows 12", len(rows))
	}
	b.serve(infer.RolePrimary, make([]int64, 20))
	b.Apply(&protocol.Settings{SamplingOff: true})
	b.serve(infer.RolePrimary, make([]int64, 20))
	if s, _ := b.closed(); s != nil {
		t.Error("sampled though it is switched off")
	}
	b.Apply(&protocol.Settings{})
	b.serve(infer.RolePrimary, []int64{0})
	if s, _ := b.closed(); s == nil {
		t.Error("not sampled though it is switched on again")
	}
}

// A sample fits its record whatever the rows' size, and a row that cannot is
// left out.
func TestSampleFitsARecord(t *testing.T) {
	b := newBench(t, func(m *release.Manifest) {
		m.Sampling.Rows, m.Sampling.Strata = release.MaxSampleRows, release.StrataNone
		m.Schema.Inputs[0] = release.Tensor{Name: "X", Datatype: "BYTES", Shape: []int64{-1, 1}}
	})
	texts := func(n, size int) *infer.Call {
		data := make([]string, n)
		for i := range data {
			data[i] = strings.Repeat("x", size)
		}
		return &infer.Call{Model: "m", Release: digest, ID: "t", Rows: n, Inputs: []infer.Tensor{{Name: "X", Datatype: "BYTES", Shape: []int64{int64(n), 1}, Data: data}}}
	}
	b.Served(texts(1, release.MaxSampleRow+1))
	if _, rows := b.closed(); len(rows) != 0 {
		t.Error("a row that is too wide is sampled")
	}
	b.Served(texts(60, 5000))
	s, rows := b.closed()
	if len(s.GetSealed()) > protocol.MaxSample || len(rows) != 8 {
		t.Errorf("%d rows in %d bytes, want 8 in at most %d", len(rows), len(s.GetSealed()), protocol.MaxSample)
	}
	b.Served(texts(60, 30_000))
	if held := b.all[0].bytes; held > maxHeld {
		t.Errorf("%d bytes are held, at most %d", held, maxHeld)
	}
}

func TestFullOutboxCostsTheSample(t *testing.T) {
	b := newBench(t, nil)
	b.serve(infer.RolePrimary, []int64{0})
	b.sink.fail = errors.New("full")
	if err := b.CloseWindow(); !errors.Is(err, b.sink.fail) {
		t.Errorf("got %v, want %v", err, b.sink.fail)
	}
	b.sink.fail = nil
	if s, _ := b.closed(); s != nil {
		t.Error("a sample that was given up is there")
	}
}

// BenchmarkServed compares a prediction's cost without a plan, and with one.
func BenchmarkServed(b *testing.B) {
	for name, rate := range map[string]float64{"absent": 0, "one in a hundred": 0.01, "all": 1} {
		b.Run(name, func(b *testing.B) {
			bench := newBench(b, func(m *release.Manifest) {
				if m.Sampling.Rate = rate; rate == 0 {
					m.Sampling = nil
				}
			})
			x, y, scores := make([]float32, 2), []int64{1}, make([]float32, 3)
			c := &infer.Call{
				Model: "m", Release: digest, ID: "id", Rows: 1,
				Inputs:  []infer.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{1, 2}, Data: x}},
				Outputs: []infer.Tensor{{Name: "label", Datatype: "INT64", Shape: []int64{1}, Data: y}, {Name: "scores", Datatype: "FP32", Shape: []int64{1, 3}, Data: scores}},
			}
			b.ReportAllocs()
			for b.Loop() {
				bench.Served(c)
			}
		})
	}
}
