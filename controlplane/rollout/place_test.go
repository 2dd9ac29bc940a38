package rollout

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

func TestApportion(t *testing.T) {
	for _, c := range []struct {
		n           int
		sizes, want map[string]int
	}{
		{1, map[string]int{"a": 5, "b": 3}, map[string]int{"a": 1, "b": 0}},
		{4, map[string]int{"a": 5, "b": 3}, map[string]int{"a": 3, "b": 1}}, // 2.5 and 1.5: the larger gets the odd one
		{8, map[string]int{"a": 5, "b": 3}, map[string]int{"a": 5, "b": 3}},
		{99, map[string]int{"a": 5, "b": 3}, map[string]int{"a": 5, "b": 3}},
		{2, map[string]int{"a": 1, "b": 1, "c": 1}, map[string]int{"a": 1, "b": 1, "c": 0}},
		{10, map[string]int{"big": 997, "small": 3}, map[string]int{"big": 10, "small": 0}},
		{0, map[string]int{"a": 5}, map[string]int{}},
		{3, map[string]int{}, map[string]int{}},
	} {
		if got := apportion(c.n, c.sizes); !maps.Equal(got, c.want) {
			t.Errorf("%d of %v: got %v, want %v", c.n, c.sizes, got, c.want)
		}
	}
}

// Shares add up, none is above its size and none is a whole device off.
func TestApportionIsFair(t *testing.T) {
	for n := range 40 {
		for a := range 15 {
			for b := range 15 {
				sizes := map[string]int{"a": a, "b": b, "c": 7}
				total, sum := a+b+7, 0
				for name, share := range apportion(n, sizes) {
					sum += share
					exact := float64(min(n, total)) * float64(sizes[name]) / float64(total)
					if share > sizes[name] || float64(share) <= exact-1 || float64(share) >= exact+1 {
						t.Fatalf("%d of %v: %s has %d, exact is %.2f", n, sizes, name, share, exact)
					}
				}
				if sum != min(n, total) {
					t.Fatalf("%d of %v: shares add up to %d", n, sizes, sum)
				}
			}
		}
	}
}

func TestChoiceDependsOnTheRolloutAlone(t *testing.T) {
	var fleet []candidate
	for i := range 200 {
		fleet = append(fleet, candidate{fmt.Sprintf("d%d", i), fmt.Sprintf("p%d", i%3)})
	}
	backwards := slices.Clone(fleet)
	slices.Reverse(backwards)
	first := choose("r1", forWaves, 20, fleet)
	if got := choose("r1", forWaves, 20, backwards); !slices.Equal(got, first) {
		t.Errorf("the order of the fleet matters: %v and %v", got, first)
	}
	if len(first) != 20 {
		t.Errorf("chose %d, want 20", len(first))
	}
	other := choose("r2", forWaves, 20, fleet)
	control := choose("r1", forControl, 20, fleet)
	for name, set := range map[string][]string{"another rollout": other, "the control group": control} {
		same := 0
		for _, id := range set {
			if slices.Contains(first, id) {
				same++
			}
		}
		if same > 8 { // 2 are expected by chance
			t.Errorf("%d of 20 are also chosen for %s", same, name)
		}
	}
}

func TestWaveSizes(t *testing.T) {
	for _, c := range []struct {
		name               string
		wave               WaveSpec
		placed, free, held int
		want               int
	}{
		{"count", WaveSpec{Count: 3}, 0, 10, 0, 3},
		{"count above what is there", WaveSpec{Count: 30}, 0, 10, 0, 10},
		{"percent of all, the waves before included", WaveSpec{Percent: 50}, 1, 7, 0, 3},
		{"percent counts the control group", WaveSpec{Percent: 50}, 1, 6, 1, 3},
		{"percent is rounded up", WaveSpec{Percent: 10}, 0, 11, 0, 2},
		{"ten percent of ten is one", WaveSpec{Percent: 10}, 0, 10, 0, 1},
		{"never nobody", WaveSpec{Percent: 5}, 5, 15, 0, 1},
		{"control is not taken", WaveSpec{Percent: 99}, 0, 5, 5, 5},
	} {
		if got := waveSize(c.wave, c.placed, c.free, c.held); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		share float64
		n     int
		want  int
	}{{0.1, 8, 1}, {0.1, 4, 0}, {0.5, 2, 1}, {0.9, 1, 0}, {0.99, 3, 2}, {0, 100, 0}, {0.3, 0, 0}} {
		if got := controlSize(c.share, c.n); got != c.want {
			t.Errorf("control of %v of %d: got %d, want %d", c.share, c.n, got, c.want)
		}
	}
}

func TestRequirements(t *testing.T) {
	r := Requirements{
		MinAgent: "1.4.0", MinRuntime: "1.23", MemoryBytes: 1000,
		Variants: []Variant{{Name: "fp32", Arch: []string{"arm64"}, Bytes: 100}, {Name: "gpu", Providers: []string{"CUDA"}, Bytes: 900}},
	}
	good := DeviceFacts{Agent: "v1.10.0", Runtime: "1.30.0", MemoryBytes: 4000, Arch: "arm64", Providers: []string{"CPU"}}
	for _, c := range []struct {
		name   string
		change func(f *DeviceFacts)
		want   string
	}{
		{"good", func(*DeviceFacts) {}, ""},
		{"nothing is known", func(f *DeviceFacts) { *f = DeviceFacts{} }, ""},
		{"a development build", func(f *DeviceFacts) { f.Agent = "devel" }, ""},
		{"a release candidate of a newer one", func(f *DeviceFacts) { f.Agent = "v1.5.0-rc1" }, ""},
		{"old agent", func(f *DeviceFacts) { f.Agent = "1.3.9" }, CodeAgent},
		{"old runtime", func(f *DeviceFacts) { f.Runtime = "1.9.9" }, CodeRuntime},
		{"little memory", func(f *DeviceFacts) { f.MemoryBytes = 999 }, CodeMemory},
		{"other processor without the accelerator", func(f *DeviceFacts) { f.Arch = "amd64" }, CodeVariant},
		{"other processor with it", func(f *DeviceFacts) { f.Arch, f.Providers = "amd64", []string{"CPU", "CUDA"} }, ""},
	} {
		f := good
		c.change(&f)
		if got, _ := r.Refuses(f); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if got := r.bytes(good); got != 100 {
		t.Errorf("a device without the accelerator downloads %d bytes, want 100", got)
	}
}
