package host

import (
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol"
)

// Metered says whether the device's link is billed by volume, as far as the
// kernel knows: MeteredYes where the way to everywhere leaves by a mobile modem,
// "" for not known otherwise. A cable may end in a mobile router, and what
// people told NetworkManager is for root's eyes, so it never says no.
func Metered() string { return meteredBelow("/") }

// meteredBelow is Metered with the folder that /proc and /sys are in.
func meteredBelow(root string) string {
	name := defaultRoute(readProc(filepath.Join(root, "proc/net/route")))
	if name == "" {
		name = defaultRoute6(readProc(filepath.Join(root, "proc/net/ipv6_route")))
	}
	if name == "" || strings.ContainsAny(name, "/") || strings.HasPrefix(name, ".") {
		return ""
	}
	uevent := readProc(filepath.Join(root, "sys/class/net", name, "uevent"))
	for line := range strings.Lines(uevent) {
		if strings.TrimSpace(line) == "DEVTYPE=wwan" {
			return protocol.MeteredYes
		}
	}
	return ""
}

// Flags of a route (linux/route.h).
const (
	routeUp     = 0x1
	routeReject = 0x200
)

// defaultRoute is the interface of the IPv4 route to everywhere that has the
// least metric, "" for none. Columns: interface, destination, gateway, flags,
// references, use, metric, mask.
func defaultRoute(table string) string {
	best, least := "", uint64(math.MaxUint64)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		metric, err := strconv.ParseUint(f[6], 10, 64)
		if err == nil && usable(f[3]) && metric < least {
			best, least = f[0], metric
		}
	}
	return best
}

// defaultRoute6 is the same for IPv6. Columns: destination, its length, source,
// its length, next hop, metric, references, use, flags, interface.
func defaultRoute6(table string) string {
	best, least := "", uint64(math.MaxUint64)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || strings.Trim(f[0], "0") != "" || f[1] != "00" || f[9] == "lo" {
			continue
		}
		metric, err := strconv.ParseUint(f[5], 16, 64)
		if err == nil && usable(f[8]) && metric < least {
			best, least = f[9], metric
		}
	}
	return best
}

func usable(flags string) bool {
	v, err := strconv.ParseUint(flags, 16, 64)
	return err == nil && v&routeUp != 0 && v&routeReject == 0
}
