//go:build !race

package serve

import (
	"context"
	"testing"
)

// TestAnswerAllocatesNothing holds the path of a prediction, without traces, to
// no allocation between the connection's buffers.
func TestAnswerAllocatesNothing(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{})
	if s.traces != nil {
		t.Fatal("traces are on")
	}
	x := s.exchange()
	body := []byte(`{"id":"p","inputs":[{"name":"X","shape":[2,3],"datatype":"FP32","data":[1,2,3,-4,-5.5,0.5]},{"name":"note","shape":[2],"datatype":"BYTES","data":["",""]}]}`)
	once := func() {
		if err := x.req.decode(body, len(body)); err != nil {
			t.Fatal(err)
		}
		x.req.Model = "adder"
		if err := s.answer(context.Background(), &x.req, &x.resp); err != nil {
			t.Fatal(err)
		}
		x.out, _ = encodeResponse(x.out[:0], &x.req, &x.resp)
	}
	once()
	if n := testing.AllocsPerRun(1000, once); n > 1 { // the id
		t.Errorf("%v allocations a prediction, want at most one, for the id", n)
	}
}
