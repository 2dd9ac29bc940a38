package deviceapi

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// callTimeout bounds what one enrolment or renewal may wait for: a few synced
// writes.
const callTimeout = 30 * time.Second

func (s *Server) enrol(c echo.Context) error {
	if err := s.enrols.allow(remoteHost(c)); err != nil {
		return err
	}
	var req protocol.EnrolRequest
	if err := decode(c, &req); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), callTimeout)
	defer cancel()
	e, err := s.cfg.Access.Enrol(ctx, req)
	if err != nil {
		return err
	}
	if err := s.cfg.Fleet.Enrolled(ctx, e.Device, e.Labels); err != nil {
		return fmt.Errorf("note enrolment of %s: %w", e.Device, err)
	}
	s.cfg.Logger.Info("device enrolled", slog.String("device", e.Device), slog.String("token", e.Token),
		slog.Bool("replaced", e.Replaced), slog.String("remote", remoteHost(c)))
	return c.JSON(http.StatusOK, protocol.EnrolResponse{
		Device: e.Device, Certificate: string(e.Certificate), CA: string(e.CA), MQTT: e.MQTT, ServerMS: nowMS(),
	})
}

func (s *Server) renew(c echo.Context) error {
	device, cert, _, err := s.peer(c)
	if err != nil {
		return err
	}
	if err := s.renews.allow(device); err != nil {
		return err
	}
	var req protocol.RenewRequest
	if err := decode(c, &req); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), callTimeout)
	defer cancel()
	next, err := s.cfg.Access.Renew(ctx, device, cert, []byte(req.CSR))
	if err != nil {
		return err
	}
	s.cfg.Logger.Info("certificate renewed", slog.String("device", device), slog.Time("until", next.NotAfter))
	return c.JSON(http.StatusOK, protocol.EnrolResponse{
		Device: device, Certificate: encodeCertificate(next), CA: string(s.cfg.CA.PEM()), ServerMS: nowMS(),
	})
}

func encodeCertificate(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}

func nowMS() int64 { return time.Now().UnixMilli() }

// admitted lets only requests through whose certificate is good today.
func (s *Server) admitted(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		_, cert, expired, err := s.peer(c)
		if err != nil {
			return err
		}
		if expired {
			return fmt.Errorf("%w: it expired on %s; renew it", access.ErrCertificate, cert.NotAfter.Format(time.DateOnly))
		}
		return next(c)
	}
}

// peer proves which device asks.
func (s *Server) peer(c echo.Context) (device string, cert *x509.Certificate, expired bool, err error) {
	state := c.Request().TLS
	if state == nil || len(state.PeerCertificates) == 0 {
		return "", nil, false, fmt.Errorf("%w: none was sent", access.ErrCertificate)
	}
	cert = state.PeerCertificates[0]
	device, expired, err = s.cfg.CA.VerifyDevice(state.PeerCertificates)
	if err != nil {
		return "", nil, expired, err
	}
	return device, cert, expired, s.cfg.Access.Admit(device, cert)
}

// maxMetadataName is well above any name of TUF metadata.
const maxMetadataName = 128

func (s *Server) trust(c echo.Context) error {
	name, ok := strings.CutSuffix(c.Param("file"), ".json")
	if !ok || len(name) > maxMetadataName {
		return errNotFound
	}
	data, err := s.cfg.Trust.TrustMetadata(name)
	if err != nil {
		return fmt.Errorf("%w: metadata %.128q", errNotFound, name)
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-cache")
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, data)
}

func (s *Server) blob(c echo.Context) error {
	d, err := release.ParseDigest(c.Param("digest"))
	if err != nil {
		return fmt.Errorf("%w: a blob's name is 64 hex digits", errNotFound)
	}
	f, _, err := s.cfg.Blobs.Open(c.Request().Context(), d)
	if err != nil {
		return err
	}
	defer f.Close()
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, echo.MIMEOctetStream)
	h.Set("ETag", `"`+d.String()+`"`)
	h.Set(echo.HeaderCacheControl, "private, immutable, max-age=31536000")
	w := &patient{ResponseWriter: c.Response(), control: http.NewResponseController(c.Response())}
	http.ServeContent(w, c.Request(), "", time.Time{}, f)
	return w.control.SetWriteDeadline(time.Time{}) // the connection goes on
}

// delta tells how to make a blob of one that the device has [P-7.1]. There
// being none is an ordinary answer: what makes deltas may not have come to it.
func (s *Server) delta(c echo.Context) error {
	to, err := release.ParseDigest(c.Param("digest"))
	if err != nil {
		return fmt.Errorf("%w: a blob's name is 64 hex digits", errNotFound)
	}
	names := strings.SplitN(c.QueryParam("from"), ",", protocol.MaxDeltaFrom+1)
	if len(names) > protocol.MaxDeltaFrom {
		return fmt.Errorf("%w: from names more than %d files", errInvalid, protocol.MaxDeltaFrom)
	}
	from := make([]release.Digest, len(names))
	for i, name := range names {
		if from[i], err = release.ParseDigest(name); err != nil {
			return fmt.Errorf("%w: from: %w", errInvalid, err)
		}
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	offer, ok := s.cfg.Deltas.Offer(to, from)
	if !ok {
		return c.NoContent(http.StatusNoContent)
	}
	return c.JSON(http.StatusOK, offer)
}

// patient gives every write its own time: a slow reader is served for as long
// as it reads.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
}

// Write implements http.ResponseWriter.
func (p *patient) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, fmt.Errorf("bound write: %w", err)
	}
	return p.ResponseWriter.Write(b)
}

// decode reads a small JSON body, strictly.
func decode(c echo.Context, v any) error {
	control := http.NewResponseController(c.Response())
	if err := control.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return fmt.Errorf("bound read: %w", err)
	}
	dec := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return err
		}
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows the JSON object", errInvalid)
	}
	return control.SetReadDeadline(time.Time{})
}

func remoteHost(c echo.Context) string {
	host, _, err := net.SplitHostPort(c.Request().RemoteAddr)
	if err != nil {
		return c.Request().RemoteAddr
	}
	return host
}
