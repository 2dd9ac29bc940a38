package rollout

import (
	"fmt"
	"time"
)

// Codes of devices that the engine gives itself; others come from devices.
const (
	CodeGolden     = "golden_mismatch" // as reported by devices
	CodeCrashLoop  = "crash_loop"      // as reported by devices
	CodeRevoked    = "revoked"
	CodeHeld       = "other_rollout"
	CodeUnselected = "not_selected"
	CodeDeadline   = "deadline"
	CodeNotRunning = "not_running"
	CodeNotServing = "not_serving"
	CodeWithdrawn  = "offer_withdrawn"
	CodeRolledBack = "rolled_back"
	CodeReplaced   = "replaced"
	CodeOvertaken  = "overtaken" // it went active before the withdrawal reached it
)

// neutral are codes with which a device says that it cannot run a release at
// all: that speaks about the device, not about the release. Any other refusal
// counts as a failure.
var neutral = map[string]bool{
	CodeAgent: true, CodeRuntime: true, CodeMemory: true, CodeVariant: true,
	"incompatible": true,
}

// observe takes in what devices report.
func (t *turn) observe() {
	if !t.GoesOn() {
		return
	}
	for _, id := range t.find(t.stirs) {
		switch d, f := t.device(id), t.facts.device(id); {
		case t.lost(&d, &f):
			t.move(id, DeviceSuperseded, CodeHeld, f.taker()+" has taken it over")
		case d.State == DeviceSuperseded:
			t.move(id, DeviceActive, "", "the rollout that had taken it over has given it back")
		case d.Order.Kind == Forward:
			t.observeForward(id, d, f)
		case d.Order.Kind == Back:
			t.observeBack(id, d, f)
		case d.Order.Kind == Beside:
			t.observeBeside(id, d, f)
		}
	}
}

// stirs says that the facts show a device in another state than its record.
// Of most devices they do not, so only those that do are put in order.
func (t *turn) stirs(_ string, d *Device, f *DeviceFacts) bool {
	switch {
	case f == nil || d.Already:
		return false
	case t.lost(d, f):
		return d.ours() && !d.State.out() && (d.Order.Kind.on() || !d.Home)
	case d.State == DeviceSuperseded:
		return t.givenBack(d, f)
	case d.Order.Kind == Forward:
		to, code, _ := t.seen(*d, f)
		return f.Revoked || f.Holder != "" || to != d.State || code != d.Code
	case d.Order.Kind == Beside:
		return besideStirs(d, f)
	case d.Order.Kind == Back:
		return f.Revoked || !d.Home || f.Active == t.Spec.Release
	}
	return false
}

func (t *turn) observeForward(id string, d Device, f DeviceFacts) {
	switch {
	case f.Revoked:
		t.move(id, DeviceSuperseded, CodeRevoked, "revoked or cloned: nothing it says is taken")
	case f.Holder != "":
		t.move(id, DeviceSuperseded, CodeHeld, "rollout "+f.Holder+" has taken it over")
	default:
		to, code, why := t.seen(d, &f)
		if to != d.State || code != d.Code {
			t.move(id, to, code, why)
		}
	}
}

// seen is the state that the facts show a device in which was told to run the
// release.
func (t *turn) seen(d Device, f *DeviceFacts) (to DeviceState, code, why string) {
	serving := f.Active == t.Spec.Release && f.Serving
	if o, ended := f.ended(d.Order.Seq); ended && !serving {
		return o.state(), o.Code, o.Message
	}
	on := f.Active == t.Spec.Release
	switch {
	case serving:
		return t.seenServing(d, f)
	case on && d.State.arrived():
		return DeviceActive, CodeNotServing, "the release is active but does not answer"
	case d.State.arrived() && f.Reported.After(d.Since):
		return DeviceReverted, CodeNotRunning, "no longer runs the release and does not say why"
	case f.Target == t.Spec.Release && !d.State.arrived() && d.Code != CodeDeadline:
		return updating(d, f.Update)
	}
	return d.State, d.Code, d.Message
}

// arrived says that the device was seen to run the release.
func (s DeviceState) arrived() bool { return s == DeviceActive || s == DeviceHealthy }

// seenServing starts the clock of health when a device is first seen to serve.
// The clock is that of its reports: a device that fell silent proves nothing.
func (t *turn) seenServing(d Device, f *DeviceFacts) (to DeviceState, code, why string) {
	soak := t.waveSpec(d.Wave).soak()
	switch {
	case !d.State.arrived() || d.Code == CodeNotServing:
		return DeviceActive, "", "seen to serve the release"
	case d.State == DeviceActive && f.Reported.Sub(d.Since) >= soak:
		return DeviceHealthy, "", fmt.Sprintf("seen to serve the release for %v", soak)
	}
	return d.State, d.Code, d.Message
}

// updating names a state of the device's update machine in the rollout's terms.
func updating(d Device, update string) (to DeviceState, code, why string) {
	switch update {
	case "resolving", "downloading":
		to = DeviceDownloading
	case "verifying":
		to = DeviceVerifying
	case "trialing", "activating", "watching":
		to = DeviceTrialing
	default:
		return d.State, d.Code, d.Message
	}
	return to, "", "reported " + update
}

// ended returns how the attempt that decision seq asked for ended, if it ended
// badly. Older outcomes are about older attempts.
func (f *DeviceFacts) ended(seq uint64) (Outcome, bool) {
	for _, o := range f.Outcomes {
		if o.Generation >= seq && o.bad() {
			return o, true
		}
	}
	return Outcome{}, false
}

func (o Outcome) bad() bool {
	return o.Result == "failed" || o.Result == "refused" || o.Result == "reverted"
}

func (o Outcome) state() DeviceState {
	switch {
	case o.Result == "reverted" && o.Code != CodeGolden:
		return DeviceReverted
	case o.Result == "refused" && neutral[o.Code]:
		return DeviceRefused
	}
	return DeviceFailed
}

// observeBack watches a device that was told to return to its old release.
func (t *turn) observeBack(id string, d Device, f DeviceFacts) {
	on := f.Active == t.Spec.Release
	switch {
	case f.Revoked:
		t.move(id, DeviceSuperseded, CodeRevoked, "revoked or cloned: nothing it says is taken")
	case on && d.Home && t.Header.Status == StatusReverting:
		t.move(id, DeviceActive, CodeOvertaken, "runs the release again after it had left it")
		t.recall(id)
	case on && !d.State.arrived() && t.Header.Status != StatusReverting:
		t.move(id, DeviceActive, CodeOvertaken, "went active before the withdrawal reached it, and is on its way back")
	case on || f.Target == t.Spec.Release || f.Generation < d.Order.Seq || d.Home:
	default:
		t.home(id, d)
	}
}

// home records that a device was seen off the release.
func (t *turn) home(id string, d Device) {
	reverting := t.Header.Status == StatusReverting
	switch {
	case d.State.arrived() && reverting:
		t.move(id, DeviceReverted, CodeRolledBack, "seen off the release")
	case d.State.arrived() || d.State.underWay():
		t.move(id, DeviceWaiting, CodeWithdrawn, "seen off the release")
	}
	d = t.device(id)
	d.Home, d.Late, d.Deadline = true, false, time.Time{}
	t.put(id, d)
}

// out says that the device is not going to run the release by itself.
func (s DeviceState) out() bool {
	return s == DeviceFailed || s == DeviceReverted || s == DeviceRefused || s == DeviceSuperseded
}

// expire ends the states whose deadline has passed. A device that was heard of
// lately and did not get on has failed; one that was not is late: it holds
// nothing up any more, and nothing is concluded from its silence.
func (t *turn) expire() {
	if !t.GoesOn() {
		return
	}
	due := func(_ string, d *Device, f *DeviceFacts) bool {
		return !d.Deadline.IsZero() && !t.now.Before(d.Deadline) && (f == nil || !t.lost(d, f))
	}
	for _, id := range t.find(due) {
		d, f := t.device(id), t.facts.device(id)
		if d.State == DeviceShadowing && d.Order.Kind == Beside {
			t.endShadow(id, d)
			continue
		}
		if heard := f.Reported.After(d.Deadline.Add(-t.lately(&d))); heard && d.Order.Kind == Forward && (d.State.working() || d.State == DeviceActive) {
			t.move(id, DeviceFailed, CodeDeadline, fmt.Sprintf("still %s at its deadline", d.State))
			continue
		}
		d.Late, d.Deadline = true, time.Time{}
		t.put(id, d)
		t.note(Change{
			Subject: SubjectDevices, Wave: d.Wave, From: string(d.State), To: "late",
			Why: d.lateness(), Devices: []string{id},
		})
	}
}

// lately is how long before its deadline a device must have been heard of to be
// blamed for it: the lateness, but never so long that the report which began
// its work counts.
func (t *turn) lately(d *Device) time.Duration {
	return min(time.Duration(t.waveSpec(d.Wave).Lateness), d.Deadline.Sub(d.Offered)/2)
}

// lateness says what makes a device late.
func (d *Device) lateness() string {
	if d.State == DeviceWaiting {
		return "could not begin in time, holds nothing up any more"
	}
	return "not heard of in time, holds nothing up any more"
}
