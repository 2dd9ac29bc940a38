// Package uplink is a device's MQTT session with the control plane. It sends
// what the outbox holds, hello and reports, delivers desired state, and backs
// off with jitter when the link is down.
package uplink

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/agent/link"
	"github.com/vedette-edge/vedette/protocol"
)

// Why a session does not come about or ends.
var (
	// ErrRefused says that the broker refused the device's connection or its
	// subscription: its certificate and its device id do not belong together, or
	// it was revoked.
	ErrRefused = errors.New("the control plane refuses this device: check that it is enrolled and not revoked; a revoked one enrols again with a token made with --replace")
	// ErrStuck says that the broker took nothing for so long that the link must be dead.
	ErrStuck = errors.New("the broker stopped answering")
	// ErrNotBroker says that something else answers on the broker's port.
	ErrNotBroker = errors.New("what answers is not the control plane's MQTT broker: check host and port of the broker's address, and look for a proxy in between")
	// errConfig is a programming error of the caller.
	errConfig = errors.New("uplink needs a device id, a broker, an outbox, hello and report")
)

// Outbox is what the uplink empties. agent/outbox is one.
type Outbox interface {
	Send(limit int) ([]*protocol.Record, error)
	Ack(*protocol.Ack) error
	Epochs() []*protocol.Epoch
	Changed() <-chan struct{}
}

// Config of an Uplink. Device, Brokers, Outbox, Hello and Report are required.
type Config struct {
	// Device is the id proven by the certificate; it is the client id too.
	Device string
	// Brokers are tried in turn: mqtts://host:port (TLS) or mqtt://host:port; ssl and tcp mean the same.
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
	// ConnectTimeout bounds opening a connection, and then its handshake, for each
	// broker; DefaultConnectTimeout if 0.
	ConnectTimeout time.Duration
	// MaxBackoff bounds the wait between attempts to connect, DefaultMaxBackoff if 0.
	// The wait is drawn evenly from zero to a bound that doubles from MinBackoff,
	// FirstBackoff if 0.
	MinBackoff, MaxBackoff time.Duration
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

// Defaults of Config.
const (
	DefaultReport     = 60 * time.Second
	DefaultHello      = 5 * time.Minute
	DefaultAckTimeout = 20 * time.Second
	// DefaultConnectTimeout lets a broker under a reconnect storm answer late.
	DefaultConnectTimeout = 30 * time.Second
	// DefaultMaxBackoff lets 30,000 devices come back at the 500 a second one
	// small server takes.
	DefaultMaxBackoff = time.Minute
	// FirstBackoff bounds the first wait after a link that worked.
	FirstBackoff = time.Second
	// MinReportGap keeps an eager caller of Nudge from flooding the link.
	MinReportGap = time.Second
)

// Status is the session for people.
type Status struct {
	Connected bool
	Since     time.Time // of the present state
	LastError string    // why the last connection ended or did not come about
	Code      string    // names that reason: refused, stuck, or a code of package link; it does not change between versions
	Cloned    bool      // the server saw this identity used twice and takes nothing more
}

// Uplink is one device's session.
type Uplink struct {
	cfg     Config
	log     *slog.Logger
	nudge   chan struct{}
	desired chan *protocol.Desired // the newest one not yet delivered

	mu          sync.Mutex // guards what follows
	status      Status
	reportEvery time.Duration
	logged      string // code of the failure logged last, empty while connected
}

// New checks cfg.
func New(cfg Config) (*Uplink, error) {
	if cfg.Device == "" || len(cfg.Brokers) == 0 || cfg.Outbox == nil || cfg.Hello == nil || cfg.Report == nil {
		return nil, errConfig
	}
	if err := protocol.CheckDeviceID(cfg.Device); err != nil {
		return nil, err
	}
	cfg.ReportEvery = cmp.Or(cfg.ReportEvery, DefaultReport)
	cfg.HelloEvery = cmp.Or(cfg.HelloEvery, DefaultHello)
	cfg.AckTimeout = cmp.Or(cfg.AckTimeout, DefaultAckTimeout)
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, DefaultConnectTimeout)
	cfg.MinBackoff = cmp.Or(cfg.MinBackoff, FirstBackoff)
	cfg.MaxBackoff = cmp.Or(cfg.MaxBackoff, DefaultMaxBackoff)
	if cfg.Stamp == nil {
		cfg.Stamp = func() *protocol.Stamp { return nil }
	}
	if cfg.Desired == nil {
		cfg.Desired = func(*protocol.Desired) {}
	}
	if cfg.ServerTime == nil {
		cfg.ServerTime = func(int64) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Uplink{
		cfg: cfg, log: cfg.Logger, reportEvery: cfg.ReportEvery,
		nudge: make(chan struct{}, 1), desired: make(chan *protocol.Desired, 1),
		status: Status{Since: time.Now()},
	}, nil
}

// Run keeps the session until ctx ends; then it says offline and disconnects.
func (u *Uplink) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { u.deliver(ctx) })
	for attempt := 0; ; attempt++ {
		worked, err := u.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if worked {
			attempt = 0
		}
		u.lost(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff(attempt, u.cfg.MinBackoff, u.cfg.MaxBackoff, rand.Float64())): //nolint:gosec // spreads load, keeps no secret
		}
	}
}

// backoff is the wait before an attempt: full jitter, so that a fleet that lost
// its broker at one moment comes back spread out. at is drawn from [0, 1).
func backoff(attempt int, first, limit time.Duration, at float64) time.Duration {
	bound := min(limit, first<<min(attempt, 20))
	return time.Duration(at * float64(bound))
}

// deliver hands desired state over, one at a time.
func (u *Uplink) deliver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-u.desired:
			u.cfg.Desired(d)
		}
	}
}

// offer leaves a desired state for delivery, in place of an older one.
func (u *Uplink) offer(d *protocol.Desired) {
	for {
		select {
		case u.desired <- d:
			return
		default:
		}
		select {
		case waiting := <-u.desired:
			if waiting.GetGeneration() > d.GetGeneration() {
				d = waiting
			}
		default:
		}
	}
}

// Nudge asks for a report now; at most one a second is sent.
func (u *Uplink) Nudge() {
	select {
	case u.nudge <- struct{}{}:
	default:
	}
}

// SetReportEvery changes the longest time between two reports, 0 for the default.
func (u *Uplink) SetReportEvery(d time.Duration) {
	u.mu.Lock()
	u.reportEvery = cmp.Or(d, u.cfg.ReportEvery)
	u.mu.Unlock()
	u.Nudge()
}

func (u *Uplink) every() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reportEvery
}

// Status returns the session's state.
func (u *Uplink) Status() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

func (u *Uplink) up() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status.Connected, u.status.Since = true, time.Now()
	if u.logged != "" {
		u.log.Info("uplink is connected again")
	} else {
		u.log.Info("uplink is connected")
	}
	u.logged = ""
}

// codeOf names why a session ended.
func codeOf(err error) string {
	switch {
	case errors.Is(err, ErrRefused):
		return "refused"
	case errors.Is(err, ErrStuck):
		return "stuck"
	case errors.Is(err, ErrNotBroker):
		return "not_broker"
	default:
		return cmp.Or(link.Code(err), "link")
	}
}

// lost notes why the session ended. Of failures in a row with the same code
// only the first is logged: the log tells what changed, however long it lasts.
func (u *Uplink) lost(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	since := u.status.Since
	if u.status.Connected {
		since = time.Now()
	}
	u.status = Status{Since: since, Cloned: u.status.Cloned}
	code := codeOf(err)
	if err != nil {
		u.status.LastError, u.status.Code = err.Error(), code
	}
	if code != u.logged {
		u.log.Warn("uplink has no connection, trying again", "code", code, "error", err)
	}
	u.logged = code
}

func (u *Uplink) cloned(is bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if is && !u.status.Cloned {
		u.log.Error("the control plane saw this device's identity used twice and takes no more records: enrol the copy under an id of its own")
	}
	u.status.Cloned = is
}
