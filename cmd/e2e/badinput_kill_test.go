package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// An update goes wrong in every way at once: its files are tampered with on the
// server; then the device is killed while it downloads, tries and activates it.
// What served before serves after every start, before anything needs the
// network; in the end the new version does, and no prediction was lost.
func TestUpdateThatIsTamperedWithAndKilled(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.settings()
	line := newValve(t, p.where.Devices)
	c := p.enrolled("cam-1", p.path("cam-1"), "--device-api", "https://"+line.listener.Addr().String())
	c.boot()
	v1, v2 := p.published("1"), p.published("2")
	p.ends(p.rollOut("1"), operator.RolloutCompleted)
	c.serves(time.Second, v1)

	c.refusesTampered()
	c.serves(time.Second, v1)
	c.counted()

	const part = 40 << 10 // of a graph of 70 KB
	line.close(part)
	forth := p.rollOut("2")
	c.killedIn("downloading", v1, func() bool { return c.parts() > 0 })
	line.open()
	c.killedIn("trialing", v1, nil)
	p.ends(forth, operator.RolloutCompleted)
	c.serves(time.Second, v2)
	c.counted()

	back := p.rollOut("1")
	c.killedIn("activating", release.Digest{}, nil) // either may serve after this one
	p.ends(back, operator.RolloutCompleted)
	c.serves(time.Second, v1)
	c.eventually(20*time.Second, "nothing but the release that serves and the one before it to be kept", func() error {
		folders, err := filepath.Glob(filepath.Join(c.state, "models", "digits", "*", "manifest.json"))
		if err == nil && (len(folders) != 2 || c.parts() != 0) {
			err = fmt.Errorf("there are %q and %d bytes of parts", folders, c.parts())
		}
		return err
	})
	c.agent.stop()
	c.counted()
}

// refusesTampered has the server deliver another graph than was signed.
func (c *camera) refusesTampered() {
	c.t.Helper()
	v, err := c.client.Version(c.t.Context(), "digits", "2")
	if err != nil {
		c.t.Fatal(err)
	}
	graph := v.Manifest.Variants[0].Graph.Digest.String()
	found, err := filepath.Glob(c.path("control", "blobs", "*", graph))
	if err != nil || len(found) != 1 {
		c.t.Fatalf("the graph on the server: %q, %v", found, err)
	}
	good := c.read(strings.TrimPrefix(found[0], c.dir))
	c.change("wrong", strings.TrimPrefix(found[0], c.dir))
	id := c.rollOut("2")
	ro := c.ends(id, operator.RolloutHalted)
	if u, err := c.update(); err != nil || u.Code != "digest_mismatch" || !strings.Contains(u.Message, "content differs from the signed digest") {
		c.t.Errorf("the device says %+v, %v", u, err)
	}
	if wave := ro.WaveList[0].Devices[0]; wave.Code != "digest_mismatch" {
		c.t.Errorf("the rollout says %+v", wave)
	}
	c.write([]byte(good), strings.TrimPrefix(found[0], c.dir))
	c.vedette("rollout", "abort", id, "--reason", "the server's disk was at fault").ok()
}

// parts are the bytes of files that have not arrived as a whole.
func (c *camera) parts() (n int64) {
	found, _ := filepath.Glob(filepath.Join(c.state, "models", "digits", "*", "*.part")) // a pattern that is good
	for _, f := range found {
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return n
}

// killedIn kills the agent in a state of its update and starts it again. What
// was counted before is on the server first, so nothing may be missing at the
// end. want serves then; the zero digest leaves that open.
func (c *camera) killedIn(state string, want release.Digest, also func() bool) {
	c.t.Helper()
	journal := filepath.Join(c.state, "journal", "model-digits.json")
	sign := fmt.Sprintf(`"state": %q`, state)
	is := func() error {
		raw, err := os.ReadFile(journal)
		if err == nil && !strings.Contains(string(raw), sign) {
			err = fmt.Errorf("the journal says %s", raw)
		}
		return err
	}
	c.watch(time.Millisecond, 30*time.Second, "the update to be "+state, func() error { // some states last no longer
		if also != nil && !also() {
			return errors.New("not yet")
		}
		return is()
	})
	c.agent.kill()
	if err := is(); err != nil {
		c.t.Logf("killed a moment after %s: %v", state, err)
	}
	c.boot()
	s, err := c.status()
	if err != nil || !s.Agent.Unclean {
		c.t.Errorf("the start after a kill while %s: %+v, %v", state, s.Agent, err)
	}
	if want.IsZero() {
		return
	}
	// The very first request after a start is answered, by what served before.
	if u, err := c.update(); err != nil || u.Active != want.String() {
		c.t.Errorf("after a kill while %s: %+v, %v", state, u, err)
	}
	if err := c.infer(); err != nil {
		c.t.Errorf("after a kill while %s: %v", state, err)
	}
	c.counted()
}

// counted waits until the control plane has all rows that were answered.
func (c *camera) counted() {
	c.t.Helper()
	c.eventually(20*time.Second, "the server to have what was answered", func() error {
		rows, lost, err := c.serverRows()
		if err == nil && (rows != c.rows || lost != 0) {
			err = fmt.Errorf("it has %d rows of %d, %d lost", rows, c.rows, lost)
		}
		return err
	})
}

// valve is a line to the device API that can be closed after some bytes.
type valve struct {
	listener net.Listener
	conns    sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	change *sync.Cond
	left   int64 // bytes that still pass, if closing
	shut   bool  // counts left
	ended  bool
}

func newValve(t *testing.T, backend string) *valve {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{listener: l}
	v.change = sync.NewCond(&v.mu)
	v.conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			v.conns.Go(func() { v.carry(conn, backend) })
		}
	})
	t.Cleanup(func() {
		v.set(func() { v.ended = true })
		l.Close()
		v.conns.Wait()
	})
	return v
}

func (v *valve) set(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
	v.change.Broadcast()
}

// close lets so many more bytes through to the device, and then none.
func (v *valve) close(after int64) { v.set(func() { v.shut, v.left = true, after }) }

func (v *valve) open() { v.set(func() { v.shut = false }) }

// pass waits until n bytes may go to the device.
func (v *valve) pass(n int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.shut && v.left < n && !v.ended {
		v.change.Wait()
	}
	if v.ended {
		return net.ErrClosed
	}
	v.left -= n
	return nil
}

func (v *valve) carry(device net.Conn, backend string) {
	defer device.Close()
	server, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	v.conns.Go(func() {
		_, _ = io.Copy(server, device) // ends with either connection
		server.Close()
	})
	defer server.Close()
	buffer := make([]byte, 4<<10)
	for {
		n, err := server.Read(buffer)
		if n > 0 {
			if err := v.pass(int64(n)); err != nil {
				return
			}
			if _, err := device.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
