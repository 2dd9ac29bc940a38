package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// A device whose disk is full goes on serving, says what is wrong where people
// look, takes no update, loses nothing that it answered, and goes on by itself
// when there is room again.
func TestFullDiskOfADevice(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system of its own to fill it, which takes root")
	}
	p := newPlant(t)
	p.settings()
	state := p.path("cam-1")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", state, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("mounts a file system of its own to fill it: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(state, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	c := p.enrolled("cam-1", state)
	c.boot()
	v1, v2 := p.published("1"), p.published("2")
	p.ends(p.rollOut("1"), operator.RolloutCompleted)
	c.serves(time.Second, v1)
	c.counted()

	ballast := c.fill()
	id := p.rollOut("2")
	before := c.rows
	c.eventually(20*time.Second, "people to be told", func() error {
		if err := c.infer(); err != nil { // at every look
			return stop{err}
		}
		return c.tellsOfFullDisk()
	})
	c.serves(time.Second, v1)
	if c.rows-before < 100 {
		t.Errorf("only %d rows were read with a full disk", c.rows-before)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	p.ends(id, operator.RolloutCompleted)
	c.serves(time.Second, v2)
	c.counted()
	c.eventually(20*time.Second, "the mark to go", func() error {
		d, err := c.client.Device(t.Context(), c.id)
		if err == nil && marked(d, operator.MarkDiskFull) {
			err = fmt.Errorf("marks are %v", d.Marks)
		}
		return err
	})

	// It also starts with a full disk, after a power cut.
	ballast = c.fill()
	c.agent.kill()
	c.boot()
	c.serves(time.Second, v2)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c.counted()
	c.agent.stop()
}

// fill leaves no byte free on the device's disk.
func (c *camera) fill() (ballast string) {
	c.t.Helper()
	ballast = c.state + "/ballast"
	f, err := os.Create(ballast)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		c.t.Fatalf("fill the disk: %v", err)
	}
	return ballast
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// tellsOfFullDisk looks where people do: at the agent's log and at the device
// on the control plane.
func (c *camera) tellsOfFullDisk() error {
	log := c.agent.said()
	if err := c.agent.died(); err != nil {
		return err
	}
	const advice = "not enough room on the device's disk: free some, it goes on by itself"
	if !strings.Contains(log, advice) {
		return fmt.Errorf("the log lacks %q:\n%s", advice, log)
	}
	shown := c.run("vedette-agent", "status", "--listen", c.listen).ok()
	if !strings.Contains(shown, advice) {
		return fmt.Errorf("vedette-agent status does not say so:\n%s", shown)
	}
	d, err := c.client.Device(c.t.Context(), c.id)
	switch {
	case err != nil:
		return err
	case !marked(d, operator.MarkDiskFull):
		return fmt.Errorf("the control plane believes that %d bytes are free, marks are %v", d.DiskFreeBytes, d.Marks)
	case len(d.Models) != 1 || !strings.Contains(d.Models[0].Waiting, advice):
		return fmt.Errorf("the control plane does not know why the update waits: %+v", d.Models)
	}
	return nil
}
