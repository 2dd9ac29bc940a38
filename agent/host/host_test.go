package host

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestFacts(t *testing.T) {
	f := Facts(t.TempDir())
	if f.Os != runtime.GOOS || f.Arch != runtime.GOARCH || f.Cpus == 0 {
		t.Errorf("facts %v", f)
	}
	if f.MemoryBytes < 64<<20 || f.DiskBytes == 0 || f.Kernel == "" || f.CpuModel == "" || f.Profile == "" {
		t.Errorf("facts lack something this machine has: %v", f)
	}
	if got := RSS(); got < 1<<20 {
		t.Errorf("resident memory %d", got)
	}
}

func TestDiskOfMissingFolder(t *testing.T) {
	if _, err := Disk("/no/such/folder"); err == nil {
		t.Error("measured a folder that is not there")
	}
}

func TestCPUModel(t *testing.T) {
	const x86 = "processor\t: 0\nmodel name\t: Intel Atom(R) x6425E\nflags\t: a b\n"
	const arm = "processor\t: 0\nBogoMIPS\t: 108.00\nHardware\t: BCM2835\n"
	for _, c := range []struct{ cpuinfo, board, want string }{
		{x86, "", "Intel Atom(R) x6425E"},
		{arm, "", "BCM2835"},
		{arm, "Raspberry Pi 4 Model B Rev 1.4\x00", "Raspberry Pi 4 Model B Rev 1.4"},
		{"", "", ""},
	} {
		if got := cpuModel(c.cpuinfo, c.board); got != c.want {
			t.Errorf("%q with board %q: %q, want %q", c.cpuinfo, c.board, got, c.want)
		}
	}
}

func TestMemInfo(t *testing.T) {
	const text = "MemTotal:        2048 kB\nMemFree:  10 kB\n"
	if got := memInfo(text, "MemTotal"); got != 2<<20 {
		t.Errorf("MemTotal %d, want %d", got, 2<<20)
	}
	if got := memInfo("nonsense", "MemTotal"); got != 0 {
		t.Errorf("nonsense gives %d", got)
	}
}

func TestGPUDrivers(t *testing.T) {
	dir := t.TempDir()
	for card, driver := range map[string]string{"card0": "i915", "renderD128": "i915", "card1": "nouveau"} {
		if err := os.MkdirAll(filepath.Join(dir, card, "device"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../../bus/pci/drivers/"+driver, filepath.Join(dir, card, "device", "driver")); err != nil {
			t.Fatal(err)
		}
	}
	got := gpuDrivers(dir)
	slices.Sort(got)
	if want := []string{"i915", "nouveau"}; !slices.Equal(got, want) {
		t.Errorf("drivers %q, want %q", got, want)
	}
}

func TestBoot(t *testing.T) {
	dir := t.TempDir()
	var ids [][]byte
	for i, c := range []struct{ end, wantUnclean bool }{{true, false}, {false, false}, {true, true}, {true, false}} {
		b, err := StartBoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		if b.Count != uint64(i+1) || b.Unclean != c.wantUnclean {
			t.Errorf("start %d: count %d, unclean %v; want unclean %v", i+1, b.Count, b.Unclean, c.wantUnclean)
		}
		ids = append(ids, b.Stamp().GetBoot())
		if c.end {
			for range 2 {
				if err := b.End(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for i := range ids {
		for k := range i {
			if bytes.Equal(ids[i], ids[k]) {
				t.Errorf("starts %d and %d have the same id", k+1, i+1)
			}
		}
	}
}

// TestDamagedBootMark starts on what a power cut can leave.
func TestDamagedBootMark(t *testing.T) {
	for name, raw := range map[string]string{"empty": "", "zeros": "\x00\x00\x00\x00", "half": `{"count":7,"run`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, bootFile), []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := StartBoot(dir)
		if err != nil || !b.Unclean {
			t.Errorf("%s: %+v, %v; want an unclean start", name, b, err)
		}
	}
	if b, err := StartBoot("/no/such/folder"); !errors.Is(err, ErrUnmarked) || b.Count != 1 || b.Stamp() == nil {
		t.Errorf("where nothing can be written: %+v, %v; want a start and %v", b, err, ErrUnmarked)
	}
}

func TestStamp(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, err := StartBoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(90 * time.Second)
		s := b.Stamp()
		if s.GetMonotonicMs() != 90_000 || s.GetWallMs() != time.Now().UnixMilli() {
			t.Errorf("stamp %v, want 90 s after the start and the time now", s)
		}
		if got := b.StampAt(b.Start().Add(-time.Second)).GetMonotonicMs(); got != 0 {
			t.Errorf("a moment before the start has monotonic %d", got)
		}
	})
}
