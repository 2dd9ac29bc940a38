package host

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	_ "time/tzdata" // the machine may have none

	"github.com/vedette-edge/vedette/protocol"
)

// tree makes files below a folder, by path; a link's text begins with "->".
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(text) > 2 && text[:2] == "->" {
			err = os.Symlink(text[2:], path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const class = "sys/class/power_supply/"

func TestPower(t *testing.T) {
	charger := func(online string) map[string]string {
		return map[string]string{class + "AC/type": "Mains\n", class + "AC/online": online + "\n"}
	}
	battery := func(name, status, capacity string) map[string]string {
		return map[string]string{class + name + "/type": "Battery\n", class + name + "/status": status + "\n", class + name + "/capacity": capacity + "\n", class + name + "/present": "1\n"}
	}
	with := func(parts ...map[string]string) map[string]string {
		all := map[string]string{}
		for _, p := range parts {
			maps.Copy(all, p)
		}
		return all
	}
	const mains, cells = protocol.PowerMains, protocol.PowerBattery
	for _, c := range []struct {
		name  string
		files map[string]string
		want  Supply
	}{
		{"a kernel without the class", map[string]string{"sys/class/net/lo/mtu": "1"}, Supply{}},
		{"a machine without a battery", charger("1"), Supply{Power: mains}},
		{"a machine whose charger says nothing good", charger("0"), Supply{Power: mains}},
		{"charging", with(charger("1"), battery("BAT0", "Charging", "41")), Supply{mains, 41}},
		{"unplugged", with(charger("0"), battery("BAT0", "Discharging", "41")), Supply{cells, 41}},
		{"unplugged a moment ago, full", with(charger("0"), battery("BAT0", "Full", "100")), Supply{cells, 100}},
		{"plugged in and too weak", with(charger("1"), battery("BAT0", "Discharging", "9")), Supply{mains, 9}},
		{"a second charger", with(charger("0"), map[string]string{class + "usb/type": "USB", class + "usb/online": "1"}, battery("BAT0", "Charging", "5")), Supply{mains, 5}},
		{"a battery alone discharges", battery("pack", "Discharging", "60"), Supply{cells, 60}},
		{"a battery alone charges", battery("pack", "Charging", "60"), Supply{mains, 60}},
		{"a battery alone that knows nothing", battery("pack", "Unknown", "60"), Supply{"", 60}},
		{"an uninterruptible supply", map[string]string{class + "ups/type": "UPS", class + "ups/status": "Discharging", class + "ups/capacity": "88"}, Supply{cells, 88}},
		{"the battery of a mouse", with(charger("1"), battery("mouse", "Discharging", "3"), map[string]string{class + "mouse/scope": "Device"}), Supply{Power: mains}},
		{"an empty bay", with(battery("BAT0", "Discharging", "50"), battery("BAT1", "Unknown", "0"), map[string]string{class + "BAT1/present": "0"}), Supply{cells, 50}},
		{"two of one size", with(battery("BAT0", "Discharging", "20"), battery("BAT1", "Discharging", "80")), Supply{cells, 50}},
		{"two of different sizes", with(
			battery("BAT0", "Discharging", "20"), battery("BAT1", "Discharging", "80"),
			map[string]string{class + "BAT0/energy_full": "30", class + "BAT1/energy_full": "10"},
		), Supply{cells, 35}},
		{"charge instead of percent", map[string]string{
			class + "b/type": "Battery", class + "b/status": "Discharging", class + "b/charge_now": "250", class + "b/charge_full": "1000",
		}, Supply{cells, 25}},
		{"over full", battery("pack", "Charging", "104"), Supply{mains, 100}},
		{"nonsense", battery("pack", "Discharging", "NaN"), Supply{Power: cells}},
		{"nothing but a name", map[string]string{class + "x/uevent": ""}, Supply{Power: mains}},
	} {
		if got := powerBelow(tree(t, c.files)); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	empty := t.TempDir()
	if err := os.MkdirAll(filepath.Join(empty, class), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, want := powerBelow(empty), (Supply{Power: mains}); got != want {
		t.Errorf("no supplies: got %+v, want %+v", got, want)
	}
}

func TestTimeZone(t *testing.T) {
	link := map[string]string{"etc/localtime": "->/usr/share/zoneinfo/Europe/Berlin"}
	file := map[string]string{"etc/localtime": "TZif2", "etc/timezone": "America/Argentina/Ushuaia\n"}
	for _, c := range []struct {
		name  string
		files map[string]string
		tz    string
		set   bool
		want  string
	}{
		{"nothing", nil, "", false, ""},
		{"variable", link, "Asia/Tokyo", true, "Asia/Tokyo"},
		{"variable with a colon", link, ":Asia/Tokyo", true, "Asia/Tokyo"},
		{"variable names the file", link, ":/usr/share/zoneinfo/Asia/Tokyo", true, "Asia/Tokyo"},
		{"empty variable", link, "", true, "UTC"},
		{"variable with a rule", link, "CET-1CEST", true, "Europe/Berlin"},
		{"variable out of the tree", link, "../../etc/passwd", true, "Europe/Berlin"},
		{"link", link, "", false, "Europe/Berlin"},
		{"relative link", map[string]string{"etc/localtime": "->../usr/share/zoneinfo/UTC"}, "", false, "UTC"},
		{"link to the right zones", map[string]string{"etc/localtime": "->/usr/share/zoneinfo/right/Europe/Berlin"}, "", false, "Europe/Berlin"},
		{"link elsewhere", map[string]string{"etc/localtime": "->/etc/zone"}, "", false, ""},
		{"link and a stale name", map[string]string{"etc/localtime": "->/usr/share/zoneinfo/Europe/Berlin", "etc/timezone": "Asia/Tokyo"}, "", false, "Europe/Berlin"},
		{"file and its name", file, "", false, "America/Argentina/Ushuaia"},
		{"no such zone", map[string]string{"etc/timezone": "Europe/Vedette"}, "", false, ""},
		{"text", map[string]string{"etc/timezone": "# set by nobody"}, "", false, ""},
		{"this machine's own", map[string]string{"etc/timezone": "Local"}, "", false, ""},
	} {
		if got := timeZone(tree(t, c.files), c.tz, c.set); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestMetered(t *testing.T) {
	const (
		head  = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
		modem = "wwan0\t00000000\t00000000\t0001\t0\t0\t700\t00000000\t0\t0\t0\n"
		cable = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
		local = "wwan0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
		dead  = "wwan0\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n"
		zeros = "00000000000000000000000000000000"
		six   = zeros + " 00 " + zeros + " 00 fe800000000000000000000000000001 000002bc 00000001 00000000 00450003    wwan0\n"
		six0  = zeros + " 00 " + zeros + " 00 " + zeros + " ffffffff 00000001 00000000 00200200       lo\n"
	)
	base := map[string]string{"sys/class/net/wwan0/uevent": "DEVTYPE=wwan\nINTERFACE=wwan0\n", "sys/class/net/eth0/uevent": "INTERFACE=eth0\n"}
	for _, c := range []struct{ name, v4, v6, want string }{
		{"no network", "", "", ""},
		{"nothing but a heading", head, "", ""},
		{"mobile", head + modem, "", protocol.MeteredYes},
		{"cable", head + cable, "", ""},
		{"cable before mobile", head + modem + cable, "", ""},
		{"mobile for a neighbour", head + local + cable, "", ""},
		{"mobile that is down", head + dead, "", ""},
		{"mobile with IPv6 alone", head, six0 + six, protocol.MeteredYes},
		{"no IPv6", head, six0, ""},
		{"a name that is a path", head + "../../../../tmp\t00000000\t0\t0003\t0\t0\t1\t00000000\n", "", ""},
		{"nonsense", "\x00\x01 a b c d e f g h i j\n", "zzz", ""},
	} {
		files := map[string]string{"proc/net/route": c.v4, "proc/net/ipv6_route": c.v6}
		maps.Copy(files, base)
		if got := meteredBelow(tree(t, files)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
