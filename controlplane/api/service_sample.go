package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/sample"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Samples are the sealed rows that devices sent for labelling.
type Samples interface {
	List(model string, since time.Time) []sample.Sample
	Sealed(ctx context.Context, key string) ([]byte, error)
}

func sampleRoutes(b Backend) []route {
	return []route{
		of("samples", "/models/:model/samples", "What is held of a model for labelling, by stratum, and what its versions allow.", b.Samples),
		sealedSamples(b),
	}
}

// sealedSamples gives rows out: only the publisher's identity opens them, and
// still they are not for everybody who may look.
func sealedSamples(b Backend) route {
	return of("sealedSamples", "/models/:model/samples/sealed", "Sealed rows for labelling, oldest first; the publisher's identity opens them.",
		b.SealedSamples).as(operator.Scientist)
}

// Samples sums up what is held of a model.
func (s *Service) Samples(_ context.Context, model string, q operator.SampleQuery) (*operator.Samples, error) {
	list, err := s.samples(model, q)
	if err != nil {
		return nil, err
	}
	out := &operator.Samples{Model: model, Strata: []operator.SampledPart{}, Plans: []operator.SamplingPlan{}}
	parts := newParts()
	for i := range list {
		one := &list[i]
		out.Samples++
		out.Rows += one.Rows()
		out.Bytes += one.Size
		if out.Oldest.IsZero() {
			out.Oldest = one.To
		}
		out.Newest = one.To
		if out.Expires.IsZero() || one.Expires.Before(out.Expires) {
			out.Expires = one.Expires
		}
		parts.add(s.ref(model, one.Release), one)
	}
	out.Strata = parts.list()
	m, err := s.d.Registry.Model(model)
	if err != nil {
		return nil, registryError(err)
	}
	for _, v := range m.Versions {
		if v.Manifest != nil && v.Manifest.Sampling != nil {
			out.Plans = append(out.Plans, operator.SamplingPlan{Sampling: *v.Manifest.Sampling, Version: v.Version, Release: v.Digest})
		}
	}
	return out, nil
}

// samples lists those that a query chooses, oldest first.
func (s *Service) samples(model string, q operator.SampleQuery) ([]sample.Sample, error) {
	if _, err := s.d.Registry.Model(model); err != nil {
		return nil, registryError(err)
	}
	list := s.d.Samples.List(model, q.Since)
	if q.Version == "" {
		return list, nil
	}
	v, err := s.d.Registry.Version(model, q.Version)
	if err != nil {
		return nil, registryError(err)
	}
	return slices.DeleteFunc(list, func(one sample.Sample) bool { return one.Release != v.Digest }), nil
}

// parts sums samples up by version and stratum.
type parts struct {
	sums    map[[2]string]*operator.SampledPart
	devices map[[3]string]bool
}

func newParts() *parts {
	return &parts{sums: map[[2]string]*operator.SampledPart{}, devices: map[[3]string]bool{}}
}

func (p *parts) add(ref operator.ReleaseRef, one *sample.Sample) {
	version := cmp.Or(ref.Version, ref.Release.Short())
	for _, t := range one.Strata {
		key := [2]string{version, t.Name}
		sum := p.sums[key]
		if sum == nil {
			sum = &operator.SampledPart{Version: version, Stratum: t.Name}
			p.sums[key] = sum
		}
		sum.Rows += t.Rows
		sum.Seen += t.Seen
		if at := [3]string{version, t.Name, one.Device}; !p.devices[at] {
			p.devices[at] = true
			sum.Devices++
		}
	}
}

func (p *parts) list() []operator.SampledPart {
	out := []operator.SampledPart{}
	for _, sum := range p.sums {
		out = append(out, *sum)
	}
	slices.SortFunc(out, func(a, b operator.SampledPart) int {
		return cmp.Or(strings.Compare(a.Version, b.Version), strings.Compare(a.Stratum, b.Stratum))
	})
	return out
}

// SealedSamples is a page of sealed rows.
func (s *Service) SealedSamples(ctx context.Context, model string, q operator.SampleQuery) (*operator.Page[operator.SealedSample], error) {
	if _, err := caller(ctx, operator.Scientist); err != nil {
		return nil, err
	}
	list, err := s.samples(model, q)
	if err != nil {
		return nil, err
	}
	if q.Limit == 0 || q.Limit > operator.MaxSamplePage {
		q.Limit = operator.MaxSamplePage
	}
	page, err := paginate(list, q.Paging, func(one *sample.Sample) string {
		return fmt.Sprintf("%020d %s", max(0, one.To.UnixMilli()), one.Key)
	})
	if err != nil {
		return nil, err
	}
	out := &operator.Page[operator.SealedSample]{Items: []operator.SealedSample{}, Total: page.Total, Next: page.Next}
	for i := range page.Items {
		one, err := s.sealed(ctx, &page.Items[i])
		if errors.Is(err, sample.ErrNotFound) {
			continue // expired between
		}
		if err != nil {
			return nil, operator.Errorf(operator.Unavailable, "read sample: %w", err)
		}
		out.Items = append(out.Items, *one)
	}
	return out, nil
}

func (s *Service) sealed(ctx context.Context, one *sample.Sample) (*operator.SealedSample, error) {
	sealed, err := s.d.Samples.Sealed(ctx, one.Key)
	if err != nil {
		return nil, err
	}
	out := &operator.SealedSample{
		ID: one.Key, Model: one.Model, Version: s.ref(one.Model, one.Release).Version, Release: one.Release, Device: one.Device,
		From: one.From, To: one.To, Expires: one.Expires, Strata: []operator.SampleStratum{}, Sealed: sealed,
	}
	for _, t := range one.Strata {
		out.Strata = append(out.Strata, operator.SampleStratum{Name: t.Name, Seen: t.Seen, Rows: t.Rows})
	}
	return out, nil
}
