// Package uplink is a device's MQTT session with the control plane. It sends
// what the outbox holds, hello and reports, delivers desired state, and backs
// off with jitter when the link is down.
package uplink

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// Outbox is what the uplink empties. agent/outbox is one.
type Outbox interface {
	Send(max int) ([]*protocol.Record, error)
	Ack(*protocol.Ack) error
	Epochs() []*protocol.Epoch
	Changed() <-chan struct{}
}

// Config of an Uplink. Device, Brokers, Outbox, Hello and Report are required.
type Config struct {
	// Device is the id proven by the certificate; it is the client id too.
	Device string
	// Brokers are tried in turn: ssl://host:port or tcp://host:port.
	Brokers []string
	// TLS is asked at every connect, so a renewed certificate is used. Nil for tcp.
	TLS func() *tls.Config
	// Outbox holds the records.
	Outbox Outbox
	// Hello describes the device; the uplink adds connection and epochs.
	Hello func() *protocol.Hello
	// Report is the device's whole reported state.
	Report func() *protocol.Report
	// Stamp dates envelopes; nil leaves them undated.
	Stamp func() *protocol.Stamp
	// Desired receives desired state, on a goroutine of its own; the newest one wins.
	Desired func(*protocol.Desired)
	// ServerTime receives the server's clock, Unix milliseconds. It must not block.
	ServerTime func(ms int64)
	// ReportEvery is the longest time between two reports, DefaultReport if 0. SetReportEvery changes it.
	ReportEvery time.Duration
	// HelloEvery is the time between two hellos on one connection, DefaultHello if 0, jittered by half.
	HelloEvery time.Duration
	// AckTimeout is how long a record may go unanswered before it is sent again, DefaultAckTimeout if 0.
	AckTimeout time.Duration
	// MaxBackoff bounds the wait between attempts to connect, DefaultMaxBackoff if 0.
	MaxBackoff time.Duration
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

// Defaults of Config.
const (
	DefaultReport     = 60 * time.Second
	DefaultHello      = 5 * time.Minute
	DefaultAckTimeout = 20 * time.Second
	// DefaultMaxBackoff lets 30,000 devices come back at the 500 a second one
	// small server takes.
	DefaultMaxBackoff = time.Minute
)

// Status is the session for people.
type Status struct {
	Connected bool
	Since     time.Time // of the present state
	LastError string    // why the last connection ended or did not come about
	Cloned    bool      // the server saw this identity used twice and takes nothing more
}

// Uplink is one device's session.
type Uplink struct{}

// New checks cfg.
func New(cfg Config) (*Uplink, error) { return nil, nil }

// Run keeps the session until ctx ends; then it says offline and disconnects.
func (u *Uplink) Run(ctx context.Context) error { return nil }

// Nudge asks for a report now; at most one a second is sent.
func (u *Uplink) Nudge() {}

// SetReportEvery changes the longest time between two reports, 0 for the default.
func (u *Uplink) SetReportEvery(d time.Duration) {}

// Status returns the session's state.
func (u *Uplink) Status() Status { return Status{} }
