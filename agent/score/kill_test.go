package score

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/sketch"
)

// envChild tells this test program to be the process that is killed; it holds a
// killedJob.
const envChild = "VEDETTE_SCORE_CHILD"

func TestMain(m *testing.M) {
	if raw := os.Getenv(envChild); raw != "" {
		os.Exit(child(raw))
	}
	os.Exit(m.Run())
}

// killedJob is what the processes of one test score.
type killedJob struct {
	Dir, In, Out string // folder and formats
	Room         uint64 // bytes that a file may have, 0 for any number
	Group        int    // rows of a Parquet row group, 0 for 1000
}

func (k killedJob) path(name string) string { return filepath.Join(k.Dir, name) }

// run scores the input into the files out, out.rejects and out.summary.
func (k killedJob) run(out string, threads int, resume bool, progress func(Progress)) error {
	f, err := os.Open(k.path("in"))
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	s, err := Run(context.Background(), Config{
		Model: &sums{}, Schema: testSchema(), Baseline: testBaseline(),
		Input:  Input{Reader: f, Name: "in", Size: st.Size(), Modified: st.ModTime()},
		Output: k.path(out), InFormat: k.In, OutFormat: k.Out, OnError: OnErrorNull, Rejects: k.path(out + ".rejects"), Keep: []string{"id"},
		Batch: 64, Threads: threads, RowGroup: cmp.Or(k.Group, 1000), Resume: resume, Checkpoint: time.Millisecond, Progress: progress,
	})
	if err != nil {
		return err
	}
	s.Seconds, s.Rate, s.Output = 0, 0, ""
	raw, err := json.Marshal(s)
	return errors.Join(err, os.WriteFile(k.path(out+".summary"), raw, 0o600))
}

// testBaseline is one over the test schema's inputs.
func testBaseline() *sketch.Baseline {
	b, err := sketch.NewBuilder(testSchema())
	if err != nil {
		panic(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	rows := &sketch.Batch{Rows: 1000, Classes: 2, Inputs: []sketch.Tensor{{Name: "X", Shape: []int64{3}, Width: 3}}}
	for range 1000 {
		for range 3 {
			rows.Inputs[0].Data = append(rows.Inputs[0].Data, rng.Float32())
		}
		p := rng.Float32()
		rows.Scores = append(rows.Scores, p, 1-p)
	}
	if err := b.Add(rows); err != nil {
		panic(err)
	}
	base, err := b.Baseline()
	if err != nil {
		panic(err)
	}
	return base
}

// child goes on with a job. It reads a byte before every chunk but the first and
// writes one after: so the test decides how far it comes.
func child(raw string) int {
	var k killedJob
	err := json.Unmarshal([]byte(raw), &k)
	tokens := bufio.NewReader(os.Stdin)
	if err == nil && k.Room > 0 {
		err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: k.Room, Max: k.Room})
	}
	if err == nil {
		err = k.run("out", 2, true, func(Progress) {
			os.Stdout.WriteString(".")
			_, _ = tokens.ReadByte() // the end of the input lets it run on
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// attempt lets a child write some chunks and a checkpoint, then some more, and
// kills it in the middle of them. It reports whether the child ended before.
func (k killedJob) attempt(t *testing.T, rng *rand.Rand) (ended bool) {
	t.Helper()
	cmd, tokens, dots := k.start(t)
	defer cmd.Process.Kill()
	before := k.checkpointRow()
	grant := func(n int) bool {
		_, _ = tokens.Write(bytes.Repeat([]byte("."), n)) // a child that ended takes none
		_, err := io.CopyN(io.Discard, dots, int64(n))
		return err == nil
	}
	alive := true
	for tries := 0; alive && k.checkpointRow() <= before; tries++ {
		if tries > 100 {
			t.Fatal("the child writes no checkpoint")
		}
		alive = grant(20 + rng.IntN(20))
		// Another process waits for the disk meanwhile.
		for deadline := time.Now().Add(time.Second); alive && k.checkpointRow() <= before && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
	}
	if alive {
		n := 1 + rng.IntN(40)
		_, _ = tokens.Write(bytes.Repeat([]byte("."), n))
		_, _ = io.CopyN(io.Discard, dots, int64(rng.IntN(n)))
		cmd.Process.Kill()
	}
	tokens.Close()
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) && exit.Exited() {
		t.Fatalf("the child failed: %v", err)
	}
	return cmd.ProcessState.Success()
}

// start starts a child.
func (k killedJob) start(t *testing.T) (cmd *exec.Cmd, tokens io.WriteCloser, dots io.Reader) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), envChild+"="+marshal(t, k))
	cmd.Stderr = os.Stderr
	if tokens, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if dots, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, tokens, dots
}

// checkpointRow is where a run would go on, −1 when there is no checkpoint.
func (k killedJob) checkpointRow() int64 {
	raw, err := os.ReadFile(k.path("out.checkpoint"))
	if err != nil {
		return -1
	}
	var cp checkpoint
	if err := json.Unmarshal(raw, &cp); err != nil {
		panic(err) // it is replaced in one step
	}
	return cp.Input.Row
}

// TestKilled kills a scoring process again and again, at random moments, and
// goes on in another: no row twice, none missing, the same bytes, the same
// report, whatever the number of threads.
func TestKilled(t *testing.T) {
	rows := 20_000
	if os.Getenv("VEDETTE_FULL") != "" {
		rows = 1_000_000
	}
	for _, k := range []killedJob{
		{In: CSV, Out: CSV},
		{In: JSONLines, Out: JSONLines},
		{In: Parquet, Out: Parquet},
		{In: "csv.gz", Out: Parquet},
		{In: CSV, Out: Parquet, Group: 64}, // a group is full with every chunk, so a kill cannot move its end
	} {
		t.Run(fmt.Sprint(k.In, " to ", k.Out, " ", k.Group), func(t *testing.T) {
			k.Dir = t.TempDir()
			k.write(t, rows)
			if k.In == "csv.gz" {
				k.In = CSV
			}
			if err := k.run("want", 3, false, nil); err != nil {
				t.Fatal(err)
			}
			k.killUntilDone(t)
			for _, name := range []string{"", ".rejects"} {
				got, want := k.read(t, "out"+name), k.read(t, "want"+name)
				if k.Out == Parquet && k.Group == 0 && name == "" {
					// The row groups may differ where a kill came late.
					got, want = predictionsText(t, got), predictionsText(t, want)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("out%s has %d bytes and is not as that of an unbroken run of %d", name, len(got), len(want))
				}
			}
			k.compareSummaries(t)
			if left, _ := filepath.Glob(k.path("*.part")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// TestNoRoom goes on after a disk was full in the middle of a write.
func TestNoRoom(t *testing.T) {
	for _, k := range []killedJob{{In: CSV, Out: CSV}, {In: CSV, Out: JSONLines}, {In: Parquet, Out: Parquet}} {
		k.Dir = t.TempDir()
		k.write(t, 8000)
		if err := k.run("want", 2, false, nil); err != nil {
			t.Fatal(err)
		}
		k.Room = uint64(len(k.read(t, "want"))) / 2
		cmd, tokens, dots := k.start(t)
		for tries := 0; k.checkpointRow() < 0 && tries < 1000; tries++ {
			_, _ = tokens.Write([]byte("."))
			time.Sleep(time.Millisecond) // another process waits for the disk
		}
		tokens.Close()
		if _, err := io.Copy(io.Discard, dots); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Fatalf("%s: a file of half its size is complete", k.Out)
		}
		k.Room = 0
		if err := k.run("out", 2, true, nil); err != nil {
			t.Fatal(err)
		}
		got, want := k.read(t, "out"), k.read(t, "want")
		if k.Out == Parquet {
			got, want = predictionsText(t, got), predictionsText(t, want)
		}
		if !bytes.Equal(got, want) || !bytes.Equal(k.read(t, "out.rejects"), k.read(t, "want.rejects")) {
			t.Errorf("%s: not the rows of an unbroken run", k.Out)
		}
	}
}

// killUntilDone kills children until one is allowed to end.
func (k killedJob) killUntilDone(t *testing.T) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 8 {
		if k.attempt(t, rng) {
			return
		}
	}
	cmd, tokens, dots := k.start(t)
	tokens.Close()
	if _, err := io.Copy(io.Discard, dots); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func (k killedJob) read(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(k.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func predictionsText(t *testing.T, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range readPredictions(t, raw) {
		fmt.Fprintln(&b, p.Row, p.ID, orNull(p.Class), orNull(p.Label), orNull(p.Low), orNull(p.High))
	}
	return b.Bytes()
}

func orNull[T any](v *T) string {
	if v == nil {
		return "null"
	}
	return fmt.Sprint(*v)
}

// compareSummaries checks that nothing but the beginning differs.
func (k killedJob) compareSummaries(t *testing.T) {
	t.Helper()
	var got, want Summary
	for name, s := range map[string]*Summary{"out": &got, "want": &want} {
		if err := json.Unmarshal(k.read(t, name+".summary"), s); err != nil {
			t.Fatal(err)
		}
	}
	if got.Resumed == 0 {
		t.Error("no run went on where another was killed")
	}
	got.Resumed = 0
	if g, w := marshal(t, got), marshal(t, want); g != w {
		t.Errorf("summary\n%s\nwant\n%s", g, w)
	}
	if want.Report == nil || want.Report.Rows != uint64(want.Scored) || want.Report.Apart == 0 {
		t.Errorf("report %+v of rows that are unlike training", want.Report)
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// write makes the input: some rows cannot be scored.
func (k killedJob) write(t *testing.T, rows int) {
	t.Helper()
	f, err := os.Create(k.path("in"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if k.In == Parquet {
		list := someReadings(rows)
		for r := range list {
			if r%1000 == 7 {
				list[r].B = -1000
			}
		}
		if _, err := f.Write(writeParquet(t, list)); err != nil {
			t.Fatal(err)
		}
		return
	}
	var w io.WriteCloser = f
	if k.In == "csv.gz" {
		w = gzip.NewWriter(f)
		defer w.Close()
	}
	b := bufio.NewWriter(w)
	if k.In != JSONLines {
		b.WriteString("id,a,b,c\n")
	}
	for r := range rows {
		bad := ""
		if r%1000 == 7 {
			bad = "?"
		}
		if k.In == JSONLines {
			fmt.Fprintf(b, `{"id":"row-%d","a":%d%s,"b":0.5,"c":1}`+"\n", r, r, bad)
		} else {
			fmt.Fprintf(b, "row-%d,%d%s,0.5,1\n", r, r, bad)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
}
