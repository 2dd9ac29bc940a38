package api

import (
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

func TestPagesCoverAListOnce(t *testing.T) {
	all := []string{"a", "b", "c", "d", "e", "f", "g"}
	key := func(s *string) string { return *s }
	for limit := 1; limit <= len(all)+1; limit++ {
		var got []string
		for cursor, more := "", true; more; {
			page, err := paginate(all, operator.Paging{Limit: limit, Cursor: cursor}, key)
			if err != nil {
				t.Fatal(err)
			}
			if page.Total != len(all) || len(page.Items) > limit {
				t.Errorf("limit %d: got %d items of %d", limit, len(page.Items), page.Total)
			}
			got = append(got, page.Items...)
			cursor, more = page.Next, page.Next != ""
		}
		if !slices.Equal(got, all) {
			t.Errorf("limit %d: got %v", limit, got)
		}
	}
}

// What disappears between two pages hides nothing, and an empty list is a list.
func TestPagesOfAChangingList(t *testing.T) {
	key := func(s *string) string { return *s }
	page, err := paginate([]string{"a", "c"}, operator.Paging{Cursor: cursorOf("b")}, key)
	if err != nil || !slices.Equal(page.Items, []string{"c"}) || page.Next != "" {
		t.Errorf("got %+v, %v", page, err)
	}
	if page, err := paginate(nil, operator.Paging{}, key); err != nil || page.Items == nil {
		t.Errorf("got %+v, %v", page, err)
	}
	for _, cursor := range []string{"rubbish", "!!!", "b", cursorOf(""), cursorOf("b") + "A"} {
		if _, err := paginate([]string{"a", "c"}, operator.Paging{Cursor: cursor}, key); operator.CodeOf(err) != operator.Invalid {
			t.Errorf("cursor %q: got %v, want invalid", cursor, err)
		}
	}
	for _, limit := range []int{-1, operator.MaxPage + 1} {
		if _, err := paginate(nil, operator.Paging{Limit: limit}, key); operator.CodeOf(err) != operator.Invalid {
			t.Errorf("limit %d: got %v", limit, err)
		}
	}
}

func TestNewestFirstSorts(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	keys := []string{newestFirst(now, "a"), newestFirst(now, "b"), newestFirst(now.Add(-time.Millisecond), "a"), newestFirst(time.UnixMilli(1), "a")}
	if !slices.IsSorted(keys) {
		t.Errorf("got %q", keys)
	}
}
