package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// fewNamed bounds the devices that a plan names for people in one place; -o json
// has all of them.
const fewNamed = 10

func showPlan(w io.Writer, p *operator.Plan) {
	facts(w, "version", p.Spec.Model+" "+p.Spec.Version, "release", p.Release.Short(), "devices", count(p.Devices),
		"download", downloadText(p), "begins", timeText(p.Begins), "first offer", firstOffer(p), "takes", takesText(p), "held out", named(p.Control),
		"run it already", named(p.Already), "not heard of", named(p.Unheard))
	rows := [][]string{}
	for i := range p.Waves {
		v := &p.Waves[i]
		approval := ""
		if v.Approval {
			approval = "approval"
		}
		rows = append(rows, []string{
			count(v.Number), v.Name, count(len(v.Devices)), countsText(v.Profiles), countsText(v.Sites), bytesText(v.Bytes),
			tookText(v.Expected, v.Unfinished), tookText(v.Slow, v.Unfinished), approval, named(v.Devices),
		})
	}
	fmt.Fprintln(w)
	grid(w, []string{"wave", "name", "devices", "profiles", "sites", "download", "takes", "9 of 10", "", "order"}, rows)
	for _, v := range p.Waves {
		for _, d := range v.Detectable {
			fmt.Fprintf(w, "wave %d, %s: %s\n", v.Number, d.Kind, d.Text)
		}
	}
	showObstacles(w, p)
}

// firstOffer is when the first device is asked, where that is not at the start.
func firstOffer(p *operator.Plan) string {
	if p.FirstOffer.Sub(p.Begins) < time.Minute {
		return ""
	}
	return fmt.Sprintf("%s, %s after the start", timeText(p.FirstOffer), durationText(p.FirstOffer.Sub(p.Begins)))
}

// showObstacles says what is in the way of a plan.
func showObstacles(w io.Writer, p *operator.Plan) {
	for _, v := range p.Waves {
		for _, text := range v.Stalls {
			fmt.Fprintln(w, "!", text)
		}
	}
	grouped(w, "cannot run it", p.Refused)
	grouped(w, "not now", p.Unmet)
	for _, text := range p.Warnings {
		fmt.Fprintln(w, "!", text)
	}
}

// grouped names devices by what keeps them from something.
func grouped(w io.Writer, what string, why map[string]string) {
	devices := map[string][]string{}
	for _, id := range slices.Sorted(maps.Keys(why)) {
		devices[why[id]] = append(devices[why[id]], id)
	}
	for _, reason := range slices.Sorted(maps.Keys(devices)) {
		fmt.Fprintf(w, "! %s, %s: %s\n", what, reason, named(devices[reason]))
	}
}

func downloadText(p *operator.Plan) string {
	text := bytesText(p.Bytes) + " at most, all devices together"
	if p.FullBytes > p.Bytes {
		text += "; " + bytesText(p.FullBytes) + " without deltas"
	}
	return text
}

// takesText says how long the rollout takes if nobody waits for people.
func takesText(p *operator.Plan) string {
	var parts []string
	if half := tookText(p.Expected, p.Unfinished); half != notInTime {
		parts = append(parts, half+" or less half of the time")
	}
	if most := tookText(p.Slow, p.Unfinished); most != notInTime {
		parts = append(parts, most+" nine times of ten")
	}
	if p.Unfinished > 0 {
		parts = append(parts, fmt.Sprintf("longer than its deadline in %d of %d replays of the last 14 days", p.Unfinished, p.Replays))
	}
	return strings.Join(parts, ", ")
}

const notInTime = "not in time"

// tookText is a time of a plan, of which zero may be one that does not come.
func tookText(d release.Duration, unfinished int) string {
	if d == 0 && unfinished > 0 {
		return notInTime
	}
	if time.Duration(d) < time.Minute {
		return time.Duration(d).Round(time.Second).String()
	}
	return strings.TrimSuffix(time.Duration(d).Round(time.Minute).String(), "0s")
}

// named lists the first of some devices.
func named(devices []string) string {
	if more := len(devices) - fewNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(devices[:fewNamed], " "), more)
	}
	return strings.Join(devices, " ")
}
