package uplink

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// MQTT 3.1.1 packet types.
const (
	connect    = 1
	connack    = 2
	publish    = 3
	puback     = 4
	subscribe  = 8
	suback     = 9
	pingreq    = 12
	pingresp   = 13
	disconnect = 14
)

// broker is the least of an MQTT 3.1.1 broker that a device needs. What devices
// publish goes to up; the test says what they are answered.
type broker struct {
	t        *testing.T
	listener net.Listener
	up       chan *protocol.Up
	presence chan *protocol.Presence
	refuse   bool // answers every subscription with 0x80
	mute     bool // acknowledges no publish

	mu    sync.Mutex // guards the fields below
	code  byte       // answer to CONNECT; not zero refuses
	conns []net.Conn
	wills [][]byte
}

func newBroker(t *testing.T) *broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, listener: l, up: make(chan *protocol.Up, 4096), presence: make(chan *protocol.Presence, 64)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { b.serve(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); b.cut(); wg.Wait() })
	return b
}

func (b *broker) url() string { return "mqtt://" + b.listener.Addr().String() }

// cut ends every connection.
func (b *broker) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	b.conns = nil
}

func (b *broker) serve(conn net.Conn) {
	b.mu.Lock()
	b.conns = append(b.conns, conn)
	b.mu.Unlock()
	defer conn.Close()
	for {
		header, body, err := packet(conn)
		if err != nil {
			return
		}
		switch header >> 4 {
		case connect:
			b.mu.Lock()
			b.wills = append(b.wills, body)
			code := b.code
			b.mu.Unlock()
			conn.Write([]byte{connack << 4, 2, 0, code})
			if code != 0 {
				return
			}
		case subscribe:
			code := byte(0)
			if b.refuse {
				code = 0x80
			}
			conn.Write([]byte{suback << 4, 3, body[0], body[1], code})
		case publish:
			b.published(conn, header, body)
		case pingreq:
			conn.Write([]byte{pingresp << 4, 0})
		case disconnect:
			return
		}
	}
}

func (b *broker) published(conn net.Conn, header byte, body []byte) {
	n := int(binary.BigEndian.Uint16(body))
	topic, rest := string(body[2:2+n]), body[2+n:]
	if header&6 != 0 { // QoS 1
		if !b.mute {
			conn.Write([]byte{puback << 4, 2, rest[0], rest[1]})
		}
		rest = rest[2:]
	}
	if header&1 != 0 {
		b.t.Error("a device published a retained message")
	}
	switch topic {
	case protocol.UpTopic("cam-1"):
		up := &protocol.Up{}
		if err := proto.Unmarshal(rest, up); err != nil {
			b.t.Error(err)
		}
		b.up <- up
	case protocol.StatusTopic("cam-1"):
		p := &protocol.Presence{}
		if err := proto.Unmarshal(rest, p); err != nil {
			b.t.Error(err)
		}
		b.presence <- p
	default:
		b.t.Errorf("published on %s", topic)
	}
}

// down sends a message to every connected device.
func (b *broker) down(topic string, d *protocol.Down) {
	b.t.Helper()
	raw, err := proto.Marshal(d)
	if err != nil {
		b.t.Fatal(err)
	}
	body := binary.BigEndian.AppendUint16(nil, uint16(len(topic)))
	body = append(append(body, topic...), raw...)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Write(append(binary.AppendUvarint([]byte{publish << 4}, uint64(len(body))), body...))
	}
}

func (b *broker) ack(a *protocol.Ack) {
	b.t.Helper()
	b.down(protocol.AckTopic("cam-1"), &protocol.Down{Body: &protocol.Down_Ack{Ack: a}})
}

func packet(r io.Reader) (header byte, body []byte, err error) {
	var one [1]byte
	if _, err := io.ReadFull(r, one[:]); err != nil {
		return 0, nil, err
	}
	header = one[0]
	length, shift := 0, 0
	for {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return 0, nil, err
		}
		length |= int(one[0]&0x7f) << shift
		if shift += 7; one[0]&0x80 == 0 {
			break
		}
	}
	body = make([]byte, length)
	_, err = io.ReadFull(r, body)
	return header, body, err
}

// next returns the next message that is wanted; others are passed over.
func next[T any](t *testing.T, c <-chan T, want func(T) bool) T {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case m := <-c:
			if want(m) {
				return m
			}
		case <-deadline:
			t.Fatal("the message did not come")
		}
	}
}

func hello(up *protocol.Up) bool  { return up.GetHello() != nil }
func report(up *protocol.Up) bool { return up.GetReport() != nil }

func record(seq uint64) func(*protocol.Up) bool {
	return func(up *protocol.Up) bool { return up.GetRecord().GetSeq() == seq }
}
