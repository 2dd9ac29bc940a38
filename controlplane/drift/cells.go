package drift

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// cells are the counts of a segment as they are kept: a device has up to
// maxSegments of them on each release, most of a window's cells are zero and
// few of the others need more than a byte. The number of cells comes first; then
// each count as a varint, and a run of zeros as a zero and its length less one.
// Nil is not known.
type cells []byte

func packCells(counts []uint64) cells {
	c := binary.AppendUvarint(make([]byte, 0, len(counts)/2+8), uint64(len(counts)))
	for i := 0; i < len(counts); i++ {
		c = binary.AppendUvarint(c, counts[i])
		if counts[i] > 0 {
			continue
		}
		run := 1
		for i+run < len(counts) && counts[i+run] == 0 {
			run++
		}
		c = binary.AppendUvarint(c, uint64(run-1))
		i += run - 1
	}
	return append(make(cells, 0, len(c)), c...)
}

// len is how many cells there are, 0 when they are not known.
func (c cells) len() int {
	n, used := binary.Uvarint(c)
	if used <= 0 {
		return 0
	}
	return int(n) //nolint:gosec // packCells wrote it, or check has looked
}

// addTo adds the counts to as many cells.
func (c cells) addTo(dst []uint64) {
	_, used := binary.Uvarint(c)
	for i := 0; used > 0 && i < len(dst); i++ {
		c = c[used:]
		var n uint64
		if n, used = binary.Uvarint(c); used > 0 && n == 0 {
			c = c[used:]
			n, used = binary.Uvarint(c)
			i += int(min(n, uint64(len(dst)))) //nolint:gosec // bounded
			continue
		}
		dst[i] += n
	}
}

func (c cells) counts() []uint64 {
	out := make([]uint64, c.len())
	c.addTo(out)
	return out
}

// joinCells gives up what one of both does not know.
func joinCells(a, b cells) cells {
	if a == nil || b == nil || a.len() != b.len() {
		return nil
	}
	sum := a.counts()
	b.addTo(sum)
	return packCells(sum)
}

// UnmarshalJSON reads cells as they are written, or as the list of counts that
// checkpoints held before.
func (c *cells) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		var counts []uint64
		if err := json.Unmarshal(data, &counts); err != nil {
			return fmt.Errorf("read cells: %w", err)
		}
		*c = packCells(counts)
		return nil
	}
	var text *string
	if err := json.Unmarshal(data, &text); err != nil || text == nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(*text)
	if err != nil {
		return fmt.Errorf("read cells: %w", err)
	}
	*c = raw
	return c.check()
}

// maxCells is above what the largest baseline has.
const maxCells = 1 << 20

// check refuses what would make len ask for too much.
func (c cells) check() error {
	if n, used := binary.Uvarint(c); len(c) > 0 && (used <= 0 || n > maxCells) {
		return fmt.Errorf("read cells: %d cells cannot be", n)
	}
	return nil
}
