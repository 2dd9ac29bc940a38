package broker

import (
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/vedette-edge/vedette/protocol"
)

// guard decides who may connect, and as what.
type guard struct {
	admission Admission // set before open is closed
	secret    string
	limits    string
	log       *slog.Logger
	server    *server.Server // set before the server starts
	open      chan struct{}  // closed by Open
	closed    chan struct{}  // closed when the broker stops
}

var _ server.Authentication = (*guard)(nil)

func newGuard(secret string, log *slog.Logger) (*guard, error) {
	limits, err := deviceLimits()
	if err != nil {
		return nil, err
	}
	return &guard{
		secret: secret, limits: limits, log: log,
		open: make(chan struct{}), closed: make(chan struct{}),
	}, nil
}

// mqttHeader is what the server adds to a device's message, of QoS 0 or 1, and
// counts as payload.
const mqttHeader = int64(len("NATS/1.0\r\nNmqtt-Pub:1\r\n\r\n"))

// deviceLimits is a user claim with the limits of a device's connection. The
// server has no other way to limit some connections more than others; nothing
// but the limits is taken from it.
func deviceLimits() (string, error) {
	account, err := nkeys.CreateAccount()
	if err != nil {
		return "", fmt.Errorf("make device limits: %w", err)
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		return "", fmt.Errorf("make device limits: %w", err)
	}
	name, err := user.PublicKey()
	if err != nil {
		return "", fmt.Errorf("make device limits: %w", err)
	}
	claims := jwt.NewUserClaims(name)
	claims.Limits.Payload = protocol.MaxPayload + mqttHeader
	claims.Subs = maxDeviceSubs
	limits, err := claims.Encode(account)
	if err != nil {
		return "", fmt.Errorf("make device limits: %w", err)
	}
	return limits, nil
}

// Check implements server.Authentication.
func (g *guard) Check(c server.ClientAuthentication) bool {
	if c.GetTLSConnectionState() == nil {
		return g.inProcess(c)
	}
	// The listener is there before anybody takes what devices send, and after a
	// restart they are at the door already.
	select {
	case <-g.open:
	case <-g.closed:
		return false
	}
	device, err := g.admit(c)
	if err != nil {
		g.log.Warn("device refused", slog.String("device", device),
			slog.String("remote", remote(c)), slog.Any("error", err))
		return false
	}
	c.GetOpts().JWT = g.limits // read when the account is set
	c.RegisterUser(&server.User{
		Username:    device,
		Account:     g.server.GlobalAccount(),
		Permissions: permissionsOf(device),
	})
	return true
}

// inProcess accepts the control plane's own connections. A device without TLS
// does not get here: its listener speaks nothing else.
func (g *guard) inProcess(c server.ClientAuthentication) bool {
	token := c.GetOpts().Token
	return subtle.ConstantTimeCompare([]byte(token), []byte(g.secret)) == 1
}

// admit proves who connects. The name is for the log even when it is refused.
func (g *guard) admit(c server.ClientAuthentication) (device string, err error) {
	cert, err := verified(c)
	if err != nil {
		return "", err
	}
	device = cert.Subject.CommonName
	if err := protocol.CheckDeviceID(device); err != nil {
		return device, err
	}
	// Without this, any device could connect under another's client id and
	// throw it off: a session belongs to whoever came last. Under its own it may:
	// one whose connection died is not held up by what is left of it.
	if !calledItself(c, device) {
		return device, errClientID
	}
	return device, g.admission.Admit(device, cert)
}

var errClientID = errors.New("a device must connect under its own name: its client id is not its certificate's name")

func verified(c server.ClientAuthentication) (*x509.Certificate, error) {
	chains := c.GetTLSConnectionState().VerifiedChains
	if len(chains) == 0 || len(chains[0]) == 0 {
		return nil, errors.New("no verified client certificate")
	}
	return chains[0][0], nil
}

// calledItself says whether the client id of a connection is a device's name.
// The check is not told the client id, and to ask the server's list of
// connections copies all of it, which ten thousand that come at once cannot
// afford. But the server logs each connection under a text that ends in its
// client id, quoted as Go quotes. Were that to change, nobody would get in.
func calledItself(c server.ClientAuthentication, device string) bool {
	named, ok := c.(fmt.Stringer)
	return ok && strings.HasSuffix(named.String(), " - "+strconv.Quote(device))
}

func remote(c server.ClientAuthentication) string {
	if a := c.RemoteAddress(); a != nil {
		host, _, err := net.SplitHostPort(a.String())
		if err == nil {
			return host
		}
	}
	return ""
}
