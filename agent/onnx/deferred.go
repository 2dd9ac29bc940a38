package onnx

import (
	"context"

	"github.com/vedette-edge/vedette/agent/infer"
)

// Deferred opens its library when the first release is loaded. ONNX Runtime
// takes 15 MB by being there, which a device without a model need not spend.
type Deferred struct {
	info infer.RuntimeInfo
}

var _ infer.Runtime = (*Deferred)(nil)

// Defer is a runtime of the library of which another process has found info.
func Defer(info infer.RuntimeInfo) *Deferred { return &Deferred{info} }

// Load implements infer.Runtime.
func (d *Deferred) Load(ctx context.Context, r infer.Release) (infer.Session, error) {
	rt, err := Open(d.info.Library)
	if err != nil {
		return nil, err
	}
	return rt.Load(ctx, r)
}

// Info says which library will compute and what it offers.
func (d *Deferred) Info() infer.RuntimeInfo { return d.info }
