package api

import (
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// paginate cuts one page out of a list that is sorted by key. A cursor is the
// key of the last item given out: items that come or go between two pages
// neither repeat nor hide others.
func paginate[T any](items []T, p operator.Paging, key func(*T) string) (*operator.Page[T], error) {
	limit, err := pageSize(p)
	if err != nil {
		return nil, err
	}
	from := 0
	if p.Cursor != "" {
		from = sort.Search(len(items), func(i int) bool { return key(&items[i]) > p.Cursor })
	}
	to := min(from+limit, len(items))
	page := &operator.Page[T]{Items: items[from:to:to], Total: len(items)}
	if page.Items == nil {
		page.Items = []T{}
	}
	if to < len(items) {
		page.Next = key(&items[to-1])
	}
	return page, nil
}

func pageSize(p operator.Paging) (int, error) {
	if p.Limit < 0 || p.Limit > operator.MaxPage {
		return 0, operator.Errorf(operator.Invalid, "limit must be 1 to %d", operator.MaxPage)
	}
	if p.Limit == 0 {
		return operator.DefaultPage, nil
	}
	return p.Limit, nil
}

// newestFirst is a key that sorts later moments before earlier ones, and by id
// within one.
func newestFirst(at time.Time, id string) string {
	return fmt.Sprintf("%016x.%s", math.MaxInt64-at.UnixMilli(), id)
}
