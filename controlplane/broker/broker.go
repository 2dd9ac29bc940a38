// Package broker runs the one messaging server of the control plane: NATS with
// JetStream in the process, and MQTT over TLS for devices.
//
// Parties: devices, each with a certificate of the control plane's device CA
// whose common name is the device id; and the control plane itself, over
// connections inside the process. There is no other way in: no NATS port is
// open. A device may publish its own `up` and `status` and subscribe to its own
// `down`, under a client id equal to its certificate's name; all else is
// refused. Whether a certificate is still good is asked of an Admission at every
// connect, and Disconnect cuts off a device that is connected already.
//
// Everything JetStream stores is synced before it is acknowledged, because an
// acknowledgement to a device makes it forget the record. Only the broker's own
// MQTT bookkeeping is kept in memory: sessions are clean, so nothing of it has to
// outlive a restart.
package broker

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/vedette-edge/vedette/protocol"
)

// Defaults and limits of the broker.
const (
	// maxMessage bounds one message inside the control plane: a bucket's value
	// with its headers. Devices have protocol.MaxPayload.
	maxMessage = 2 << 20
	// maxStore is more than any disk holds. Streams have bounds of their own, and the
	// server watches how much is free. By default the bounds of all streams together
	// must fit into three quarters of what is free at the start (nats-server,
	// diskAvailable), so that a server would not start again once it had filled its
	// disk a little.
	maxStore = 1 << 50
	// maxDeviceSubs bounds the subscriptions of one device; the protocol needs one.
	maxDeviceSubs = 8
	// maxConnections is above what one machine is meant to serve.
	maxConnections = 250_000
	// connectTimeout is how long TLS and CONNECT may take: ten thousand devices
	// that come back at once need 10 s on two cores.
	connectTimeout = 45 * time.Second
	// storeTimeout is how long the server may take to store a session or a message
	// of a device, which is cut off then and comes back: that costs more than the
	// wait. With the default of 5 s ten thousand that come at once never get in on
	// a machine that is short of processor time. It is less than the 30 s that a
	// device waits: one that tries again while its first try is still under way is
	// refused as its own double.
	storeTimeout = 20 * time.Second
	// startTimeout bounds the start, most of which is reading the streams back.
	startTimeout = 2 * time.Minute
	pingTimeout  = 10 * time.Second
)

// What Start may answer.
var (
	// ErrPortInUse says that something else listens on the MQTT address.
	ErrPortInUse = errors.New("MQTT address is in use")
	// ErrLocked says that another process uses the store directory.
	ErrLocked = errors.New("store directory is in use by another process")
	// ErrStore says that the store directory cannot be written.
	ErrStore = errors.New("store directory cannot be written")
)

// Admission says whether a device's certificate, which the device CA did sign
// and which has not expired, is still good. An error refuses the connection.
type Admission interface {
	Admit(device string, cert *x509.Certificate) error
}

// Config of a broker. All but Logger is required.
type Config struct {
	// Dir is where the streams live. It belongs to the broker alone.
	Dir string
	// MQTT is the address to listen on, "host:port"; port 0 takes a free one.
	MQTT string
	// TLS has the server's certificate and, in ClientCAs, the device CA.
	TLS *tls.Config
	// Logger takes what the server says; nil is none.
	Logger *slog.Logger
}

// Broker is a running server.
type Broker struct {
	server *server.Server
	guard  *guard
	conn   *nats.Conn
	secret string
	port   int
	host   string
	log    *slog.Logger
	lock   *os.File

	closing sync.Once
}

// Start runs a broker. The control plane can use it when Start returns; devices
// have to wait for Open, so that nothing they say finds nobody listening.
func Start(cfg Config) (*Broker, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	host, port, err := splitAddress(cfg.MQTT)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	b := &Broker{secret: newSecret(), host: host, port: port, log: cfg.Logger, lock: lock}
	if err := b.start(cfg); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Broker) start(cfg Config) error {
	if err := probe(cfg.MQTT); err != nil {
		return err
	}
	opts, err := options(cfg, b.host, b.port)
	if err != nil {
		return err
	}
	guard, err := newGuard(b.secret, cfg.Logger)
	if err != nil {
		return err
	}
	b.guard = guard
	opts.CustomClientAuthentication = guard
	srv, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("configure broker: %w", err)
	}
	guard.server = srv
	b.server = srv
	logger := newServerLog(cfg.Logger)
	srv.SetLoggerV2(logger, false, false, false)
	go srv.Start()
	if err := awaitReady(srv, logger.fatal); err != nil {
		return err
	}
	b.port = opts.MQTT.Port
	if b.conn, err = b.Connect("control plane"); err != nil {
		return err
	}
	return prepareMQTT(b.conn)
}

// Open lets devices in, each after asking a. It is called once, when those are
// ready who take what devices send.
func (b *Broker) Open(a Admission) {
	b.guard.admission = a
	close(b.guard.open)
}

// awaitReady asks again and again, because the server tells a failure only to
// its log.
func awaitReady(srv *server.Server, fatal <-chan string) error {
	const step = 200 * time.Millisecond
	for range startTimeout / step {
		if srv.ReadyForConnections(step) {
			return nil
		}
		select {
		case message := <-fatal:
			return fmt.Errorf("start broker: %s", message)
		default:
		}
	}
	return fmt.Errorf("start broker: not ready within %s", startTimeout)
}

// Conn is the control plane's shared connection, inside the process. It ends
// with Close.
func (b *Broker) Conn() *nats.Conn { return b.conn }

// Connect opens another connection inside the process, for a user with so much
// traffic that it should not share. The caller closes it.
func (b *Broker) Connect(name string) (*nats.Conn, error) {
	conn, err := nats.Connect("",
		nats.InProcessServer(b.server),
		nats.Name(name),
		nats.Token(b.secret),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			b.log.Error("broker connection", slog.String("connection", name),
				slog.String("subject", subject), slog.Any("error", err))
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to broker in process: %w", err)
	}
	return conn, nil
}

// MQTTAddr is the address that devices connect to.
func (b *Broker) MQTTAddr() string { return net.JoinHostPort(b.host, strconv.Itoa(b.port)) }

// Disconnect cuts off all connections of a device. It may come back unless
// Admission refuses it.
func (b *Broker) Disconnect(device string) error {
	conns, err := b.server.Connz(&server.ConnzOptions{MQTTClient: device, Limit: maxConnections})
	if err != nil {
		return fmt.Errorf("find connections of %s: %w", device, err)
	}
	for _, c := range conns.Conns {
		// One that is gone meanwhile is what was wanted.
		if err := b.server.DisconnectClientByID(c.Cid); err == nil {
			b.log.Info("device disconnected", slog.String("device", device), slog.Uint64("cid", c.Cid))
		}
	}
	return nil
}

// Ping asks the server for an answer over the shared connection: whether the
// broker still lives.
func (b *Broker) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if err := b.conn.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("ping broker: %w", err)
	}
	return nil
}

// Close stops the broker and waits until its files are closed. It may be called
// again.
func (b *Broker) Close() { b.closing.Do(b.close) }

func (b *Broker) close() {
	if b.guard != nil {
		close(b.guard.closed)
	}
	if b.conn != nil {
		b.conn.Close()
	}
	if b.server != nil {
		b.server.Shutdown()
		b.server.WaitForShutdown()
	}
	if b.lock != nil {
		_ = b.lock.Close() // releases the lock
	}
}

func options(cfg Config, host string, port int) (*server.Options, error) {
	if cfg.TLS == nil || cfg.TLS.ClientCAs == nil {
		return nil, errors.New("configure broker: a server certificate and the device CA are required")
	}
	secure := cfg.TLS.Clone()
	secure.ClientAuth = tls.RequireAndVerifyClientCert
	secure.MinVersion = max(secure.MinVersion, tls.VersionTLS12)
	if port == 0 {
		port = -1 // the server's way to ask for a free one
	}
	opts := &server.Options{}
	// These two have no field.
	if err := opts.ProcessConfigString("mqtt { reject_qos2_publish: true, downgrade_qos2_subscribe: true }"); err != nil {
		return nil, fmt.Errorf("configure broker: %w", err)
	}
	opts.ServerName = "vedette"
	opts.DontListen = true
	opts.NoSigs = true
	opts.JetStream = true
	opts.StoreDir = cfg.Dir
	opts.JetStreamMaxStore = maxStore
	opts.SyncAlways = true
	opts.MaxPayload = maxMessage
	opts.MaxConn = maxConnections
	opts.MQTT.Host, opts.MQTT.Port = host, port
	opts.MQTT.TLSConfig = secure
	opts.MQTT.TLSTimeout = connectTimeout.Seconds()
	opts.MQTT.AuthTimeout = connectTimeout.Seconds()
	opts.MQTT.JSAPITimeout = storeTimeout
	return opts, nil
}

func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("MQTT address %q: %w", address, err)
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("MQTT address %q: port must be 0 to 65535", address)
	}
	return host, int(number), nil
}

// probe listens for a moment: the server itself could only log why it cannot.
func probe(address string) error {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: %s: another control plane or broker may be running here; stop it or choose another address", ErrPortInUse, address)
	}
	if err != nil {
		return fmt.Errorf("listen for MQTT on %s: %w", address, err)
	}
	return l.Close()
}

func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// up, status and down are all that a device may touch.
func permissionsOf(device string) *server.Permissions {
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			protocol.Subject(protocol.UpTopic(device)),
			protocol.Subject(protocol.StatusTopic(device)),
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			protocol.Subject(protocol.DownFilter(device)),
		}},
	}
}
