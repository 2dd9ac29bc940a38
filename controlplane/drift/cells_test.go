package drift

import (
	"encoding/json"
	"slices"
	"testing"
)

func TestCellsComeBack(t *testing.T) {
	for name, counts := range map[string][]uint64{
		"one zero":           {0},
		"only zeros":         make([]uint64, 300),
		"no zeros":           {1, 2, 300, 1 << 40},
		"zeros at both ends": {0, 0, 7, 0, 5, 0, 0, 0},
		"alternating":        {0, 1, 0, 1, 0},
		"largest":            {1<<64 - 1, 0, 1<<64 - 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := packCells(counts)
			if got := c.counts(); !slices.Equal(got, counts) {
				t.Errorf("got %v, want %v", got, counts)
			}
			twice := slices.Clone(counts)
			c.addTo(twice)
			for i, n := range twice {
				if want := 2 * counts[i]; n != want {
					t.Errorf("cell %d: got %d, want %d", i, n, want)
				}
			}
			raw, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			list, err := json.Marshal(counts) // as checkpoints had it before
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range [][]byte{raw, list} {
				var back cells
				if err := json.Unmarshal(text, &back); err != nil || !slices.Equal(back, c) {
					t.Errorf("%s: got %v, %v, want %v", text, back, err, c)
				}
			}
		})
	}
}

func TestCellsJoin(t *testing.T) {
	a, b := packCells([]uint64{0, 1, 0}), packCells([]uint64{0, 0, 2})
	if got, want := joinCells(a, b).counts(), []uint64{0, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("sum: got %v, want %v", got, want)
	}
	for name, pair := range map[string][2]cells{
		"not known":     {a, nil},
		"other lengths": {a, packCells([]uint64{1})},
	} {
		if got := joinCells(pair[0], pair[1]); got != nil {
			t.Errorf("%s: got %v, want nil", name, got)
		}
	}
}

func FuzzCellsFromACheckpoint(f *testing.F) {
	f.Add([]byte(`"AwAB"`))
	f.Add([]byte(`"//////8P"`))
	f.Add([]byte(`[1,0,0,9]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c cells
		if json.Unmarshal(data, &c) != nil {
			return
		}
		counts := c.counts()
		if got := packCells(counts).counts(); !slices.Equal(got, counts) {
			t.Errorf("got %v, want %v", got, counts)
		}
	})
}
