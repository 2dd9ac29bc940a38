package history

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// cell is what was counted by one device, or by several together, encoded. It is
// never changed, so it may be read without a lock.
type cell struct {
	devices uint64 // most at the same time
	window  []byte // a body with a window, nil for none
	labels  []byte // nil for none
}

// Tally adds up what cells hold.
type Tally struct {
	Devices uint64 // most that counted in the same hour or day
	// Window and Labels are what all of them counted. They name no model, release,
	// role or time: those are what they were asked for by.
	Window *protocol.Window
	Labels *protocol.Labels
}

// newTally is a tally of nothing.
func newTally() *Tally { return &Tally{Window: &protocol.Window{}, Labels: &protocol.Labels{}} }

// addWindow adds a window, which it keeps. Two over other bins were counted with
// other baselines: the histograms of the one with more rows stay.
func (t *Tally) addWindow(w *protocol.Window) {
	if t.Window.GetMerged() == 0 {
		t.Window = w
		return
	}
	if sketch.MergeWindow(t.Window, w) == nil {
		return
	}
	if w.GetRows() > t.Window.GetRows() {
		t.Window, w = w, t.Window
	}
	w.Streams = nil
	_ = sketch.MergeWindow(t.Window, w) // sketches that bareWindow has looked at
}

// addLabels adds truths, without what cannot be added.
func (t *Tally) addLabels(l *protocol.Labels) {
	if sketch.MergeLabels(t.Labels, l) == nil {
		return
	}
	l.Confusion, l.Calibration = nil, nil
	_ = sketch.MergeLabels(t.Labels, l) // plain counts of one model, release and role
}

// add adds a cell's counts and not its devices.
func (t *Tally) add(c cell) error {
	if len(c.window) > 0 {
		b, err := sketch.DecodeBody(c.window)
		if err != nil {
			return fmt.Errorf("read a window of the history: %w", err)
		}
		t.addWindow(b.GetWindow())
	}
	if len(c.labels) > 0 {
		l := &protocol.Labels{}
		if err := proto.Unmarshal(c.labels, l); err != nil {
			return fmt.Errorf("read labels of the history: %w", err)
		}
		t.addLabels(l)
	}
	return nil
}

// beside adds a cell of other devices in the same time.
func (t *Tally) beside(c cell) error {
	t.Devices += c.devices
	return t.add(c)
}

// after adds a cell of the same devices in another time.
func (t *Tally) after(c cell) error {
	t.Devices = max(t.Devices, c.devices)
	return t.add(c)
}

func (t *Tally) cell() (c cell, err error) {
	c.devices = t.Devices
	if t.Window.GetMerged() > 0 {
		if c.window, err = sketch.EncodeBody(&protocol.Body{Kind: &protocol.Body_Window{Window: t.Window}}); err != nil {
			return cell{}, err
		}
	}
	if proto.Size(t.Labels) > 0 {
		if c.labels, err = proto.Marshal(t.Labels); err != nil {
			return cell{}, fmt.Errorf("encode labels: %w", err)
		}
	}
	return c, nil
}

// bareWindow is a window without what its key says and without its times, which
// would be a device's own.
func bareWindow(w *protocol.Window) *protocol.Window {
	out := &protocol.Window{
		Rows: w.GetRows(), Calls: w.GetCalls(), FailedCalls: w.GetFailedCalls(), FailedRows: w.GetFailedRows(),
		Streams: w.GetStreams(), Merged: max(w.GetMerged(), 1),
	}
	if _, err := sketch.DecodeLatency(w.GetLatency()); err == nil {
		out.Latency = w.GetLatency()
	}
	if _, err := sketch.DecodeDistinct(w.GetDistinct()); err == nil {
		out.Distinct = w.GetDistinct()
	}
	return out
}

func bareLabels(l *protocol.Labels) *protocol.Labels {
	return &protocol.Labels{
		Matched: l.GetMatched(), Unmatched: l.GetUnmatched(), Correct: l.GetCorrect(),
		Confusion: l.GetConfusion(), Calibration: l.GetCalibration(),
	}
}
