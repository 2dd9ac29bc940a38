package host

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol"
)

// maxSupplies bounds how many power supplies are looked at.
const maxSupplies = 64

// Supply is what a device runs on.
type Supply struct {
	Power   string // protocol.PowerMains or PowerBattery, "" for not known
	Percent int    // of its batteries together, 0 also when it has none
}

// Power says what the device runs on, from the kernel's power supply class
// (Documentation/ABI/testing/sysfs-class-power). A machine whose kernel knows
// the class and lists nothing has no battery: it is on mains.
func Power() Supply { return powerBelow("/") }

// powerBelow is Power with the folder that /sys is in.
func powerBelow(root string) Supply {
	class := filepath.Join(root, "sys/class/power_supply")
	dir, err := os.Open(class)
	if err != nil {
		return Supply{}
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxSupplies)
	if err != nil && !errors.Is(err, io.EOF) {
		return Supply{}
	}
	var s supplies
	for _, name := range names {
		s.add(readSupply(filepath.Join(class, name)))
	}
	return Supply{Power: s.power(), Percent: s.percent()}
}

// supply is one entry of the class.
type supply struct {
	battery bool // a battery or an uninterruptible supply
	online  bool // of a charger: it gives power
	status  string
	percent float64 // charge, negative for not known
	full    float64 // what it holds in µWh or µAh, 0 for not known
	ignored bool    // it feeds a mouse, or is not there
}

func readSupply(dir string) supply {
	read := func(name string) string { return strings.TrimSpace(readProc(filepath.Join(dir, name))) }
	number := func(name string) float64 {
		v, err := strconv.ParseFloat(read(name), 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return -1
		}
		return v
	}
	s := supply{status: read("status"), percent: number("capacity")}
	switch read("type") {
	case "Battery", "UPS":
		s.battery = true
	case "":
		s.ignored = true
	}
	s.online = number("online") > 0
	s.ignored = s.ignored || read("scope") == "Device" || read("present") == "0"
	for _, unit := range []string{"energy", "charge"} {
		now, full := number(unit+"_now"), number(unit+"_full")
		if full <= 0 {
			continue
		}
		s.full = full
		if s.percent < 0 && now >= 0 {
			s.percent = 100 * now / full
		}
		break
	}
	return s
}

// supplies are all that feed the device.
type supplies struct {
	chargers, online int
	batteries        []supply
}

func (s *supplies) add(one supply) {
	switch {
	case one.ignored:
	case one.battery:
		s.batteries = append(s.batteries, one)
	default:
		s.chargers++
		if one.online {
			s.online++
		}
	}
}

// power goes by the chargers where there are some: a full battery says nothing
// of what the device runs on. A battery alone says it by what it does.
func (s *supplies) power() string {
	switch {
	case s.online > 0, len(s.batteries) == 0:
		return protocol.PowerMains
	case s.discharges() || s.chargers > 0:
		return protocol.PowerBattery
	}
	for _, b := range s.batteries {
		if b.status == "Charging" || b.status == "Full" || b.status == "Not charging" {
			return protocol.PowerMains
		}
	}
	return ""
}

func (s *supplies) discharges() bool {
	for _, b := range s.batteries {
		if b.status == "Discharging" {
			return true
		}
	}
	return false
}

// percent is the charge of all batteries, by what each holds where all say so.
func (s *supplies) percent() int {
	sum, weight, equal := 0.0, 0.0, false
	for _, b := range s.batteries {
		equal = equal || b.full == 0
	}
	for _, b := range s.batteries {
		if b.percent < 0 {
			continue
		}
		w := b.full
		if equal {
			w = 1
		}
		sum, weight = sum+w*b.percent, weight+w
	}
	if weight == 0 {
		return 0
	}
	return int(min(math.Round(sum/weight), 100))
}
