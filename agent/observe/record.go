package observe

import (
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// peek returns the labels as they stand, nil when they have not changed since.
func (l *labels) peek(o *Observer) *protocol.Body {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.changed || l.empty() {
		return nil
	}
	l.changed = false
	return labelsBody(o, proto.CloneOf(l.now))
}

// touch makes the next peek return the labels again.
func (l *labels) touch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = true
}

// take takes the labels out to be handed over, nil when there are none.
func (l *labels) take(o *Observer) *protocol.Body {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.empty() {
		return nil
	}
	out := l.now
	l.now, l.changed = l.fresh(), false
	return labelsBody(o, out)
}

// giveBack adds labels that the sink refused to those that came meanwhile.
func (l *labels) giveBack(old *protocol.Labels) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = sketch.MergeLabels(l.now, old) // of one release and one number of classes
	l.changed = true
}

func labelsBody(o *Observer, l *protocol.Labels) *protocol.Body {
	return &protocol.Body{At: o.boot.Stamp(), Kind: &protocol.Body_Labels{Labels: l}}
}
