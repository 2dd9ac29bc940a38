package broker_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// Packet types and flags of MQTT 3.1.1.
const (
	connect    = 0x10
	connack    = 0x20
	publish    = 0x30
	puback     = 0x40
	subscribe  = 0x82
	suback     = 0x90
	pingreq    = 0xC0
	pingresp   = 0xD0
	disconnect = 0xE0

	qos1     = 0x02
	retain   = 0x01
	refused  = 0x80
	wait     = 20 * time.Second // bound of every read; nothing waits for it
	accepted = 0
)

// client is a bare MQTT 3.1.1 client: it sends what a polite library would not.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	id   uint16
	// messages that came while something else was awaited
	messages []message
}

type message struct {
	topic   string
	payload string
	flags   byte
}

type will struct {
	topic, payload string
	retain         bool
}

// dial opens the TLS connection only.
func dial(tb testing.TB, addr string, cfg *tls.Config) (*client, error) {
	tb.Helper()
	conn, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return nil, err
	}
	tb.Cleanup(func() { conn.Close() })
	return &client{t: tb, conn: conn, in: bufio.NewReader(conn)}, nil
}

func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

func (c *client) send(header byte, body []byte) error {
	packet := binary.AppendUvarint([]byte{header}, uint64(len(body)))
	_, err := c.conn.Write(append(packet, body...))
	return err
}

func (c *client) receive() (header byte, body []byte, err error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return 0, nil, err
	}
	if header, err = c.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(c.in)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, length)
	_, err = io.ReadFull(c.in, body)
	return header, body, err
}

// await returns the next packet of a type; messages on the way are kept.
func (c *client) await(kind byte) ([]byte, error) {
	for {
		header, body, err := c.receive()
		if err != nil {
			return nil, err
		}
		if header&0xF0 == kind&0xF0 {
			return body, nil
		}
		if header&0xF0 == publish {
			c.keep(header, body)
			continue
		}
		return nil, fmt.Errorf("got packet %#x, want %#x", header, kind)
	}
}

func (c *client) keep(header byte, body []byte) {
	n := binary.BigEndian.Uint16(body)
	topic, rest := string(body[2:2+n]), body[2+n:]
	if header&0x06 != 0 {
		rest = rest[2:]
	}
	c.messages = append(c.messages, message{topic, string(rest), header & 0x0F})
}

// login sends CONNECT and returns the server's code.
func (c *client) login(clientID string, clean bool, w *will) (byte, error) {
	var flags byte
	if clean {
		flags |= 0x02
	}
	payload := text(clientID)
	if w != nil {
		flags |= 0x04
		if w.retain {
			flags |= 0x20
		}
		payload = append(append(payload, text(w.topic)...), text(w.payload)...)
	}
	body := append(text("MQTT"), 4, flags, 0, 60)
	if err := c.send(connect, append(body, payload...)); err != nil {
		return 0, err
	}
	answer, err := c.await(connack)
	if err != nil {
		return 0, err
	}
	return answer[1], nil
}

// subscribe returns the granted QoS or refused.
func (c *client) subscribe(filter string, qos byte) byte {
	c.t.Helper()
	c.id++
	body := binary.BigEndian.AppendUint16(nil, c.id)
	if err := c.send(subscribe, append(append(body, text(filter)...), qos)); err != nil {
		c.t.Fatalf("subscribe %s: %v", filter, err)
	}
	answer, err := c.await(suback)
	if err != nil {
		c.t.Fatalf("subscribe %s: %v", filter, err)
	}
	return answer[2]
}

// publish sends a message and, with QoS 1, waits for the PUBACK.
func (c *client) publish(topic, payload string, flags byte) error {
	body := text(topic)
	if flags&qos1 != 0 {
		c.id++
		body = binary.BigEndian.AppendUint16(body, c.id)
	}
	if err := c.send(publish|flags, append(body, payload...)); err != nil {
		return err
	}
	if flags&qos1 == 0 {
		return nil
	}
	_, err := c.await(puback)
	return err
}

// sync waits until the server has dealt with everything sent before.
func (c *client) sync() {
	c.t.Helper()
	if err := c.send(pingreq, nil); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.await(pingresp); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next message.
func (c *client) next() message {
	c.t.Helper()
	for len(c.messages) == 0 {
		header, body, err := c.receive()
		if err != nil {
			c.t.Fatal(err)
		}
		if header&0xF0 == publish {
			c.keep(header, body)
		}
	}
	m := c.messages[0]
	c.messages = c.messages[1:]
	return m
}

// closed reports that the server has closed the connection, and fails if it
// does not.
func (c *client) closed() {
	c.t.Helper()
	for {
		if _, _, err := c.receive(); err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				c.t.Error("the connection was not closed")
			}
			return
		}
	}
}
