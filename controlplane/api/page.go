package api

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"sort"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// paginate cuts one page out of a list that is sorted by key. A cursor holds the
// key of the last item given out: items that come or go between two pages
// neither repeat nor hide others.
func paginate[T any](items []T, p operator.Paging, key func(*T) string) (*operator.Page[T], error) {
	limit, err := pageSize(p)
	if err != nil {
		return nil, err
	}
	from := 0
	if p.Cursor != "" {
		last, err := keyOf(p.Cursor)
		if err != nil {
			return nil, err
		}
		from = sort.Search(len(items), func(i int) bool { return key(&items[i]) > last })
	}
	to := min(from+limit, len(items))
	page := &operator.Page[T]{Items: items[from:to:to], Total: len(items)}
	if page.Items == nil {
		page.Items = []T{}
	}
	if to < len(items) {
		page.Next = cursorOf(key(&items[to-1]))
	}
	return page, nil
}

// cursorOf makes a cursor of a key. The checksum tells one from a text that
// somebody made up, which would otherwise be the end of some list.
func cursorOf(key string) string {
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(key)))
	return base64.RawURLEncoding.EncodeToString(append(sum, key...))
}

// keyOf is the key in a cursor.
func keyOf(cursor string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) <= crc32.Size || binary.BigEndian.Uint32(b) != crc32.ChecksumIEEE(b[crc32.Size:]) {
		return "", operator.Errorf(operator.Invalid, "cursor %.40q is not one of this list", cursor).
			WithHint("give next of the page before as it was, or no cursor for the first page")
	}
	return string(b[crc32.Size:]), nil
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

// newestFirstSeq is a key that sorts later records of the ledger before earlier
// ones.
func newestFirstSeq(seq uint64) string { return fmt.Sprintf("%016x", math.MaxUint64-seq) }
