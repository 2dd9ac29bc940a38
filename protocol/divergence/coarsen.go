package divergence

import (
	"cmp"
	"slices"

	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Coarsen groups the bins of a stream into few of near equal training mass, so
// that an answer needs few rows. It returns the group of every bin, nil for the
// bins as they are, and the number of groups.
func Coarsen(s *sketch.Stream) (group []uint8, bins int) {
	if s.Kind == sketch.Categorical {
		return coarsenCategories(s.Counts)
	}
	if len(s.Counts) <= MaxBins-Reserved {
		return nil, len(s.Counts)
	}
	return coarsenOrdered(s.Counts, MaxBins-Reserved)
}

// coarsenOrdered joins neighbours. A group is closed when taking the next bin
// would carry it further beyond its fair share than it is short of it now.
func coarsenOrdered(counts []uint64, most int) ([]uint8, int) {
	var left, held float64
	for _, n := range counts {
		left += float64(n)
	}
	group := make([]uint8, len(counts))
	g := 0
	for i, n := range counts {
		share := left / float64(most-g)
		if held > 0 && g < most-1 && held+float64(n)/2 > share {
			left -= held
			held = 0
			g++
		}
		held += float64(n)
		group[i] = uint8(g)
	}
	return group, g + 1
}

// coarsenCategories keeps the most frequent ones apart and joins the rest.
func coarsenCategories(counts []uint64) ([]uint8, int) {
	if len(counts) <= MaxBins {
		return nil, len(counts)
	}
	order := make([]int, len(counts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(counts[b], counts[a]) })
	group := make([]uint8, len(counts))
	for rank, i := range order {
		group[i] = uint8(min(rank, MaxBins-1))
	}
	return group, MaxBins
}
