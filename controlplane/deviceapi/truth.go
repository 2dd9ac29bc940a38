package deviceapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// truths takes what became of the truths that a device has, and gives it the
// next ones [P-9.4]. The certificate says which device it is: nobody gets those
// of another one.
func (s *Server) truths(c echo.Context) error {
	device, _, _, err := s.peer(c)
	if err != nil {
		return err
	}
	taken := &protocol.TruthTaken{}
	if err := decodeProto(c, taken); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), callTimeout)
	defer cancel()
	next, err := s.cfg.Truths.Next(ctx, device, taken)
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	if next == nil {
		return c.NoContent(http.StatusNoContent)
	}
	raw, err := proto.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode truths: %w", err)
	}
	return c.Blob(http.StatusOK, protocol.MediaProtobuf, raw)
}

// decodeProto reads a small protobuf body.
func decodeProto(c echo.Context, m proto.Message) error {
	control := http.NewResponseController(c.Response())
	if err := control.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return fmt.Errorf("bound read: %w", err)
	}
	raw, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, maxBody))
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(raw, m); err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	return control.SetReadDeadline(time.Time{})
}
