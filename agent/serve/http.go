package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
)

// newHTTP makes the HTTP server. It is fasthttp's: net/http watches every
// connection with a second goroutine while a request is answered, which costs
// more than a small model's run. Predictions are answered right from its
// buffers; everything else goes on to the routes of net/http.
func (s *Server) newHTTP() *fasthttp.Server {
	return &fasthttp.Server{
		Name: serverName, NoDefaultDate: true, // a device's clock may be wrong
		Handler: s.dispatch, ErrorHandler: s.unreadable,
		Concurrency: s.cfg.Connections, MaxRequestBodySize: smallBody, StreamRequestBody: true,
		ReadBufferSize: maxHeader, ReadTimeout: bodyTimeout, WriteTimeout: bodyTimeout, IdleTimeout: idleTimeout,
		Logger: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug), LogAllErrors: false, SecureErrorLogMessage: true,
	}
}

// dispatch answers one request.
func (s *Server) dispatch(c *fasthttp.RequestCtx) {
	if c.IsPost() {
		if model, version, ok := inferPath(c.Path()); ok {
			start := time.Now()
			if status := s.guarded(c, model, version); status != 0 {
				s.routed.done(status, time.Since(start))
			}
			return
		}
	}
	err := plain(&c.Request.Header)
	if err == nil {
		err = bound(c)
	}
	if err != nil {
		s.refuse(c, err)
		return
	}
	s.others(c)
}

// plain refuses a body that is compressed: one of a few bytes could take all the
// memory there is.
func plain(h *fasthttp.RequestHeader) error {
	encoding := h.ContentEncoding()
	if len(encoding) == 0 || bytes.EqualFold(encoding, []byte("identity")) {
		return nil
	}
	return &httpError{http.StatusUnsupportedMediaType, fmt.Sprintf("Content-Encoding %.20q is not taken: send the body as it is, without compressing it", encoding)}
}

// guarded answers a prediction and returns the status, 0 if it was answered and
// counted before. A panic is a mistake of
// ours about one request; the device goes on with the next.
func (s *Server) guarded(c *fasthttp.RequestCtx, model, version []byte) (status int) {
	defer func() {
		if p := recover(); p != nil {
			status = s.refuse(c, fmt.Errorf("a request made the server panic: %v", p))
		}
	}()
	switch err := s.predict(c, model, version); {
	case errors.Is(err, errAbandoned):
		c.SetConnectionClose()
		return 0
	case err != nil:
		return s.refuse(c, err)
	}
	return http.StatusOK
}

// inferPath takes a prediction's path apart: model, and version if it names one.
func inferPath(path []byte) (model, version []byte, ok bool) {
	rest, ok := bytes.CutPrefix(path, []byte("/v2/models/"))
	if !ok {
		return nil, nil, false
	}
	if rest, ok = bytes.CutSuffix(bytes.TrimRight(rest, "/"), []byte("/infer")); !ok {
		return nil, nil, false
	}
	model, rest, versioned := bytes.Cut(rest, []byte("/"))
	if versioned {
		if version, ok = bytes.CutPrefix(rest, []byte("versions/")); !ok || len(version) == 0 {
			return nil, nil, false
		}
	}
	return model, version, len(model) > 0 && bytes.IndexByte(version, '/') < 0
}

// bound reads the body, which no route but the predictions' takes beyond
// maxFeedback.
func bound(c *fasthttp.RequestCtx) error {
	if !c.Request.IsBodyStream() || c.Request.Header.ContentLength() == 0 {
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(c.RequestBodyStream(), maxFeedback+1))
	if err != nil {
		return &httpError{http.StatusBadRequest, "read body: " + err.Error()}
	}
	if len(raw) > maxFeedback {
		return errBodySize
	}
	c.Request.SetBodyRaw(raw)
	return nil
}

// refuse answers with an error.
func (s *Server) refuse(c *fasthttp.RequestCtx, err error) int {
	v, text := s.refusal(err)
	c.Response.SetStatusCode(v.status)
	if retry := v.retryAfter(); retry != "" {
		c.Response.Header.Set("Retry-After", retry)
	}
	c.Response.Header.SetContentTypeBytes(typeJSON)
	c.Response.SetBody(text)
	return v.status
}

// unreadable answers what is not HTTP, too long or too slow.
func (s *Server) unreadable(c *fasthttp.RequestCtx, err error) {
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.As(err, &small):
		err = &httpError{http.StatusRequestHeaderFieldsTooLarge, "the header is larger than this server takes"}
	case errors.As(err, &network) && network.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		err = &httpError{http.StatusRequestTimeout, "the request took too long to arrive"}
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		err = errUnsized
	default:
		err = &httpError{http.StatusBadRequest, "read request: " + err.Error()}
	}
	s.refuse(c, err)
}

// adapt makes the routes of net/http answer what dispatch leaves over.
func adapt(h http.Handler) fasthttp.RequestHandler { return fasthttpadaptor.NewFastHTTPHandler(h) }
