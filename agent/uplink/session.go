package uplink

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	randv2 "math/rand/v2"
	"net"
	"net/url"
	"slices"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/link"
	"github.com/vedette-edge/vedette/protocol"
)

const (
	keepAlive      = 30 * time.Second
	pingTimeout    = 15 * time.Second
	subackTimeout  = 30 * time.Second
	goodbyeTimeout = 2 * time.Second
	maxUnanswered  = 8 * protocol.MaxSent // publishes without PUBACK before the link counts as dead
	maxDown        = 64                   // received messages waiting for the session
)

// session is one connection. Its fields belong to the goroutine of run; paho's
// goroutines only put into channels, so nothing ever waits for paho inside paho.
type session struct {
	u          *Uplink
	client     mqtt.Client
	connection []byte
	down       chan []byte
	lost       chan error
	done       chan struct{} // closed when run ends
	flow       *flow
	waiting    []mqtt.Token // publishes without PUBACK
	told       []byte       // what the last hello said of the current epoch
	reported   time.Time
}

// session connects, runs and ends one connection. worked says that it could be used.
func (u *Uplink) session(ctx context.Context) (worked bool, err error) {
	s := &session{
		u: u, connection: make([]byte, 16), down: make(chan []byte, maxDown), lost: make(chan error, 1),
		done: make(chan struct{}), flow: newFlow(u.cfg.AckTimeout, time.Now()),
	}
	rand.Read(s.connection) // never fails
	s.client = mqtt.NewClient(s.options(ctx))
	defer s.client.Disconnect(0)
	defer close(s.done)
	if err := s.connect(ctx); err != nil {
		return false, err
	}
	u.up()
	err = s.run(ctx)
	if ctx.Err() != nil {
		s.goodbye()
	}
	return true, err
}

func (s *session) options(ctx context.Context) *mqtt.ClientOptions {
	cfg := s.u.cfg
	o := mqtt.NewClientOptions().
		SetClientID(cfg.Device).
		SetProtocolVersion(4).
		SetCleanSession(true).
		SetAutoReconnect(false). // a new connection is a new session: nothing of the old one is sent again
		SetKeepAlive(keepAlive).
		SetPingTimeout(pingTimeout).
		SetConnectTimeout(cfg.ConnectTimeout).
		SetWriteTimeout(DefaultConnectTimeout).
		// Of QoS 0: a broker may hold the device up that comes back until it has stored the will.
		SetBinaryWill(protocol.StatusTopic(cfg.Device), s.presence(false), 0, false).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			select {
			case s.lost <- err:
			default:
			}
		}).
		SetCustomOpenConnectionFn(func(broker *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
			return s.u.dial(ctx, broker)
		})
	for _, b := range cfg.Brokers {
		o.AddBroker(b)
	}
	return o
}

// dial opens the transport. It ends with ctx, which paho's own dialler would not.
func (u *Uplink) dial(ctx context.Context, broker *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.ConnectTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", broker.Host)
	if err != nil {
		return nil, fmt.Errorf("dial broker: %w", err)
	}
	if u.cfg.TLS == nil || broker.Scheme == "tcp" || broker.Scheme == "mqtt" {
		return &greeted{Conn: conn}, nil
	}
	cfg := u.cfg.TLS().Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = broker.Hostname()
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS with broker: %w", err), conn.Close())
	}
	return &greeted{Conn: secured}, nil
}

// greeted is a connection whose first byte has to be a broker's: a web server's
// answer reads as a long MQTT packet that is cut off.
type greeted struct {
	net.Conn
	heard bool
}

func (g *greeted) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if !g.heard && n > 0 && b[0] != packets.Connack<<4 {
		return 0, ErrNotBroker
	}
	g.heard = g.heard || n > 0
	return n, err
}

// wait waits for paho, at most for a time.
func wait(ctx context.Context, t mqtt.Token, limit time.Duration, what string) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("%s: %w", what, ErrStuck)
	}
}

func (s *session) connect(ctx context.Context) error {
	switch err := wait(ctx, s.client.Connect(), time.Duration(2*len(s.u.cfg.Brokers))*s.u.cfg.ConnectTimeout, "connect"); {
	case errors.Is(err, packets.ErrorRefusedNotAuthorised), errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword):
		return fmt.Errorf("connect: %w", ErrRefused)
	case err != nil:
		return fmt.Errorf("connect: %w", link.Explain(err))
	}
	filter := protocol.DownFilter(s.u.cfg.Device)
	token := s.client.Subscribe(filter, 0, s.receive)
	err := wait(ctx, token, subackTimeout, "subscribe")
	if sub, ok := token.(*mqtt.SubscribeToken); ok && sub.Result()[filter] == 0x80 {
		return ErrRefused // a SUBACK that refuses is no error to every client library [P-3.2]
	}
	if err != nil {
		return fmt.Errorf("subscribe: %w", link.Explain(err))
	}
	return nil
}

// receive runs on paho's goroutine.
func (s *session) receive(_ mqtt.Client, m mqtt.Message) {
	select {
	case s.down <- m.Payload():
	case <-s.done:
	}
}

// run is the session's life after SUBACK.
func (s *session) run(ctx context.Context) error {
	cfg := s.u.cfg
	s.publish(protocol.StatusTopic(cfg.Device), s.presence(true))
	s.hello()
	s.report(time.Now())
	s.pump()
	hello := time.NewTimer(jitter(cfg.HelloEvery))
	defer hello.Stop()
	report := time.NewTimer(s.u.every())
	defer report.Stop()
	check := time.NewTicker(max(cfg.AckTimeout/4, 10*time.Millisecond))
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.lost:
			return fmt.Errorf("connection lost: %w", link.Explain(err))
		case raw := <-s.down:
			s.take(raw)
		case <-cfg.Outbox.Changed():
			s.pump()
		case <-s.u.nudge:
			report.Reset(max(0, MinReportGap-time.Since(s.reported)))
		case now := <-report.C:
			s.report(now)
			report.Reset(s.u.every())
		case <-hello.C:
			s.hello()
			hello.Reset(jitter(cfg.HelloEvery))
		case now := <-check.C:
			if err := s.check(now); err != nil {
				return err
			}
		}
	}
}

// jitter spreads a period over half to one and a half of itself.
func jitter(d time.Duration) time.Duration {
	return d/2 + randv2.N(d) //nolint:gosec // spreads load, keeps no secret
}

// take handles one message from the control plane.
func (s *session) take(raw []byte) {
	d := &protocol.Down{}
	if len(raw) > protocol.MaxPayload || proto.Unmarshal(raw, d) != nil {
		s.u.log.Warn("message from the control plane cannot be read", "bytes", len(raw))
		return
	}
	switch body := d.GetBody().(type) {
	case *protocol.Down_Desired:
		s.serverTime(body.Desired.GetServerMs())
		s.u.offer(body.Desired)
	case *protocol.Down_Ack:
		s.serverTime(body.Ack.GetServerMs())
		s.ack(body.Ack)
	}
}

func (s *session) serverTime(ms int64) {
	if ms > 0 {
		s.u.cfg.ServerTime(ms)
	}
}

func (s *session) ack(a *protocol.Ack) {
	s.u.cloned(a.GetCloned())
	if a.GetCloned() {
		return
	}
	if a.GetRefused() != "" {
		s.u.log.Error("the control plane counted a record as lost", "reason", a.GetRefused(), "sequence", a.GetSeq())
	}
	s.flow.ack(a, time.Now())
	if err := s.u.cfg.Outbox.Ack(a); err != nil {
		s.u.log.Debug("acknowledgement could not be kept", "error", err) // the same
	}
	s.pump()
}

// pump publishes what is due. A change of epoch is told first.
func (s *session) pump() {
	if !bytes.Equal(s.told, current(s.u.cfg.Outbox.Epochs())) {
		s.hello()
	}
	if s.u.Status().Cloned {
		return
	}
	records, err := s.u.cfg.Outbox.Send(protocol.MaxSent)
	if err != nil {
		s.u.log.Debug("outbox could not number records", "error", err) // the outbox logs it, once
	}
	for _, r := range s.flow.due(records, time.Now()) {
		s.send(&protocol.Up{Body: &protocol.Up_Record{Record: r}})
	}
}

// current is what a hello says of the current epoch, without its counters.
func current(epochs []*protocol.Epoch) []byte {
	for _, e := range epochs {
		if e.GetCurrent() {
			state := byte(0)
			if e.GetClosing() {
				state = 1
			}
			return append(slices.Clone(e.GetId()), state)
		}
	}
	return nil
}

func (s *session) hello() {
	h := proto.CloneOf(s.u.cfg.Hello())
	h.Connection, h.Epochs = s.connection, s.u.cfg.Outbox.Epochs()
	s.told = current(h.GetEpochs())
	s.send(&protocol.Up{Body: &protocol.Up_Hello{Hello: h}})
}

func (s *session) report(now time.Time) {
	s.reported = now
	s.send(&protocol.Up{Body: &protocol.Up_Report{Report: s.u.cfg.Report()}})
}

func (s *session) send(up *protocol.Up) {
	up.Protocol, up.Sent = protocol.Version, s.u.cfg.Stamp()
	raw, err := proto.Marshal(up)
	if err != nil || len(raw) > protocol.MaxPayload {
		s.u.log.Error("message cannot be sent", "bytes", len(raw), "error", err)
		return
	}
	s.publish(protocol.UpTopic(s.u.cfg.Device), raw)
}

func (s *session) publish(topic string, raw []byte) {
	s.waiting = append(s.waiting, s.client.Publish(topic, 1, false, raw))
}

func (s *session) presence(online bool) []byte {
	raw, err := proto.Marshal(&protocol.Presence{Connection: s.connection, Online: online})
	if err != nil {
		panic(err) // a message of two small fields always encodes
	}
	return raw
}

// check looks after time: records without an answer, publishes without PUBACK,
// a question for the cursor without an answer.
func (s *session) check(now time.Time) error {
	s.waiting = slices.DeleteFunc(s.waiting, func(t mqtt.Token) bool {
		select {
		case <-t.Done():
			return true
		default:
			return false
		}
	})
	if len(s.waiting) > maxUnanswered {
		return fmt.Errorf("%d messages without an answer: %w", len(s.waiting), ErrStuck)
	}
	if s.flow.expire(now) {
		if e := s.u.cfg.Outbox.Epochs(); slices.ContainsFunc(e, func(e *protocol.Epoch) bool { return e.GetCurrent() && e.GetClosing() }) {
			s.hello()
		}
		s.pump()
	}
	return nil
}

// goodbye says offline, so that the will is not needed, and disconnects.
func (s *session) goodbye() {
	token := s.client.Publish(protocol.StatusTopic(s.u.cfg.Device), 1, false, s.presence(false))
	token.WaitTimeout(goodbyeTimeout)
	s.client.Disconnect(uint(goodbyeTimeout / time.Millisecond / 10))
}
