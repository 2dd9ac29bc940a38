package dashboard

import (
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// pageLength is how many rows a list shows at one time.
const pageLength = 100

// devicesView is the list of devices.
type devicesView struct {
	*operator.Page[operator.Device]

	Query  operator.DeviceQuery
	Models []operator.Model
	Next   string // address of the next page
}

func (s *Server) devices(ctx context.Context, r *request) (string, *page, error) {
	q := operator.DeviceQuery{}
	values := r.URL.Query()
	dropEmpty(values)
	if err := operator.DecodeQuery(values, &q); err != nil {
		return "", nil, err
	}
	q.Limit = pageLength
	list, err := s.cfg.Service.Devices(ctx, q)
	if err != nil {
		return "", nil, err
	}
	models, err := s.cfg.Service.Models(ctx)
	if err != nil {
		return "", nil, err
	}
	v := devicesView{Page: list, Query: q, Models: models}
	if list.Next != "" {
		q.Cursor, q.Limit = list.Next, 0
		v.Next = "/devices?" + operator.EncodeQuery(q).Encode()
	}
	return "devices", &page{Title: "Devices", Section: "devices", Live: "#list", Kinds: "device,rollout,alarm", Data: v}, nil
}

// dropEmpty takes empty parameters out: a form sends its empty fields too.
func dropEmpty(values url.Values) {
	for name, given := range values {
		if len(given) == 1 && given[0] == "" {
			values.Del(name)
		}
	}
}

// deviceView is everything about one device.
type deviceView struct {
	*operator.DeviceDetail

	Models   []modelOnDevice
	Drift    []deviceDrift
	Rollouts []deviceInWave
}

// deviceInWave is a device's place in a rollout and why it is there.
type deviceInWave struct {
	operator.DeviceInWave

	Why string
}

// whyShown bounds the rollouts of a device that are explained, the newest first.
const whyShown = 5

// places adds why the device is where it is in its rollouts. What cannot be
// explained is still worth showing.
func (s *Server) places(ctx context.Context, d *operator.DeviceDetail) []deviceInWave {
	out := make([]deviceInWave, len(d.Rollouts))
	for i, r := range d.Rollouts {
		out[i].DeviceInWave = r
		if i < whyShown {
			if x, err := s.cfg.Service.RolloutDevice(ctx, r.Rollout, d.ID); err == nil {
				out[i].Why = x.Why
			}
		}
	}
	return out
}

// modelOnDevice is one model with the steps of its update.
type modelOnDevice struct {
	operator.DeviceModel

	Steps []step
}

// step is one state of the update machine: done, now, or to come.
type step struct {
	Name string
	Is   string
}

// updateSteps are the states on the way to a new version.
var updateSteps = []string{"resolving", "downloading", "verifying", "trialing", "activating", "watching"}

func stepsOf(state string) []step {
	at := slices.Index(updateSteps, state)
	out := make([]step, len(updateSteps))
	for i, name := range updateSteps {
		out[i] = step{Name: name, Is: "next"}
		if at >= 0 && i < at {
			out[i].Is = "done"
		}
	}
	if at >= 0 {
		out[at].Is = "now"
	}
	return out
}

// Underway says whether the device is changing its version.
func (m modelOnDevice) Underway() bool { return m.State != "idle" && m.State != "" }

// Share is how much of the download is done, 0 to 100.
func (m modelOnDevice) Share() float64 {
	if m.TotalBytes == 0 {
		return 0
	}
	return 100 * min(1, float64(m.DoneBytes)/float64(m.TotalBytes))
}

// deviceDrift is a device's inputs in two pictures, and what stands out.
type deviceDrift struct {
	operator.DeviceDrift

	Training, Cohort heat
	Worst            []operator.DriftCell
	Outputs          []operator.DriftCell
}

func driftOfDevice(d operator.DeviceDrift) deviceDrift {
	return deviceDrift{
		DeviceDrift: d,
		Training:    inputHeat(d.Device+" against training", d.Cells, againstTraining),
		Cohort:      inputHeat(d.Device+" against the rest of its cohort", d.Cells, againstCohort),
		Worst:       worst(sideOf(d.Cells, "input"), worstShown),
		Outputs:     sideOf(d.Cells, "output"),
	}
}

func (s *Server) device(ctx context.Context, r *request) (string, *page, error) {
	d, err := s.cfg.Service.Device(ctx, r.PathValue("device"))
	if err != nil {
		return "", nil, err
	}
	v := deviceView{DeviceDetail: d, Rollouts: s.places(ctx, d)}
	for _, m := range d.Models {
		v.Models = append(v.Models, modelOnDevice{DeviceModel: m, Steps: stepsOf(m.State)})
	}
	for _, x := range d.Drift {
		v.Drift = append(v.Drift, driftOfDevice(x))
	}
	return "device", &page{
		Title: d.ID, Section: "devices", Live: "#state,#models,#inputs,#books,#events", Kinds: "device,rollout,drift,alarm", Data: v,
	}, nil
}

// Clock says how far the device's clock is off, when that is worth saying.
func (v deviceView) Clock() string {
	off := time.Duration(v.ClockOffsetMS) * time.Millisecond
	switch {
	case off.Abs() < 2*time.Second:
		return "in step"
	case off < 0:
		return formatDuration(-off) + " behind"
	default:
		return formatDuration(off) + " ahead"
	}
}
