package controlplane

import (
	"errors"
	"maps"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/protocol/release"
)

// shelf is what was published, and the deltas that were made.
type shelf struct {
	versions map[release.Digest]*release.Manifest
	deltas   map[[2]release.Digest]int64
}

func (s shelf) Release(d release.Digest) (registry.Version, error) {
	if m := s.versions[d]; m != nil {
		return registry.Version{Manifest: m}, nil
	}
	return registry.Version{}, errors.New("no such release")
}

func (s shelf) Size(from, to release.Digest) (int64, bool) {
	n, ok := s.deltas[[2]release.Digest{from, to}]
	return n, ok
}

func named(name string) release.Digest { return release.DigestOf([]byte(name)) }

// manifest has the graphs that are named by variant, of 1000 bytes each, with a
// baseline of 100 and golden vectors of 10.
func manifest(baseline, golden string, graphs map[string]string) *release.Manifest {
	m := &release.Manifest{
		Baseline: release.File{Digest: named(baseline), Size: 100},
		Golden:   release.File{Digest: named(golden), Size: 10},
	}
	for variant, graph := range graphs {
		m.Variants = append(m.Variants, release.Variant{Name: variant, Graph: release.File{Digest: named(graph), Size: 1000}})
	}
	return m
}

// What a device has or can make of a delta it does not download.
func TestSizes(t *testing.T) {
	s := shelf{
		versions: map[release.Digest]*release.Manifest{
			named("v1"): manifest("b1", "g1", map[string]string{"fp32": "f1", "int8": "i1"}),
			named("v2"): manifest("b2", "g1", map[string]string{"fp32": "f2", "int8": "i1", "fp16": "h2"}),
		},
		deltas: map[[2]release.Digest]int64{{named("f1"), named("f2")}: 40, {named("b1"), named("b2")}: 500},
	}
	for name, c := range map[string]struct {
		from, to string
		want     map[string]int64
	}{
		"one version on":              {"v1", "v2", map[string]int64{"fp32": 40 + 100, "int8": 100}},
		"back":                        {"v2", "v1", map[string]int64{"fp32": 1000 + 100, "int8": 100}},
		"from what it is":             {"v1", "v1", map[string]int64{"fp32": 0, "int8": 0}},
		"from nothing":                {"", "v2", nil},
		"from what is not known here": {"v0", "v2", nil},
		"to what is not known here":   {"v1", "v3", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var from release.Digest
			if c.from != "" {
				from = named(c.from)
			}
			got := sizes{s, s}.Less(from, named(c.to))
			if !maps.Equal(got, c.want) {
				t.Errorf("got %v bytes by variant, want %v", got, c.want)
			}
		})
	}
}
