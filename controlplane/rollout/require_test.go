package rollout

import (
	"strings"
	"testing"
)

func TestRequire(t *testing.T) {
	all := Require{Unmetered: true, Mains: true}
	battery := Require{Battery: 40}
	for name, c := range map[string]struct {
		require Require
		facts   DeviceFacts
		want    string // in the answer, "" for fulfilled
	}{
		"nothing is needed":          {Require{}, DeviceFacts{Metered: "yes", Power: "battery"}, ""},
		"all there":                  {all, DeviceFacts{Metered: "no", Power: "mains"}, ""},
		"metered":                    {all, DeviceFacts{Metered: "yes", Power: "mains"}, "billed by volume; its link is"},
		"link not known":             {all, DeviceFacts{Power: "mains"}, "does not say"},
		"on a battery":               {all, DeviceFacts{Metered: "no", Power: "battery", Battery: 100}, "runs on a battery"},
		"power not known":            {all, DeviceFacts{Metered: "no"}, "does not say"},
		"battery full enough":        {battery, DeviceFacts{Power: "battery", Battery: 40}, ""},
		"battery too empty":          {battery, DeviceFacts{Power: "battery", Battery: 39}, "39 %"},
		"mains needs no battery":     {battery, DeviceFacts{Power: "mains"}, ""},
		"battery of unknown device":  {battery, DeviceFacts{Battery: 90}, "does not say"},
		"metered does not matter":    {battery, DeviceFacts{Power: "mains", Metered: "yes"}, ""},
		"battery is no mains supply": {Require{Mains: true, Battery: 10}, DeviceFacts{Power: "battery", Battery: 90}, "mains"},
	} {
		t.Run(name, func(t *testing.T) {
			what, why := c.require.unmet(&c.facts)
			got := strings.Trim(what+"; "+why, "; ")
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want it to say %q", got, c.want)
			}
		})
	}
	for _, percent := range []int{-1, 101} {
		if (Require{Battery: percent}).check() == nil {
			t.Errorf("a battery of %d %% is accepted", percent)
		}
	}
}
