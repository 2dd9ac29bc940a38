package profiles

import (
	"errors"
	"strings"
	"testing"
)

func TestAllAreValid(t *testing.T) {
	list, err := All()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 14 {
		t.Errorf("%d profiles are embedded, want all fourteen at least", len(list))
	}
}

func TestEveryProfileNamesItsSource(t *testing.T) {
	list, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		raw, err := files.ReadFile(p.Name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(p.Name, "generic-") && !strings.Contains(string(raw), "# Source: ") {
			t.Errorf("%s does not say where its figures come from", p.Name)
		}
	}
}

func TestFind(t *testing.T) {
	list, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		d    Device
	}{
		{"raspberry-pi-4", Device{Arch: "arm64", Board: "Raspberry Pi 4 Model B Rev 1.4"}},
		{"raspberry-pi-5", Device{Arch: "arm64", Board: "Raspberry Pi 5 Model B Rev 1.0"}},
		{"jetson-orin-nano", Device{Arch: "arm64", Board: "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"}},
		{"jetson-agx-orin", Device{Arch: "arm64", Board: "NVIDIA Jetson AGX Orin Developer Kit"}},
		{"jetson-xavier-nx", Device{Arch: "arm64", Board: "NVIDIA Jetson Xavier NX Developer Kit"}},
		{"rockchip-rk3588", Device{Arch: "arm64", Board: "Radxa ROCK 5B"}},
		{"rockchip-rk3588", Device{Arch: "arm64", Board: "Xunlong Orange Pi 5 Plus"}},
		{"ti-am62a", Device{Arch: "arm64", Board: "Texas Instruments AM62A7 SK"}},
		{"beaglebone-ai-64", Device{Arch: "arm64", Board: "BeagleBoard.org BeagleBone AI-64"}},
		{"qualcomm-rb5", Device{Arch: "arm64", Board: "Qualcomm Technologies, Inc. Robotics RB5"}},
		{"imx8m-plus", Device{Arch: "arm64", Board: "NXP i.MX8MPlus EVK board"}},
		{"generic-arm64", Device{Arch: "arm64", Board: "Pine64 ROCK64"}},
		{"industrial-pc-intel", Device{Arch: "amd64", CPU: "Intel Atom(R) x6425E Processor @ 2.00GHz", GPUs: []string{"i915"}}},
		{"generic-amd64", Device{Arch: "amd64", CPU: "Intel(R) Xeon(R) Processor", GPUs: []string{"bochs-drm"}}},
		{"generic-amd64", Device{Arch: "amd64", CPU: "AMD EPYC", GPUs: []string{"i915"}}},
	} {
		p, ok := Find(list, c.d)
		if !ok || p.Name != c.want {
			t.Errorf("%+v: %q, want %q", c.d, p.Name, c.want)
		}
	}
	if p, ok := Find(list, Device{Arch: "riscv64"}); ok {
		t.Errorf("riscv64 is taken for %s", p.Name)
	}
}

// No board is two classes: what one profile knows it by, no other does.
func TestBoardsAreTold(t *testing.T) {
	list, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		for _, board := range p.Match.Board {
			for _, other := range list {
				if other.Name != p.Name && len(other.Match.Board) > 0 && other.Match.points(Device{Arch: "arm64", Board: board}) > 0 {
					t.Errorf("%q is %s and %s", board, p.Name, other.Name)
				}
			}
		}
	}
}

func TestWhy(t *testing.T) {
	p := &Profile{Match: Match{Arch: []string{"amd64"}, CPU: []string{"intel"}, GPU: []string{"i915", "xe"}}}
	got := p.Why(Device{Arch: "amd64", CPU: "Intel Atom(R) x6425E", GPUs: []string{"i915"}})
	want := `architecture amd64, processor "Intel Atom(R) x6425E" has "intel", graphics driver "i915" has "i915"`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestShareGrowsWithTheDevice(t *testing.T) {
	p := &Profile{CPU: CPU{Cores: 4}, Memory: Memory{MinMiB: 1024}, Limits: Limits{Concurrency: 2, ModelMemoryMiB: 256}}
	for cpus, want := range map[int]int{1: 1, 2: 1, 4: 2, 8: 4, 16: 8} {
		if got := p.Concurrency(cpus); got != want {
			t.Errorf("%d processors: %d at once, want %d", cpus, got, want)
		}
	}
	for memory, want := range map[uint64]uint64{0: 256 << 20, 1 << 30: 256 << 20, 512 << 20: 128 << 20, 8 << 30: 2 << 30} {
		if got := p.ModelMemory(memory); got != want {
			t.Errorf("%d bytes of memory: %d for models, want %d", memory, got, want)
		}
	}
}

const good = `
name: a
title: A
match: {arch: [arm64]}
cpu: {cores: 2, model: x}
memory: {min_mib: 512, max_mib: 1024}
accelerators: [{name: n, providers: [p]}]
limits: {concurrency: 1, model_memory_mib: 100, outbox_mib: 1}
`

func TestParseRefuses(t *testing.T) {
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"name":            {"name: a\n", "name: ../a\n"},
		"title":           {"title: A", "title: ''"},
		"architecture":    {"[arm64]", "[]"},
		"cores":           {"cores: 2", "cores: 0"},
		"memory":          {"max_mib: 1024", "max_mib: 1"},
		"accelerator":     {"[p]", "[]"},
		"concurrency":     {"concurrency: 1", "concurrency: 3"},
		"model memory":    {"model_memory_mib: 100", "model_memory_mib: 600"},
		"outbox":          {"outbox_mib: 1", "outbox_mib: 0"},
		"unknown field":   {"title: A", "title: A\nspeed: 9"},
		"no YAML":         {"title: A", "title: [A"},
		"larger than any": {"title: A", "title: " + strings.Repeat("A", maxFile)},
	} {
		raw := strings.Replace(good, change[0], change[1], 1)
		if raw == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := Parse([]byte(raw)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v, want %v", name, err, ErrInvalid)
		}
	}
}
