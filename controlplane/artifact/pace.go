package artifact

import (
	"context"
	"fmt"
	"io"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The client library sends an object's chunks without waiting: 4,000 of them, 2
// GB of ours, may be under way. The broker takes 128 MiB that are not written
// yet and refuses what is beyond (measured: a blob of 2 GiB always was). So a transfer waits for the broker now and then, and
// few of them run at the same time.
const (
	maxAhead = 4 << 20 // bytes of one transfer that are not known to be written
	maxPuts  = 8       // transfers at the same time
)

// paced lets a reader run maxAhead bytes ahead of what wait waits for.
type paced struct {
	io.Reader

	wait  func() error
	ahead int64
}

func (p *paced) Read(b []byte) (int, error) {
	if p.ahead >= maxAhead {
		if err := p.wait(); err != nil {
			return 0, err
		}
		p.ahead = 0
	}
	n, err := p.Reader.Read(b)
	p.ahead += int64(n)
	return n, err
}

// settle returns when the broker has written all chunks sent so far. They are
// written in the order in which they are sent, so it sends one more, an empty
// one that takes the place of the one before, and waits for that.
func (s *Store) settle(ctx context.Context) error {
	m := nats.NewMsg("$O." + bucketName + ".C.settled")
	m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	if _, err := s.js.PublishMsg(ctx, m); err != nil {
		return fmt.Errorf("wait for the object store: %w", err)
	}
	return nil
}
