package ingest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// shelf is a Samples that refuses the first ones.
type shelf struct {
	mu      sync.Mutex // guards all
	refuses int
	kept    map[string]*protocol.Sample
	tries   int
}

func (s *shelf) Keep(_ context.Context, from Sampled, p *protocol.Sample) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tries++; s.tries <= s.refuses {
		return errors.New("disk is full")
	}
	s.kept[from.Device+" "+from.Name] = proto.CloneOf(p)
	return nil
}

func sampleBody(sealed string) *protocol.Body {
	return &protocol.Body{Kind: &protocol.Body_Sample{Sample: &protocol.Sample{
		Model: "m", Release: make([]byte, protocol.DigestSize), Sealed: []byte(sealed), Strata: []*protocol.Stratum{{Name: "7", Seen: 9, Rows: 2}},
	}}}
}

// A sample is handed over before it is acknowledged, and its rows are not in the
// stream, where they could not be deleted. The numbers go on as for any record.
func TestSampleIsKeptApart(t *testing.T) {
	nc, kept := startNATS(t, t.TempDir()), &shelf{refuses: 1, kept: map[string]*protocol.Sample{}}
	i := start(t, nc, Config{Samples: kept})
	w, s := connect(t, nc, "cam-1"), newSender(1)
	first := s.next(t, sampleBody("sealed rows"))
	w.record(first) // refused: no acknowledgement
	w.record(first)
	if a := w.ack(); a.GetSeq() != 1 || a.GetRefused() != "" {
		t.Fatalf("ack %v, want sequence 1", a)
	}
	w.record(s.next(t, window(3)))
	if a := w.ack(); a.GetSeq() != 2 || a.GetTotal().GetRows() != 3 {
		t.Fatalf("ack %v, want sequence 2 and 3 rows", a)
	}
	got := collect(t, i, 2)
	body, err := sketch.DecodeBody(got[0].GetRecord().GetBody())
	if err != nil {
		t.Fatal(err)
	}
	if sample := body.GetSample(); len(sample.GetSealed()) != 0 || sample.GetStrata()[0].GetRows() != 2 {
		t.Errorf("the stream holds %v, want the sample without its rows", sample)
	}
	if !bytes.Equal(got[0].GetRecord().GetChain(), first.GetChain()) {
		t.Error("the record's chain has changed")
	}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if kept.tries != 2 || len(kept.kept) != 1 {
		t.Fatalf("%d tries, kept %v", kept.tries, kept.kept)
	}
	for name, sample := range kept.kept {
		if !strings.HasPrefix(name, "cam-1 ") || string(sample.GetSealed()) != "sealed rows" {
			t.Errorf("%s is %v", name, sample)
		}
	}
}

func TestSamplesAreBounded(t *testing.T) {
	for name, spoil := range map[string]func(*protocol.Sample){
		"model":          func(s *protocol.Sample) { s.Model = "../m" },
		"release":        func(s *protocol.Sample) { s.Release = nil },
		"size":           func(s *protocol.Sample) { s.Sealed = make([]byte, protocol.MaxSample+1) },
		"strata":         func(s *protocol.Sample) { s.Strata = make([]*protocol.Stratum, maxStrata+1) },
		"stratum name":   func(s *protocol.Sample) { s.Strata[0].Name = strings.Repeat("x", maxShort+1) },
		"stratum rows":   func(s *protocol.Sample) { s.Strata[0].Rows = 65 },
		"stratum counts": func(s *protocol.Sample) { s.Strata[0].Seen = maxCount + 1 },
		"expiry":         func(s *protocol.Sample) { s.ExpiresMs = 1 << 50 },
	} {
		b := sampleBody("x")
		if err := checkContent(b); err != nil {
			t.Fatalf("a good one: %v", err)
		}
		spoil(b.GetSample())
		if err := checkContent(b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
