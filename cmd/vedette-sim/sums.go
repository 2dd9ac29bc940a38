package main

import (
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/protocol"
)

func plusSum(a, b outbox.Sum) outbox.Sum {
	return outbox.Sum{Rows: a.Rows + b.Rows, Labels: a.Labels + b.Labels}
}

func add(s outbox.Sum, t *protocol.Tally) outbox.Sum {
	return outbox.Sum{Rows: s.Rows + t.GetRows(), Labels: s.Labels + t.GetLabels()}
}

// bodyTally is what the body of a record counts.
func bodyTally(raw []byte) *protocol.Tally {
	b := &protocol.Body{}
	if err := proto.Unmarshal(raw, b); err != nil {
		return nil // ingest has read it before
	}
	if b.GetEvent() != nil {
		return b.GetEvent().GetLost()
	}
	return protocol.TallyOf(b)
}
