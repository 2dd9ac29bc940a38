package score

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
)

// envChild tells this test program to be the process that is killed.
const envChild = "VEDETTE_SCORE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envChild); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

// child scores dir/in into dir/out, one batch for every byte on standard input.
func child(dir string) int {
	steps := bufio.NewReader(os.Stdin)
	m := &sums{}
	_, err := scoreFile(dir, modelRun(func(ctx context.Context, rows int, in, out []infer.Tensor) error {
		if _, err := steps.ReadByte(); err != nil {
			return err
		}
		return m.Run(ctx, rows, in, out)
	}), false)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type modelRun func(ctx context.Context, rows int, in, out []infer.Tensor) error

func (f modelRun) Run(ctx context.Context, rows int, in, out []infer.Tensor) error {
	return f(ctx, rows, in, out)
}

func scoreFile(dir string, m Model, resume bool) (Summary, error) {
	f, err := os.Open(filepath.Join(dir, "in"))
	if err != nil {
		return Summary{}, err
	}
	defer f.Close()
	return Run(context.Background(), Config{
		Model: m, Schema: testSchema(), Input: Input{Reader: f, Name: "in"}, Output: filepath.Join(dir, "out"),
		InFormat: CSV, OutFormat: CSV, OnError: OnErrorNull, Batch: 16, Resume: resume,
	})
}

// TestKilled kills a scoring process with SIGKILL between two checkpoints and
// goes on in another: no row twice, none missing.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	const rows = 100_000
	var in, want bytes.Buffer
	in.WriteString("a,b,c\n")
	want.WriteString("row,class,label,scores_low,scores_high\n")
	for r := 1; r <= rows; r++ {
		if r%1000 == 7 {
			in.WriteString("1,?,3\n")
			fmt.Fprintf(&want, "%d,,,,\n", r)
			continue
		}
		fmt.Fprintf(&in, "%d,0,1\n", r+1000)
		fmt.Fprintf(&want, "%d,high,1,0,%d\n", r, r+1001)
	}
	if err := os.WriteFile(filepath.Join(dir, "in"), in.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	killAfterCheckpoint(t, dir)
	s, err := scoreFile(dir, &sums{}, true)
	if err != nil {
		t.Fatal(err)
	}
	if s.Resumed == 0 || s.Rows != rows || s.Scored+s.Nulls != rows {
		t.Errorf("summary %+v", s)
	}
	got, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		g, w := bytes.Split(got, []byte("\n")), bytes.Split(want.Bytes(), []byte("\n"))
		for i := range g {
			if !bytes.Equal(g[i], w[i]) {
				t.Fatalf("line %d is %q, want %q", i+1, g[i], w[i])
			}
		}
		t.Errorf("the result has %d bytes and differs from the expected %d", len(got), want.Len())
	}
}

// killAfterCheckpoint lets a child work until it has written a checkpoint and
// some batches more.
func killAfterCheckpoint(t *testing.T, dir string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envChild+"="+dir)
	cmd.Stderr = os.Stderr
	steps, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	deadline := time.Now().Add(30 * time.Second)
	for more := 3; more > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the child wrote no checkpoint")
		}
		if _, err := io.WriteString(steps, "."); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond) // another process works: 16 rows each time
		if _, err := os.Stat(filepath.Join(dir, "out.checkpoint")); err == nil {
			more--
		}
	}
}
