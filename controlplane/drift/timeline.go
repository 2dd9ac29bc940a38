package drift

import "slices"

// stretch is what was counted between two moments. Two neighbours can be joined
// into one, which says less about when.
type stretch[T any] interface {
	*T
	bounds() (start, end int64) // Unix milliseconds
	join(next *T)
}

// insert keeps stretches in order of their ends and at most so many of them:
// beyond that, the two neighbours that are cheapest to join become one.
func insert[T any, P stretch[T]](list []T, x T, most int) []T {
	_, end := P(&x).bounds()
	at := len(list)
	for at > 0 && endOf[T, P](list, at-1) > end {
		at--
	}
	list = slices.Insert(list, at, x)
	if len(list) <= most {
		return list
	}
	i := cheapest[T, P](list)
	P(&list[i]).join(&list[i+1])
	return slices.Delete(list, i+1, i+2)
}

func endOf[T any, P stretch[T]](list []T, i int) int64 {
	_, end := P(&list[i]).bounds()
	return end
}

// cheapest finds the neighbours i and i+1 whose span together is smallest
// beside their age, so that resolution falls with age.
func cheapest[T any, P stretch[T]](list []T) int {
	now := endOf[T, P](list, len(list)-1)
	best, least := 0, 0.0
	for i := range len(list) - 1 {
		start, _ := P(&list[i]).bounds()
		end := endOf[T, P](list, i+1)
		cost := float64(end-start+1) / float64(now-end+1)
		if i == 0 || cost < least {
			best, least = i, cost
		}
	}
	return best
}
