package controlplane

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/sample"
	"github.com/vedette-edge/vedette/controlplane/truth"
	"github.com/vedette-edge/vedette/protocol"
)

// Buckets of what people find out later, and of the rows to find it out by.
const (
	truthBucket  = "truth"
	sampleBucket = "samples"
)

// openGroundTruth comes before the desired state, which says that truths wait.
func (s *Server) openGroundTruth(ctx context.Context) (err error) {
	s.truths, err = truth.Open(ctx, s.buckets[truthBucket], owners{s.fleet}, truth.Config{
		Tell: func(device string) { s.desired.Tell(device) }, Logger: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	s.samples, err = sample.Open(ctx, s.buckets[sampleBucket], s.registry, sample.Config{Logger: s.cfg.Logger})
	if err != nil {
		return err
	}
	s.run("truths", s.truths.Run)
	s.run("samples", s.samples.Run)
	return nil
}

// owners lets truths find the devices they are for.
type owners struct{ fleet *fleet.Fleet }

// Has implements truth.Devices.
func (o owners) Has(device, model string) (known, has bool) {
	d, known := o.fleet.Device(device)
	if known {
		_, has = d.Model(model)
	}
	return known, has
}

// onHello tells a device what it does not know yet.
func (s *Server) onHello(device string, h *protocol.Hello) {
	if s.truths.OnHello(device, h) {
		s.desired.Tell(device)
	}
	s.desired.OnHello(device, h.GetGeneration())
}

// forgetTruths drops what waits for a device that was removed.
func (s *Server) forgetTruths(device string) {
	ctx, cancel := context.WithTimeout(context.Background(), forgetTimeout)
	defer cancel()
	if err := s.truths.Forget(ctx, device); err != nil {
		s.cfg.Logger.Warn("truths of a removed device are kept until they expire", "device", device, "error", err)
	}
}

const forgetTimeout = 10 * time.Second
