package ingest_test

import (
	"context"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/history"
	"github.com/vedette-edge/vedette/controlplane/ingest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Pace of the day.
const (
	dayWindow  = 5 * time.Minute
	dayRows    = 35 // 10,000 a day in windows of five minutes
	dayLooks   = 10 // evaluations of drift in a window: every half minute
	dayReports = 5  // in a window: every minute
)

var dayRelease = release.Digest{9}

// A day of a fleet on the real path: devices' messages through a real broker and
// ingest, three folds with their checkpoints, drift scored every half minute and
// the history settled, by a clock that runs as fast as the work is done. Then
// every row must be in the history once. VEDETTE_DAY is a number of hours for a
// thousand devices: what is printed then is for the benchmark.
func TestDayOfTelemetry(t *testing.T) {
	devices, hours := 3, 2
	if text := os.Getenv("VEDETTE_DAY"); text != "" {
		var err error
		if hours, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		devices = 1000
	}
	d := openDay(t, devices)
	for range hours * int(time.Hour/dayWindow) {
		d.window()
	}
	d.settle(time.Duration(hours) * time.Hour)
	d.check(hours)
	d.say(hours)
}

// day is a server without its doors, and a fleet.
type day struct {
	t       *testing.T
	dir     string
	nc      *nats.Conn
	start   time.Time
	now     atomic.Int64 // since 1970, ns
	ingest  *ingest.Ingest
	monitor *drift.Monitor
	fleet   *fleet.Fleet
	history *history.History
	buckets map[string]kvstore.Bucket

	images  [][]float32
	devices []*dayDevice
	acks    chan struct{}
	folded  chan uint64
	sent    uint64
	last    uint64 // message folded
	windows int
	busy    time.Duration // CPU of the server
}

// dayDevice is one device of it.
type dayDevice struct {
	name        string
	boot, epoch []byte
	seq         uint64
	chain       []byte
	total       *protocol.Tally
	at          int // of the images
	counter     *sketch.Counter
}

func (d *day) time() time.Time { return time.Unix(0, d.now.Load()) }

func cohortOf(device string) string { return "site-" + device[len(device)-1:] }

func openDay(t *testing.T, devices int) *day {
	t.Helper()
	d := &day{
		t: t, dir: t.TempDir(), start: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
		acks: make(chan struct{}, 1<<16), folded: make(chan uint64, 1<<16), buckets: map[string]kvstore.Bucket{},
	}
	d.now.Store(d.start.Add(dayWindow).UnixNano()) // devices booted at start
	ca, err := access.OpenCA(t.TempDir(), access.DefaultHosts(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d.nc = brokertest.StartAt(t, d.dir, ca).Conn()
	d.openFolds()
	base := d.digits()
	if err := d.monitor.SetRelease(drift.Release{Digest: dayRelease, Model: "digits", Version: "1", Sequence: 1}, base); err != nil {
		t.Fatal(err)
	}
	d.ingest, err = ingest.Start(t.Context(), d.nc, ingest.Config{Cursors: d.buckets["cursors"], Now: d.time})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.ingest.Stop(context.WithoutCancel(t.Context())) })
	d.listen()
	for i := range devices {
		d.enrol(i, base)
	}
	return d
}

func (d *day) openFolds() {
	d.t.Helper()
	ctx := d.t.Context()
	for name, keep := range map[string]time.Duration{
		"fleet": 0, "fleet-fold": 0, "drift-fold": 0, "history-fold": 0, "cursors": 0,
		"history-hours": history.KeepHours, "history-days": history.KeepDays,
	} {
		var err error
		if d.buckets[name], err = kvstore.OpenAged(ctx, d.nc, name, keep); err != nil {
			d.t.Fatal(err)
		}
	}
	d.history = history.New(history.Config{Hours: d.buckets["history-hours"], Days: d.buckets["history-days"], Cohort: cohortOf})
	d.monitor = drift.New(drift.Config{})
	var err error
	if d.fleet, err = fleet.Open(ctx, d.buckets["fleet"], fleet.Config{Now: d.time}); err != nil {
		d.t.Fatal(err)
	}
}

// listen takes acknowledgements and follows the stream.
func (d *day) listen() {
	d.t.Helper()
	sub, err := d.nc.Subscribe(protocol.Subject(protocol.DownFilter("+")), func(*nats.Msg) { d.acks <- struct{}{} })
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- d.ingest.Follow(ctx, 1, func(seq uint64, a *protocol.Accepted) error {
			d.fleet.Apply(seq, a)
			d.monitor.Apply(seq, a)
			d.history.Apply(seq, a)
			d.folded <- seq
			return nil
		})
	}()
	d.t.Cleanup(func() {
		cancel()
		<-ended
		sub.Unsubscribe()
	})
}

func (d *day) enrol(i int, base *sketch.Baseline) {
	d.t.Helper()
	counter, err := sketch.NewCounter(base)
	if err != nil {
		d.t.Fatal(err)
	}
	x := &dayDevice{
		name: fmt.Sprintf("cam-%05d", i), boot: fmt.Appendf(nil, "%016d", i), epoch: fmt.Appendf(nil, "%016d", i+1),
		total: &protocol.Tally{}, at: 17 * i, counter: counter,
	}
	d.monitor.SetLabels(x.name, map[string]string{"site": cohortOf(x.name)})
	d.devices = append(d.devices, x)
	d.send(x, &protocol.Up{Body: &protocol.Up_Hello{Hello: &protocol.Hello{Epochs: []*protocol.Epoch{{Id: x.epoch}}}}}, false)
	d.await(0)
}

// digits is the demo's model: 64 inputs, class, confidence and entropy.
func (d *day) digits() *sketch.Baseline {
	d.t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "deploy", "demo", "models", "digits-1.train.csv"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, row := range rows[1:] {
		image := make([]float32, 64)
		for i := range image {
			v, err := strconv.ParseFloat(row[i], 32)
			if err != nil {
				d.t.Fatal(err)
			}
			image[i] = float32(v)
		}
		d.images = append(d.images, image)
	}
	names := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}
	b, err := sketch.NewBuilder(&release.Schema{
		Inputs:  []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 64}}},
		Outputs: []release.Tensor{{Name: "scores", Datatype: "FP32", Shape: []int64{-1, 10}}},
		Scores:  "scores", Classes: names,
	})
	if err == nil {
		err = b.Add(batch(d.images))
	}
	if err != nil {
		d.t.Fatal(err)
	}
	base, err := b.Baseline()
	if err != nil {
		d.t.Fatal(err)
	}
	return base
}

// batch answers with a class by the sum of each image, more or less sure.
func batch(images [][]float32) *sketch.Batch {
	b := &sketch.Batch{Rows: len(images), Classes: 10, Inputs: []sketch.Tensor{{Name: "X", Shape: []int64{64}, Width: 64}}}
	for _, x := range images {
		sum := 0
		for _, v := range x {
			sum += int(v)
		}
		scores := make([]float32, 10)
		for i := range scores {
			scores[i] = float32(0.04-0.03*float64(sum%7)/7) / 1
		}
		scores[sum%10] = 1 - 9*scores[(sum+1)%10]
		b.Inputs[0].Data, b.Scores = append(b.Inputs[0].Data, x...), append(b.Scores, scores...)
	}
	return b
}

// window lets five minutes pass. Devices report in turn, and drift is scored in
// between.
func (d *day) window() {
	d.t.Helper()
	for look := range dayLooks {
		began := cpu(d.t)
		envelopes := d.envelopes(look)
		making := cpu(d.t) - began
		d.now.Add(int64(dayWindow / dayLooks))
		records := 0
		for _, e := range envelopes {
			if d.publish(e.device, e.raw); e.record {
				records++
			}
		}
		d.await(records)
		d.monitor.Evaluate(d.time())
		d.busy += cpu(d.t) - began - making
	}
	began := cpu(d.t)
	d.windows++
	d.write("drift-fold", d.monitor.Dirty()) // each device's records change once in a window, as by the fold's timer
	d.write("fleet-fold", d.fleet.Dirty())
	if time.Duration(d.windows)*dayWindow%history.Checkpoint == 0 {
		d.checkpoint()
	}
	if err := d.history.Settle(d.t.Context(), d.time()); err != nil {
		d.t.Fatal(err)
	}
	d.busy += cpu(d.t) - began
}

func (d *day) checkpoint() {
	d.t.Helper()
	d.write("history-fold", d.history.Dirty())
	d.history.Written()
}

func (d *day) write(bucket string, records map[string][]byte) {
	d.t.Helper()
	for key, value := range records {
		if len(value) > 0 {
			continue
		}
		delete(records, key)
		if err := d.buckets[bucket].Delete(d.t.Context(), "r."+key); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := kvstore.PutAll(d.t.Context(), d.buckets[bucket], records); err != nil {
		d.t.Fatal(err)
	}
}

// settle lets the time pass until days are made, with a message an hour so that
// checkpoints go on.
func (d *day) settle(past time.Duration) {
	d.t.Helper()
	began := cpu(d.t)
	for d.time().Before(d.start.Add(max(past, history.Day) + 5*time.Hour)) {
		d.now.Add(int64(time.Hour))
		if err := d.history.Settle(d.t.Context(), d.time()); err != nil {
			d.t.Fatal(err)
		}
		d.checkpoint()
	}
	if err := d.history.Settle(d.t.Context(), d.time()); err != nil {
		d.t.Fatal(err)
	}
	d.busy += cpu(d.t) - began
}

// envelope is a message on its way.
type envelope struct {
	device string
	raw    []byte
	record bool
}

// envelopes are what devices send in one look: everybody a report in every
// second one, a tenth of them their window, and its labels once an hour.
func (d *day) envelopes(look int) (out []envelope) {
	d.t.Helper()
	end := d.time().Add(dayWindow / dayLooks)
	for i, x := range d.devices {
		if (look+i)%(dayLooks/dayReports) == 0 {
			out = append(out, d.envelope(x, end, &protocol.Up{Body: &protocol.Up_Report{Report: dayReport(end.Sub(d.start))}}, false))
		}
		if i%dayLooks != look {
			continue
		}
		out = append(out, d.envelope(x, end, d.record(x, end, &protocol.Body_Window{Window: d.count(x, end)}), true))
		if d.windows%12 == 11 {
			out = append(out, d.envelope(x, end, d.record(x, end, &protocol.Body_Labels{Labels: d.labels(end)}), true))
		}
	}
	return out
}

func (d *day) envelope(x *dayDevice, at time.Time, up *protocol.Up, record bool) envelope {
	d.t.Helper()
	up.Sent = d.stamp(x, at)
	raw, err := proto.Marshal(up)
	if err != nil {
		d.t.Fatal(err)
	}
	return envelope{x.name, raw, record}
}

func (d *day) stamp(x *dayDevice, at time.Time) *protocol.Stamp {
	ms := at.Sub(d.start).Milliseconds() + 1
	return &protocol.Stamp{Boot: x.boot, MonotonicMs: uint64(ms), WallMs: at.UnixMilli()}
}

func (d *day) record(x *dayDevice, at time.Time, kind any) *protocol.Up {
	d.t.Helper()
	b := &protocol.Body{At: d.stamp(x, at)}
	switch k := kind.(type) {
	case *protocol.Body_Window:
		b.Kind = k
	case *protocol.Body_Labels:
		b.Kind = k
	}
	counts := protocol.TallyOf(b)
	raw, err := sketch.EncodeBody(b)
	if err != nil {
		d.t.Fatal(err)
	}
	x.chain, x.total = protocol.NextChain(x.chain, raw), x.total.Add(counts)
	x.seq++
	return &protocol.Up{Body: &protocol.Up_Record{Record: &protocol.Record{
		Epoch: x.epoch, Seq: x.seq, Prev: x.seq - 1, Chain: x.chain, Body: raw, Total: x.total,
	}}}
}

// count is a window of the next images, with latencies about a millisecond.
func (d *day) count(x *dayDevice, end time.Time) *protocol.Window {
	d.t.Helper()
	rng := rand.New(rand.NewPCG(uint64(x.at), x.seq))
	x.counter.Reset()
	latency, distinct := sketch.NewLatency(), sketch.NewDistinct()
	var images [][]float32
	for range dayRows {
		images = append(images, d.images[rng.IntN(len(d.images))])
		latency.Add(time.Duration(1000*(0.8+rng.ExpFloat64())) * time.Microsecond)
		distinct.Add(rng.Uint64())
	}
	x.counter.Count(batch(images))
	encoded, err := latency.Encode()
	if err != nil {
		d.t.Fatal(err)
	}
	seen, err := distinct.Encode()
	if err != nil {
		d.t.Fatal(err)
	}
	ms := uint64(end.Sub(d.start).Milliseconds())
	return &protocol.Window{
		Model: "digits", Release: dayRelease[:], Role: protocol.RolePrimary, Rows: dayRows, Calls: dayRows,
		StartMonotonicMs: ms - uint64(dayWindow.Milliseconds()) + 1, EndMonotonicMs: ms, StartWallMs: end.Add(-dayWindow).UnixMilli(), EndWallMs: end.UnixMilli(),
		Latency: encoded, Distinct: seen, Streams: x.counter.Histograms(), Merged: 1, Provider: "CPUExecutionProvider",
	}
}

// labels are four truths an hour: one in a hundred predictions.
func (d *day) labels(end time.Time) *protocol.Labels {
	l := &protocol.Labels{
		Model: "digits", Release: dayRelease[:], Matched: 4, Correct: 3, Confusion: make([]uint64, 100),
		StartMonotonicMs: uint64(end.Sub(d.start).Milliseconds()) - 60_000, EndMonotonicMs: uint64(end.Sub(d.start).Milliseconds()),
		StartWallMs: end.Add(-time.Minute).UnixMilli(), EndWallMs: end.UnixMilli(),
	}
	l.Confusion[0], l.Confusion[37] = 3, 1
	for range 10 {
		l.Calibration = append(l.Calibration, &protocol.CalibrationBin{})
	}
	l.Calibration[9] = &protocol.CalibrationBin{Count: 4, Confidence: 3.8, Correct: 3}
	return l
}

// dayReport is what an idle device says of itself.
func dayReport(up time.Duration) *protocol.Report {
	ms := uint64(up.Milliseconds()) + 24*3_600_000 // settled
	return &protocol.Report{
		Generation: 3, DiskFreeBytes: 8<<30 - ms, OutboxBytes: 4096, RssBytes: 40<<20 + ms%4096, Metered: "no", Power: "mains",
		Models: []*protocol.ModelState{{
			Model: "digits", Active: dayRelease[:], State: "idle", StateForMs: ms, Serving: true, ActiveForMs: ms, Starts: 1, Provider: "CPUExecutionProvider",
			Outcome: &protocol.Outcome{Release: dayRelease[:], Result: "active", Generation: 3, At: &protocol.Stamp{Boot: make([]byte, 16), MonotonicMs: 5000}},
			Trial:   &protocol.Trial{Release: dayRelease[:], GoldenRows: 64, P95Us: 900, PeakBytes: 30 << 20, Provider: "CPUExecutionProvider", RuntimeVersion: "1.30.0"},
		}},
	}
}

func (d *day) send(x *dayDevice, up *protocol.Up, record bool) {
	d.t.Helper()
	e := d.envelope(x, d.time(), up, record)
	d.publish(e.device, e.raw)
}

func (d *day) publish(device string, raw []byte) {
	d.t.Helper()
	if err := d.nc.Publish(protocol.Subject(protocol.UpTopic(device)), raw); err != nil {
		d.t.Fatal(err)
	}
	d.sent++
}

// await waits until records are acknowledged and all that was sent is in the
// folds, but for reports that said nothing new.
func (d *day) await(acks int) {
	d.t.Helper()
	late := time.After(time.Minute)
	for range acks {
		select {
		case <-d.acks:
		case <-late:
			d.t.Fatal("a record was never acknowledged")
		}
	}
	for s := d.ingest.Stats(); s.Stored+s.Quiet < d.sent; s = d.ingest.Stats() {
		select {
		case <-time.After(time.Millisecond): // no report is ever answered
		case <-late:
			d.t.Fatalf("of %d messages %d were stored and %d said nothing new: %+v", d.sent, s.Stored, s.Quiet, s)
		}
	}
	for stored := d.ingest.Stats().Stored; d.last < stored; {
		select {
		case d.last = <-d.folded:
		case <-late:
			d.t.Fatalf("message %d never came", stored)
		}
	}
}

// check looks for every row in the days, and for what may be kept of it.
func (d *day) check(hours int) {
	d.t.Helper()
	all, err := d.history.Series(d.t.Context(), d.time(), history.Query{
		Releases: []release.Digest{dayRelease}, From: d.start, To: d.start.Add(time.Duration(hours) * time.Hour), Step: history.Day, ByCohort: true,
	})
	if err != nil {
		d.t.Fatal(err)
	}
	var rows, labels uint64
	for _, s := range all {
		for _, p := range s.Points {
			rows += p.Window.GetRows()
			labels += p.Labels.GetMatched()
		}
	}
	if want := uint64(len(d.devices) * d.windows * dayRows); rows != want {
		d.t.Errorf("rows in the history: got %d, want %d", rows, want)
	}
	if want := uint64(len(d.devices) * hours * 4); labels != want {
		d.t.Errorf("labels in the history: got %d, want %d", labels, want)
	}
	for _, a := range d.monitor.Alarms("") {
		d.t.Errorf("alarm without drift: %s", a.Message)
	}
}

// say prints what a day of a thousand devices takes.
func (d *day) say(hours int) {
	d.t.Helper()
	ctx := context.WithoutCancel(d.t.Context())
	held, err := d.ingest.Storage(ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	sizes, err := d.history.Sizes(ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	scale := 24 / float64(hours) * 1000 / float64(len(d.devices))
	d.t.Logf("telemetry raw %.1f MB a day", scale*float64(held.Bytes)/1e6)
	d.t.Logf("telemetry raw on disk %.1f MB a day", scale*float64(onDisk(d.t, filepath.Join(d.dir, "jetstream", "$G", "streams", "UPLINK")))/1e6)
	d.t.Logf("telemetry hours %.1f MB a day", scale*float64(sizes.Hours)/1e6)
	d.t.Logf("telemetry days %.2f MB a day", 1000/float64(len(d.devices))*float64(sizes.Days)/1e6)
	d.t.Logf("telemetry cpu %.2f %% of one core", 100*d.busy.Seconds()*scale/86400)
	began := time.Now()
	again := history.New(history.Config{Hours: kvstore.NewMemory(), Days: kvstore.NewMemory()})
	n := 0
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_ = d.ingest.Follow(ctx, 1, func(seq uint64, a *protocol.Accepted) error {
		again.Apply(seq, a)
		if n++; seq == d.last {
			cancel()
		}
		return nil
	})
	d.t.Logf("telemetry replay %.0f messages a second", float64(n)/time.Since(began).Seconds())
}

// onDisk sums the blocks that files take.
func onDisk(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var s syscall.Stat_t
		if err := syscall.Stat(path, &s); err != nil {
			return err
		}
		bytes += s.Blocks * 512
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// cpu is the time that this process has used.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
