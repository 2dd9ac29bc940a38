package deviceapi_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// truths is a Truths with one batch for each device.
type truths struct {
	mu    sync.Mutex // guards taken
	taken map[string]uint64
}

func (s *truths) Next(_ context.Context, device string, taken *protocol.TruthTaken) (*protocol.TruthBatch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		s.taken = map[string]uint64{}
	}
	s.taken[device] = taken.GetSeq()
	if taken.GetSeq() >= 7 {
		return nil, nil
	}
	return &protocol.TruthBatch{Seq: 7, Model: "m", Truths: []*protocol.Truth{{Id: "of " + device, Label: "1"}}}, nil
}

// A device gets the truths that are its own: the certificate names it, and
// nothing that it sends does.
func TestTruthsAreTheDevicesOwn(t *testing.T) {
	b := newBench(t)
	for _, id := range []string{"cam-1", "cam-2"} {
		d := b.enrolled(id)
		res, body := d.do(http.MethodPost, protocol.TruthPath, "")
		batch := &protocol.TruthBatch{}
		if err := proto.Unmarshal(body, batch); err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != protocol.MediaProtobuf {
			t.Fatalf("%s: %d %v %q", id, res.StatusCode, err, body)
		}
		if len(batch.GetTruths()) != 1 || batch.GetTruths()[0].GetId() != "of "+id {
			t.Errorf("%s got %v", id, batch)
		}
		taken, err := proto.Marshal(&protocol.TruthTaken{Seq: batch.GetSeq(), Matched: 1})
		if err != nil {
			t.Fatal(err)
		}
		if res, body := d.do(http.MethodPost, protocol.TruthPath, string(taken)); res.StatusCode != http.StatusNoContent || len(body) != 0 || b.truths.taken[id] != 7 {
			t.Errorf("%s: %d %q, taken %v", id, res.StatusCode, body, b.truths.taken)
		}
	}
	d := b.enrolled("cam-3")
	for name, send := range map[string]string{"no protobuf": "\xff", "too much": strings.Repeat("x", 17<<10)} {
		if res, _ := d.do(http.MethodPost, protocol.TruthPath, send); res.StatusCode/100 != 4 {
			t.Errorf("%s: %d, want a refusal", name, res.StatusCode)
		}
	}
	if res, body := b.device().do(http.MethodPost, protocol.TruthPath, ""); res.StatusCode != http.StatusForbidden {
		t.Errorf("without a certificate: %d %q", res.StatusCode, body)
	}
}
