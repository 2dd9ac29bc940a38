package controlplane

import (
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/protocol/release"
)

// sizes tells the runner what devices need not download.
type sizes struct {
	releases interface {
		Release(d release.Digest) (registry.Version, error)
	}
	deltas interface {
		Size(from, to release.Digest) (bytes int64, made bool)
	}
}

// Less implements runner.Sizes. A device copies the files it has and makes
// others of deltas, when it runs the variant of the same name.
func (s sizes) Less(from, to release.Digest) map[string]int64 {
	have, err := s.releases.Release(from)
	if err != nil {
		return nil // nothing, or what this server never published
	}
	want, err := s.releases.Release(to)
	if err != nil {
		return nil
	}
	held := variants(have.Manifest)
	less := map[string]int64{}
	for _, v := range want.Manifest.Variants {
		graph, ok := held[v.Name]
		if !ok {
			continue
		}
		less[v.Name] = s.fetched(graph, v.Graph) +
			s.fetched(have.Manifest.Baseline, want.Manifest.Baseline) + s.fetched(have.Manifest.Golden, want.Manifest.Golden)
	}
	return less
}

func variants(m *release.Manifest) map[string]release.File {
	out := make(map[string]release.File, len(m.Variants))
	for _, v := range m.Variants {
		out[v.Name] = v.Graph
	}
	return out
}

// fetched is what a device that has one file downloads to have another, in bytes.
func (s sizes) fetched(have, want release.File) int64 {
	if have.Digest == want.Digest {
		return 0
	}
	if n, ok := s.deltas.Size(have.Digest, want.Digest); ok {
		return min(n, want.Size)
	}
	return want.Size
}
