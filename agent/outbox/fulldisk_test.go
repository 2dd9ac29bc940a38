package outbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/vedette-edge/vedette/protocol"
)

// child tells a test that it runs again as a child process.
const child = "VEDETTE_TEST_SMALL_DISK"

// onSmallDisk runs the test again in a child process that has mounts of its own.
// There it makes a file system of so many bytes and returns its folder; the
// parent gets none, and has nothing more to do.
func onSmallDisk(t *testing.T, size int) (dir string) {
	t.Helper()
	if os.Getenv(child) != "" {
		dir := t.TempDir()
		if err := syscall.Mount("small", dir, "tmpfs", 0, "size="+strconv.Itoa(size)); err != nil {
			t.Fatalf("mount a small disk: %v", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
		t.Skipf("a small disk needs user namespaces (sysctl kernel.unprivileged_userns_clone=1, or root): %v", err)
	}
	if err != nil {
		t.Errorf("on a small disk: %v\n%s", err, out)
	}
	return ""
}

// fill leaves no byte of the disk free, but for what is set aside already.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "hog")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := 1 << 20; chunk > 0; {
		if _, err := f.Write(make([]byte, chunk)); err != nil {
			chunk /= 2
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// On a disk without a single free byte what waits is numbered, sent,
// acknowledged and shrunk away all the same; only then it gets too tight for
// new records, which says so, and it goes on by itself when there is space.
func TestDiskWithoutAFreeByte(t *testing.T) {
	dir := onSmallDisk(t, 24<<20)
	if dir == "" {
		return
	}
	path := filepath.Join(dir, "outbox.db")
	o, _ := open(t, path, Options{})
	big := func(rows uint64) *protocol.Body {
		b := window("m", rows, int64(rows)*hour)
		b.GetWindow().Distinct = make([]byte, 3000)
		b.GetWindow().Distinct[0] = 2
		return b
	}
	const n = 1000
	for i := range uint64(n) {
		if err := o.Append(big(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	free := fill(t, dir)
	server := receiver{}
	for range n {
		records, err := o.Send(protocol.MaxSent)
		if err != nil {
			t.Fatalf("Send on a full disk, %d records waiting: %v", o.Stats().Pending, err)
		}
		if len(records) == 0 {
			break
		}
		for _, r := range records {
			if err := server.take(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := o.Ack(server.ack()); err != nil {
			t.Fatalf("Ack on a full disk: %v", err)
		}
		fill(t, dir)                                                                  // whoever fills the disk takes what becomes free
		if waits := o.Stats().Pending; waits < n/2 && waits >= n/2-protocol.MaxSent { // once
			o.Close()
			o, _ = open(t, path, Options{})
		}
	}
	if want := (Sum{Rows: n * (n + 1) / 2}); server.held != want {
		t.Fatalf("the server holds %+v of %+v", server.held, want)
	}
	if st := o.Stats(); st.File > 5<<20 {
		t.Errorf("the file was not shrunk: %d bytes with %d live", st.File, st.Bytes)
	}
	taken := takenUntilFull(t, o, big)
	if o.Stats().Error == nil {
		t.Error("stats do not say that the disk is full")
	}
	free()
	if err := o.Append(big(1)); err != nil {
		t.Fatalf("after space was made: %v", err)
	}
	taken.Rows++
	if err := o.Stats().Error; err != nil {
		t.Errorf("stats say %v after space was made", err)
	}
	o.Close()
	o, s := open(t, path, Options{})
	if s != nil {
		t.Errorf("a full disk was taken for damage: %+v", s)
	}
	if held, lost, unknown := drainAll(t, o); held != taken || lost != (Sum{}) || unknown {
		t.Errorf("held %+v and lost %+v of the %+v that were taken", held, lost, taken)
	}
}

// takenUntilFull appends until the disk takes no more, and returns what it took.
func takenUntilFull(t *testing.T, o *Outbox, body func(rows uint64) *protocol.Body) (taken Sum) {
	t.Helper()
	for i := range uint64(100_000) {
		err := o.Append(body(i + 1))
		if err == nil {
			taken.Rows += i + 1
			continue
		}
		if !errors.Is(err, ErrFull) || !errors.Is(err, ErrStorage) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("got %v, want ErrFull", err)
		}
		return taken
	}
	t.Fatal("the disk is never full")
	return taken
}

// A disk that is read-only, as a worn card becomes, costs nothing that it holds:
// the device starts, says so, sends what is numbered, and goes on when it can.
func TestReadOnlyDisk(t *testing.T) {
	dir := onSmallDisk(t, 24<<20)
	if dir == "" {
		return
	}
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("small", dir, "tmpfs", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "outbox.db")
	o, _ := open(t, path, Options{})
	if err := o.Append(window("m", 1, 0), window("m", 2, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Send(1); err != nil {
		t.Fatal(err)
	}
	o.Close()
	remount(syscall.MS_RDONLY)
	o, s := open(t, path, Options{})
	if s != nil {
		t.Errorf("a read-only disk was taken for damage: %+v", s)
	}
	for range 3 {
		if err := o.Append(window("m", 4, 0)); !errors.Is(err, ErrReadOnly) || !errors.Is(err, ErrStorage) {
			t.Fatalf("got %v, want ErrReadOnly", err)
		}
	}
	records, err := o.Send(protocol.MaxSent)
	if got := tally(t, records); !errors.Is(err, ErrReadOnly) || got != (Sum{Rows: 1}) {
		t.Errorf("sent %+v, %v; want what was numbered before", got, err)
	}
	if _, _, err := Open(path, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("second process: %v, want ErrInUse", err)
	}
	remount(0)
	if err := o.Append(window("m", 8, 0)); err != nil {
		t.Fatalf("after it was mounted for writing: %v", err)
	}
	if got := tally(t, send(t, o)); got != (Sum{Rows: 11}) {
		t.Errorf("sends %+v, want 1, 2 and 8 rows", got)
	}
}

// A new device whose disk takes nothing yet starts, and writes when it can.
func TestFirstStartOnAFullDisk(t *testing.T) {
	dir := onSmallDisk(t, 2<<20)
	if dir == "" {
		return
	}
	free := fill(t, dir)
	o, _ := open(t, filepath.Join(dir, "outbox.db"), Options{})
	if err := o.Append(window("m", 1, 0)); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	free()
	if err := o.Append(window("m", 2, 0)); err != nil {
		t.Fatal(err)
	}
	if got := tally(t, send(t, o)); got != (Sum{Rows: 2}) {
		t.Errorf("sends %+v, want 2 rows", got)
	}
}
