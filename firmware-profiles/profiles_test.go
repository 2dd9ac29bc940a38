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
	if len(list) < 7 {
		t.Errorf("%d profiles, want the seven classes at least", len(list))
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
