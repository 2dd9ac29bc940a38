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

// unmet says what of the requirements a device does not show in its newest
// report; empty when it fulfils them.
func (r Require) unmet(f *DeviceFacts) string {
	switch {
	case r.Unmetered && f.Metered != unmetered:
		return "it needs a link that is not billed by volume; " + told(f.Metered, map[string]string{"yes": "its link is"})
	case r.Mains && f.Power != onMains:
		return "it needs mains power; " + told(f.Power, map[string]string{onBattery: "it runs on a battery"})
	case r.Battery > 0 && f.Power == onBattery && f.Battery < r.Battery:
		return fmt.Sprintf("it needs %d %% of battery; it has %d %%", r.Battery, f.Battery)
	case r.Battery > 0 && f.Power != onMains && f.Power != onBattery:
		return "it needs mains power or enough battery; it does not say what it runs on"
	}
	return ""
}

func told(is string, words map[string]string) string {
	if text, ok := words[is]; ok {
		return text
	}
	return "it does not say"
}
