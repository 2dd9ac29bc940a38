package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/controlplane/truth"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Truths passes what people found out later on to the devices that predicted.
type Truths interface {
	Begin(ctx context.Context, actor, model string, b operator.TruthBegin) (u operator.TruthUpload, fresh bool, err error)
	Push(ctx context.Context, model, upload, chunk string, rows []operator.TruthRow) (operator.TruthChunkResult, error)
	Upload(model, id string) (operator.TruthUpload, error)
	Uploads(model string) []operator.TruthUpload
}

// Ledger kind of an upload of truths. Its chunks are not recorded one by one.
const kindTruths = "truths.uploaded"

func truthRoutes(b Backend) []route {
	return []route{
		one("truths", "/models/:model/truths", "Uploaded truths of a model and what became of them, newest first.", b.Truths),
		command(http.MethodPost, "beginTruths", "/models/:model/truths", "Begin an upload of truths, or see how far one is.",
			on(b.BeginTruths)).as(operator.Scientist),
		truthUpload(b),
		pushTruths(b),
	}
}

func truthUpload(b Backend) route {
	return route{
		name: "truthUpload", method: http.MethodGet, path: "/models/:model/truths/:upload", role: operator.Viewer,
		summary: "One upload of truths: what became of them, and for which devices some wait.", reply: typeOf[*operator.TruthUpload](),
		handle: func(c echo.Context) error {
			model, upload, err := uploadOf(c)
			if err != nil {
				return err
			}
			return reply(c)(b.TruthUpload(c.Request().Context(), model, upload))
		},
	}
}

func pushTruths(b Backend) route {
	return command(http.MethodPut, "pushTruths", "/models/:model/truths/:upload/chunks/:chunk",
		"Queue truths for their devices. The same chunk again changes nothing.",
		func(c echo.Context, body operator.TruthChunk) (*operator.TruthChunkResult, error) {
			model, upload, err := uploadOf(c)
			if err != nil {
				return nil, err
			}
			chunk, err := param(c, "chunk")
			if err != nil {
				return nil, err
			}
			return b.PushTruths(c.Request().Context(), model, upload, chunk, body)
		}).as(operator.Scientist).upTo(operator.MaxTruthBody)
}

func uploadOf(c echo.Context) (model, upload string, err error) {
	if model, err = param(c, "model"); err != nil {
		return "", "", err
	}
	upload, err = param(c, "upload")
	return model, upload, err
}

// Truths lists the uploads of a model with their sum.
func (s *Service) Truths(_ context.Context, model string) (*operator.Truths, error) {
	if _, err := s.d.Registry.Model(model); err != nil {
		return nil, registryError(err)
	}
	out := &operator.Truths{Model: model, Uploads: s.d.Truths.Uploads(model)}
	for i := range out.Uploads {
		out.Add(&out.Uploads[i].TruthCounts)
	}
	return out, nil
}

// TruthUpload is one upload.
func (s *Service) TruthUpload(_ context.Context, model, upload string) (*operator.TruthUpload, error) {
	u, err := s.d.Truths.Upload(model, upload)
	if err != nil {
		return nil, truthError(err)
	}
	return &u, nil
}

// BeginTruths begins an upload. Only the first time it needs its reason and is
// recorded: the same upload again goes on where it stopped.
func (s *Service) BeginTruths(ctx context.Context, model string, b operator.TruthBegin) (*operator.TruthUpload, error) {
	p, err := commander(ctx, operator.Scientist, b.Reason)
	if err != nil {
		return nil, err
	}
	if _, err := s.d.Registry.Model(model); err != nil {
		return nil, registryError(err)
	}
	if b.Name != "" {
		if err := operator.CheckText("name", b.Name); err != nil {
			return nil, err
		}
	}
	u, fresh, err := s.d.Truths.Begin(ctx, p.Name, model, b)
	if err != nil {
		return nil, truthError(err)
	}
	if fresh {
		note := map[string]string{"model": model, "upload": u.ID, "name": b.Name, "reason": b.Reason}
		if err := s.note(ctx, p.Name, kindTruths, note); err != nil {
			return nil, err
		}
	}
	return &u, nil
}

// PushTruths takes one chunk of an upload.
func (s *Service) PushTruths(ctx context.Context, model, upload, chunk string, c operator.TruthChunk) (*operator.TruthChunkResult, error) {
	if _, err := caller(ctx, operator.Scientist); err != nil {
		return nil, err
	}
	done, err := s.d.Truths.Push(ctx, model, upload, chunk, c.Rows)
	if err != nil {
		return nil, truthError(err)
	}
	s.Changed(operator.EventModel, model)
	return &done, nil
}

func truthError(err error) error {
	switch {
	case errors.Is(err, truth.ErrUpload):
		return operator.Errorf(operator.NotFound, "%w", err).WithHint(`"vedette truth push" begins one, "vedette truth show MODEL" lists them`)
	case errors.Is(err, truth.ErrChunk):
		return operator.Errorf(operator.Invalid, "%w", err)
	default:
		return operator.Errorf(operator.Unavailable, "truths: %w", err).WithHint("run it again: it continues where it stopped")
	}
}
