package rollout

import "fmt"

// What a device reports of its link and power.
const (
	unmetered = "no"
	onMains   = "mains"
	onBattery = "battery"
)

func (r Require) check() error {
	if r.Battery < 0 || r.Battery > 100 {
		return fmt.Errorf("min_battery is %d, must be 0 to 100 percent", r.Battery)
	}
	return nil
}

// unmet says what a device must have, and what it shows instead in its newest
// report; empty when it fulfils the requirements.
func (r Require) unmet(f *DeviceFacts) (what, why string) {
	switch {
	case r.Unmetered && f.Metered != unmetered:
		return "a link that is not billed by volume", told(f.Metered == "yes", "its link is")
	case r.Mains && f.Power != onMains:
		return "mains power", told(f.Power == onBattery, "it runs on a battery")
	case r.Battery > 0 && f.Power != onMains && (f.Power != onBattery || f.Battery < r.Battery):
		what = fmt.Sprintf("mains power or %d %% of battery", r.Battery)
		return what, told(f.Power == onBattery, fmt.Sprintf("it has %d %%", f.Battery))
	}
	return "", ""
}

func told(is bool, text string) string {
	if is {
		return text
	}
	return "it does not say what it has"
}
