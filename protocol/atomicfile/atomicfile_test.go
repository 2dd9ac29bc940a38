package atomicfile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	for _, want := range []string{"first and longer", "second", ""} {
		if err := atomicfile.Write(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("read %q, %v; want %q", got, err, want)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want it for the owner alone", st.Mode(), err)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the folder holds %v", got)
	}
}

// What cannot be put in place leaves nothing behind.
func TestFailedWriteLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("x")); err == nil {
		t.Error("a folder was replaced")
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the folder holds %v", got)
	}
	if err := atomicfile.Write(filepath.Join(dir, "none", "file"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder: %v, want %v", err, fs.ErrNotExist)
	}
	if err := atomicfile.Rename(filepath.Join(dir, "none"), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rename of nothing: %v, want %v", err, fs.ErrNotExist)
	}
}

// Readers see one whole content while many write.
func TestReadersSeeWholeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	content := func(n int) []byte { return fmt.Appendf(nil, "%01000d", n) }
	if err := atomicfile.Write(path, content(0)); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for n := range 8 {
		writers.Go(func() {
			if err := atomicfile.Write(path, content(n)); err != nil {
				t.Error(err)
			}
		})
	}
	for range 100 {
		if got, err := os.ReadFile(path); err != nil || len(got) != 1000 {
			t.Errorf("read %d bytes, %v; want 1000", len(got), err)
		}
	}
	writers.Wait()
}
