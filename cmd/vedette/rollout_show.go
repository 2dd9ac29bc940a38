package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
)

func showRollout(w io.Writer, r *operator.Rollout) {
	facts(w, "rollout", r.ID, "version", r.Model+" "+r.Version, "release", r.Release.Short(), "state", stateText(&r.RolloutSummary),
		"since", timeText(r.Since), "ends by", timeText(r.Deadline), "devices", countsText(r.Counts), "held out", heldOut(r),
		"revised", revisedText(r), "possible", strings.Join(r.Actions, " "))
	fmt.Fprintln(w)
	rows := [][]string{}
	for i := range r.WaveList {
		v := &r.WaveList[i]
		rows = append(rows, []string{count(v.Number), v.Name, v.State, fmt.Sprintf("%d of %d", v.Counts["healthy"], waveSize(v)), countsText(v.Counts), waveNeeds(r, v), v.Cause})
	}
	grid(w, []string{"wave", "name", "state", "healthy", "devices", "needs", "cause"}, rows)
	showNext(w, r.Next)
	showGates(w, r.Gates)
	showStuck(w, r)
	showFailed(w, r)
}

// showNext says whom a person approves.
func showNext(w io.Writer, next *operator.NextWave) {
	if next == nil {
		return
	}
	heading(w, fmt.Sprintf("wave %d waits for approval, as planned now", next.Number))
	names := named(next.Devices)
	if len(next.Devices) < next.Total {
		names = fmt.Sprintf("%s and %d more", strings.Join(next.Devices[:fewNamed], " "), next.Total-fewNamed)
	}
	facts(w, "devices", count(next.Total), "sites", countsText(next.Sites), "profiles", countsText(next.Profiles), "order", names)
}

// waveNeeds adds to what an open wave needs the gates that hold it up once it
// has soaked.
func waveNeeds(r *operator.Rollout, v *operator.Wave) string {
	text := needsText(v)
	if v.Number != r.Wave || v.State != string(rollout.WaveSoaking) || v.SoakEnds.After(time.Now()) {
		return text
	}
	holds := map[string]bool{}
	for _, g := range r.Spec.Gates {
		holds[g.Kind] = !g.Off && g.Inconclusive == string(rollout.Hold)
	}
	for i := range r.Gates {
		if g := &r.Gates[i]; holds[g.Kind] && g.Result == string(rollout.GateInconclusive) {
			text = strings.TrimPrefix(text+", "+unanswered(g), ", ")
		}
	}
	return text
}

// unanswered says how far a gate is from its answer.
func unanswered(g *operator.Gate) string {
	text := "gate " + g.Kind + " has no answer yet"
	if g.Alpha > 0 && g.EFine > 0 {
		text += fmt.Sprintf(": e-value %s of %s", eText(g.EFine), eText(1/g.Alpha))
	}
	return text
}

// heldOut is the control group in a few words.
func heldOut(r *operator.Rollout) string {
	const few = 10
	if len(r.Control) <= few {
		return strings.Join(r.Control, " ")
	}
	return fmt.Sprintf("%s (%s …)", countsText(r.ControlCounts), strings.Join(r.Control[:few], " "))
}

func revisedText(r *operator.Rollout) string {
	if len(r.Revisions) < 2 {
		return ""
	}
	last := r.Revisions[len(r.Revisions)-1]
	return fmt.Sprintf("revision %d by %s at %s (%s)", last.Number, last.Actor, timeText(last.At), last.Reason)
}

func waveSize(v *operator.Wave) int { return len(v.Devices) + v.More }

// needsText is what an open wave has of what it needs.
func needsText(v *operator.Wave) string {
	if v.State != string(rollout.WaveOpen) && v.State != string(rollout.WaveSoaking) {
		return ""
	}
	var parts []string
	p, e := &v.Progress, &v.Spec.Evidence
	if p.Healthy < p.Needed {
		parts = append(parts, fmt.Sprintf("%d of %d healthy", p.Healthy, p.Needed))
	}
	if p.Devices < e.Devices {
		parts = append(parts, fmt.Sprintf("%d of %d devices with predictions", p.Devices, e.Devices))
	}
	if p.Inferences < e.Inferences {
		parts = append(parts, fmt.Sprintf("%d of %d predictions", p.Inferences, e.Inferences))
	}
	if p.Hours < e.Hours {
		parts = append(parts, fmt.Sprintf("%.1f of %s h", p.Hours, number(e.Hours)))
	}
	if v.SoakEnds.After(time.Now()) {
		parts = append(parts, "soaks until "+timeText(v.SoakEnds))
	}
	if !v.Deadline.IsZero() {
		parts = append(parts, "by "+timeText(v.Deadline))
	}
	return strings.Join(parts, ", ")
}

func showGates(w io.Writer, gates []operator.Gate) {
	if len(gates) == 0 {
		return
	}
	fmt.Fprintln(w)
	rows := [][]string{}
	for i := range gates {
		g := &gates[i]
		rows = append(rows, []string{g.Kind, g.Result, number(g.Value), number(g.Limit), fmt.Sprintf("%s/%s", number(g.Numerator), number(g.Denominator)), evidenceText(g), g.Text})
	}
	grid(w, []string{"gate", "result", "value", "limit", "of", "evidence", "why"}, rows)
}

// evidenceText is what the devices of a comparing gate have shown. An e-value of
// 20 is what chance alone reaches once in twenty times.
func evidenceText(g *operator.Gate) string {
	if g.Alpha == 0 {
		return ""
	}
	needed := 1 / g.Alpha
	text := fmt.Sprintf("%d worse, %d fine", g.Worse, g.Fine)
	if g.EHarm > 0 {
		text += fmt.Sprintf("; harm %s of %s", eText(g.EHarm), eText(needed))
	}
	if g.EFine > 0 {
		text += "; fine " + eText(g.EFine)
	}
	if g.EControl > 1 {
		text += "; control " + eText(g.EControl)
	}
	return text
}

// eText is an e-value, or a number of times.
func eText(e float64) string {
	const enough = 1e6 // beyond it nobody asks for the figure
	if e > enough {
		return "over a million"
	}
	return fmt.Sprintf("%.3g", e)
}

// fewStuck bounds the devices that are named where there is more to say.
const fewStuck = 8

func showStuck(w io.Writer, r *operator.Rollout) {
	if len(r.Stuck) == 0 {
		return
	}
	heading(w, fmt.Sprintf("%d devices hold it up", r.StuckTotal))
	shown := r.Stuck[:min(len(r.Stuck), fewStuck)]
	rows := [][]string{}
	for i := range shown {
		d := &shown[i]
		rows = append(rows, []string{d.Device, d.State, timeText(d.Since), timeText(d.Deadline), string(d.Presence), d.Why})
	}
	grid(w, []string{"device", "state", "since", "until", "presence", "why"}, rows)
	if more := r.StuckTotal - len(shown); more > 0 {
		fmt.Fprintf(w, "and %d more: vedette rollout devices %s --stuck\n", more, r.ID)
	}
}

// showFailed names devices that the release did no good.
func showFailed(w io.Writer, r *operator.Rollout) {
	const few = 20
	shown, failed := 0, 0
	for i := range r.WaveList {
		v := &r.WaveList[i]
		failed += v.Counts["failed"] + v.Counts["reverted"] + v.Counts["refused"]
		for _, d := range v.Devices {
			if (d.Code != "" || d.Message != "") && shown < few {
				shown++
				fmt.Fprintf(w, "! %s %s: %s\n", d.Device, d.State, firstOf(strings.TrimSpace(d.Code+" "+d.Message), d.Code))
			}
		}
	}
	if shown == few && failed > few {
		fmt.Fprintf(w, "! %d devices failed, reverted or refused it: vedette rollout devices %s --state failed\n", failed, r.ID)
	}
}

func rolloutDeviceTable(w io.Writer, list []operator.WaveDevice) {
	if len(list) == 0 {
		none(w, "such devices")
		return
	}
	rows := [][]string{}
	for i := range list {
		d := &list[i]
		rows = append(rows, []string{d.Device, waveText(d), d.State, d.Site, string(d.Presence), timeText(d.Deadline), d.Why})
	}
	grid(w, []string{"device", "wave", "state", "site", "presence", "until", "why"}, rows)
}

func waveText(d *operator.WaveDevice) string {
	switch {
	case d.Wave > 0:
		return count(d.Wave)
	case d.Control:
		return "control"
	default:
		return "-"
	}
}

func showRolloutDevice(w io.Writer, d *operator.WaveDevice) {
	facts(w, "device", d.Device, "state", cmp.Or(d.State, "no part in the rollout"), "wave", waveText(d), "since", timeText(d.Since),
		"until", timeText(d.Deadline), "site", d.Site, "profile", d.Profile, "presence", string(d.Presence), "heard", timeText(d.Heard),
		"goes back to", d.Old, "offers", triesText(d.Tries))
	fmt.Fprintln(w)
	fmt.Fprintln(w, d.Why)
}

func triesText(n int) string {
	if n == 0 {
		return ""
	}
	return count(n)
}

func showExplanation(w io.Writer, e *operator.Explanation) {
	fmt.Fprintln(w, e.Summary)
	for _, text := range e.Waiting {
		fmt.Fprintln(w, " -", text)
	}
	showGates(w, e.Gates)
	heading(w, "decisions")
	if older := e.Total - len(e.Decisions); older > 0 {
		fmt.Fprintf(w, "%d older decisions: vedette rollout explain %s --all\n", older, e.ID)
	}
	for _, d := range e.Decisions {
		fmt.Fprintf(w, "%s  #%d  %s  %s\n", timeText(d.At), d.Seq, d.Actor, decisionText(&d))
		for _, c := range d.Changes {
			fmt.Fprintf(w, "      %s\n", changeText(&c))
		}
		if len(d.Changes) == 0 && d.Action == "" {
			fmt.Fprintf(w, "      %s\n", d.Text)
		}
	}
}

func decisionText(d *operator.Decision) string {
	text := firstOf(d.Action, strings.TrimPrefix(d.Kind, "rollout."))
	if d.Reason != "" {
		text += fmt.Sprintf(" (%s)", d.Reason)
	}
	return text
}

func changeText(c *operator.Change) string {
	subject := c.Subject
	if c.Subject == rollout.SubjectWave {
		subject = "wave " + count(c.Wave)
	}
	if len(c.Devices) > 0 {
		subject = strings.Join(c.Devices, " ")
	}
	if more := c.Count - len(c.Devices); more > 0 && len(c.Devices) > 0 {
		subject += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s %s: %s", subject, c.To, c.Why)
}

// stuckText is a device that holds a rollout up, in one line.
func stuckText(d *operator.WaveDevice, now time.Time) string {
	text := fmt.Sprintf("%s %s for %s, %s", d.Device, d.State, ago(now, d.Since), cmp.Or(d.Presence, operator.PresenceUnknown))
	if !d.Deadline.IsZero() {
		text += ", until " + d.Deadline.Local().Format(time.TimeOnly)
	}
	return text
}
