package delta

import (
	"math/rand/v2"
	"testing"
)

func TestEqual(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for n := range 40 {
		a, b := make([]byte, n), make([]byte, n+3)
		want := 0
		for i := range a {
			a[i], b[i] = byte(r.IntN(3)*0x7f), byte(r.IntN(3)*0x7f) // carries and signs
			if a[i] == b[i] {
				want++
			}
		}
		if got := equal(a, b); got != want {
			t.Errorf("%x and %x share %d bytes, got %d", a, b[:n], want, got)
		}
	}
}
