package ingest

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Samples keeps rows for labelling. The same name again is the same sample. An
// error means that it may be kept later: the device sends it again. One that
// may not be kept at all is no error. The sample is the caller's again after it.
type Samples interface {
	Keep(ctx context.Context, from Sampled, s *protocol.Sample) error
}

// Sampled is where a sample comes from.
type Sampled struct {
	Device   string
	Name     string // unique for the device
	Received time.Time
	Sent     *protocol.Stamp // of the envelope it came in
	At       *protocol.Stamp // when its window closed
}

// keepSample hands the sealed rows of a sample over and leaves them out of what
// is appended to the stream: there they could not be deleted when they expire,
// and would outweigh all windows [P-10.6].
func (w *worker) keepSample(ctx context.Context, d *device, a *protocol.Accepted) error {
	r := a.GetRecord()
	if len(r.GetBody()) == 0 || a.GetRefused() != "" {
		return nil
	}
	body, err := sketch.DecodeBody(r.GetBody())
	if err != nil || body.GetSample() == nil {
		return nil //nolint:nilerr // whether a body can be read was judged before
	}
	if w.ingest.cfg.Samples != nil {
		from := Sampled{Device: d.name, Name: fmt.Sprintf("%x-%d", r.GetEpoch(), r.GetSeq()), Received: w.ingest.cfg.Now(), Sent: a.GetSent(), At: body.GetAt()}
		if err := w.ingest.cfg.Samples.Keep(ctx, from, body.GetSample()); err != nil {
			return fmt.Errorf("keep sample: %w", err)
		}
	}
	body.GetSample().Sealed = nil
	without, err := proto.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode sample without its rows: %w", err)
	}
	kept := proto.CloneOf(r) // r is the device's message, which may be judged once more
	kept.Body = without
	a.Body = &protocol.Accepted_Record{Record: kept}
	return nil
}
