// Package deviceapi is the HTTPS server that devices alone speak to: it gives
// them their certificates, the signed metadata, and the files of releases.
//
// Parties and keys: the server shows a certificate of the device CA, with the
// CA's own behind it, so that a new device can compare it with its enrolment
// token. A device shows the certificate it was given, on every route but
// enrolment. TLS proves that it has the key; whether the certificate is good for
// the route is checked at every request, so that a refusal has a reason that a
// person can read, and a revocation works on open connections too. An expired
// certificate is good for renewal only.
package deviceapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Limits of the server.
const (
	// maxBody bounds a request's body in bytes: a token and a CSR.
	maxBody = 16 << 10
	// maxHeader bounds a request's headers in bytes.
	maxHeader = 16 << 10
	// headerTimeout bounds the TLS handshake and the request's headers: ten
	// thousand devices that come at once need 10 s for their handshakes.
	headerTimeout = 45 * time.Second
	bodyTimeout   = 30 * time.Second
	// stallTimeout is how long a blob's reader may take nothing. A slow link is
	// fine, a dead one must not hold a file open.
	stallTimeout = 60 * time.Second
	idleTimeout  = 2 * time.Minute
)

// ErrPortInUse says that something else listens on the address.
var ErrPortInUse = errors.New("address of the device API is in use")

// Access gives and judges certificates. It is an *access.Authority.
type Access interface {
	Enrol(ctx context.Context, req protocol.EnrolRequest) (*access.Enrolment, error)
	Renew(ctx context.Context, device string, cert *x509.Certificate, csr []byte) (*x509.Certificate, error)
	Admit(device string, cert *x509.Certificate) error
}

// Fleet is told of new devices before they get their certificate.
type Fleet interface {
	Enrolled(ctx context.Context, device string, labels map[string]string) error
}

// Trust has the signed metadata. An error means that there is none of that name.
type Trust interface {
	TrustMetadata(name string) ([]byte, error)
}

// Blobs has the files of releases; artifact.ErrNotFound says that one is not there.
type Blobs interface {
	Open(ctx context.Context, d release.Digest) (io.ReadSeekCloser, int64, error)
}

// Deltas knows what makes one blob of another. It is an *artifact.Deltas.
type Deltas interface {
	// Offer returns the smallest delta to a blob from one of those that the
	// device has, without waiting for one to be made.
	Offer(to release.Digest, from []release.Digest) (protocol.DeltaOffer, bool)
}

// Truths has what was found out about a device's predictions. It is a
// *truth.Service.
type Truths interface {
	Next(ctx context.Context, device string, taken *protocol.TruthTaken) (*protocol.TruthBatch, error)
}

// Config of a server. All but the last six are required.
type Config struct {
	CA     *access.CA
	Access Access
	Fleet  Fleet
	Trust  Trust
	Blobs  Blobs

	Deltas Deltas // nil: devices fetch whole files
	Truths Truths // nil: there are none

	// EnrolRate bounds the enrolments a second of one address, and EnrolBurst
	// those at once; 0: DefaultEnrolRate and DefaultEnrolBurst.
	EnrolRate  float64
	EnrolBurst int
	// Failed is told when serving ends by itself; nil: nobody.
	Failed func(error)
	Logger *slog.Logger // nil: none
}

// Server answers devices.
type Server struct {
	cfg    Config
	echo   *echo.Echo
	http   *http.Server
	enrols *limits
	renews *limits

	listener net.Listener
	serving  sync.WaitGroup
}

// New makes a server. Start serves.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Failed == nil {
		cfg.Failed = func(error) {}
	}
	s := &Server{cfg: cfg, echo: echo.New()}
	s.enrols = newLimits(orDefault(cfg.EnrolRate, DefaultEnrolRate), orDefault(cfg.EnrolBurst, DefaultEnrolBurst))
	s.renews = newLimits(renewRate, renewBurst)
	s.echo.HideBanner, s.echo.HidePort = true, true
	s.echo.Logger.SetOutput(io.Discard)
	s.echo.HTTPErrorHandler = s.fail
	s.echo.Use(s.recovered)
	s.echo.POST(protocol.EnrolPath, s.enrol)
	s.echo.POST(protocol.RenewPath, s.renew)
	s.echo.GET(protocol.TrustPath+":file", s.trust, s.admitted)
	s.echo.GET(protocol.BlobPath+":digest", s.blob, s.admitted)
	if cfg.Deltas != nil {
		s.echo.GET(protocol.BlobPath+":digest"+protocol.DeltaSuffix, s.delta, s.admitted)
	}
	if cfg.Truths != nil {
		s.echo.POST(protocol.TruthPath, s.truths, s.admitted)
	}
	s.http = &http.Server{
		Handler:           s.echo,
		TLSConfig:         s.tls(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

func orDefault[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// tls asks for a certificate and takes what comes: see the package comment.
func (s *Server) tls() *tls.Config {
	cfg := s.cfg.CA.ServerTLS()
	cfg.ClientAuth = tls.RequestClientCert
	return cfg
}

// Start listens on "host:port", where port 0 takes a free one, and serves in the
// background until Stop.
func (s *Server) Start(ctx context.Context, address string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: %s: another control plane may be running here; stop it or choose another address", ErrPortInUse, address)
	}
	if err != nil {
		return fmt.Errorf("listen for devices on %s: %w", address, err)
	}
	s.Serve(l)
	return nil
}

// Serve serves in the background on a listener that is there already, until
// Stop, which closes it.
func (s *Server) Serve(l net.Listener) {
	s.listener = l
	s.serving.Go(func() {
		if err := s.http.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Failed(fmt.Errorf("serve devices: %w", err))
		}
	})
}

// Addr is where the server listens, "host:port".
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Stop takes no more requests, waits for those in progress until ctx ends, then
// breaks them off. A device resumes a blob where it was.
func (s *Server) Stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	s.serving.Wait()
	if err != nil {
		return fmt.Errorf("stop device API: %w", err)
	}
	return nil
}
