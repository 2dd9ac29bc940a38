package sketch

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
)

// Batch is the rows of one call as plain numbers.
type Batch struct {
	Rows    int
	Inputs  []Tensor
	Outputs []Tensor // watched value by value only when the model has neither class nor scores
	Class   []int64  // index of the predicted class per row; nil: the highest score
	Scores  []float32
	Classes int // scores per row
	// Condition names the circumstance of all rows; a Builder alone looks at it.
	Condition string
}

// Tensor holds Rows × Width numbers in row-major order.
type Tensor struct {
	Name    string
	Shape   []int64 // of one row, without the batch dimension
	Width   int     // numbers per row: the product of Shape
	Data    []float32
	Strings []string // instead of Data: told apart by Hasher, never binned
}

// row returns the numbers of one row, nil when there are not as many.
func (t *Tensor) row(r int) []float32 {
	if (r+1)*t.Width > len(t.Data) {
		return nil
	}
	return t.Data[r*t.Width : (r+1)*t.Width]
}

func find(ts []Tensor, name string) *Tensor {
	for i := range ts {
		if ts[i].Name == name {
			return &ts[i]
		}
	}
	return nil
}

// Hasher tells input rows apart by 64 bits. It holds the buffers, so that
// hashing allocates nothing; one goroutine uses it at a time.
type Hasher struct {
	digest xxhash.Digest
	buf    [512]byte
}

// Row hashes everything that went into the model for one row.
func (h *Hasher) Row(inputs []Tensor, r int) uint64 {
	h.digest.Reset()
	for i := range inputs {
		if s := inputs[i].Strings; s != nil {
			h.text(s, inputs[i].Width, r)
			continue
		}
		h.numbers(inputs[i].row(r))
	}
	return h.digest.Sum64()
}

func (h *Hasher) numbers(row []float32) {
	n := 0
	for _, v := range row {
		binary.LittleEndian.PutUint32(h.buf[n:], math.Float32bits(v))
		if n += 4; n == len(h.buf) {
			_, _ = h.digest.Write(h.buf[:])
			n = 0
		}
	}
	_, _ = h.digest.Write(h.buf[:n])
}

func (h *Hasher) text(all []string, width, r int) {
	for _, s := range all[min(r*width, len(all)):min((r+1)*width, len(all))] {
		binary.LittleEndian.PutUint64(h.buf[:], uint64(len(s)))
		_, _ = h.digest.Write(h.buf[:8])
		_, _ = h.digest.WriteString(s)
	}
}
