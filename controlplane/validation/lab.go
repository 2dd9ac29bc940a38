package validation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// noProfile stands for devices that matched none.
const noProfile = "no profile"

// profiles are those in use: of devices outside the lab that have the model, or
// when none has it of all outside the lab. A fleet that is all lab counts whole.
func (s *Store) profiles(model string) map[string]int {
	having, outside, lab := map[string]int{}, map[string]int{}, map[string]int{}
	for _, d := range s.cfg.Fleet.Devices(nil) {
		if d.Revoked != nil {
			continue
		}
		profile := profileOf(&d)
		if fleet.InLab(d.Labels) {
			lab[profile]++
			continue
		}
		outside[profile]++
		if _, has := d.Model(model); has {
			having[profile]++
		}
	}
	switch {
	case len(having) > 0:
		return having
	case len(outside) > 0:
		return outside
	}
	return lab
}

func profileOf(d *fleet.Device) string {
	if d.Facts.Profile == "" {
		return noProfile
	}
	return d.Facts.Profile
}

// trialsOn are what a device reports of a model's releases: of the one it
// serves, of its challenger, and of those that it refused.
func trialsOn(d *fleet.Device, model string) map[release.Digest]operator.LabResult {
	out := map[release.Digest]operator.LabResult{}
	m, ok := d.Model(model)
	if !ok {
		return out
	}
	parts := []*fleet.Model{&m}
	if m.Challenger != nil {
		parts = append(parts, &m.Challenger.Model)
	}
	blank := operator.LabResult{Device: d.ID, Profile: profileOf(d), Runtime: d.Facts.RuntimeVersion, At: d.ReportedAt}
	for _, part := range parts {
		for _, o := range part.Refused {
			if o.Code != "" {
				r := blank
				r.Code, r.Message = o.Code, o.Message
				out[o.Release] = r
			}
		}
		t := part.Trial
		if t == nil || t.P95US == 0 && t.GoldenRows == 0 {
			continue
		}
		r := blank
		if old, refused := out[t.Release]; refused {
			r = old
		}
		r.P95US, r.PeakBytes, r.GoldenRows, r.GoldenWrong = t.P95US, t.PeakBytes, t.GoldenRows, t.GoldenWrong
		r.Provider = t.Provider
		if t.RuntimeVersion != "" {
			r.Runtime = t.RuntimeVersion
		}
		out[t.Release] = r
	}
	return out
}

// Observe keeps what lab devices report, because a device tells only of its last
// trial and the next candidate's takes its place, and judges again what it is of.
func (s *Store) Observe(ctx context.Context, device string) error {
	for _, d := range s.cfg.Fleet.Devices(fleet.InLab) {
		if d.ID != device {
			continue
		}
		for _, m := range d.Models {
			for r, t := range trialsOn(&d, m.Name) {
				if err := s.keep(ctx, m.Name, r, t); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *Store) keep(ctx context.Context, model string, d release.Digest, t operator.LabResult) error {
	s.mu.Lock()
	old, known := s.trials[d][t.Device]
	s.mu.Unlock()
	if known && same(t, old) {
		return nil
	}
	if err := s.put(ctx, t, trialKey, d.String(), t.Device); err != nil {
		return err
	}
	s.mu.Lock()
	if s.trials[d] == nil {
		s.trials[d] = map[string]operator.LabResult{}
	}
	s.trials[d][t.Device] = t
	s.mu.Unlock()
	s.cfg.Changed(model)
	v, err := s.cfg.Registry.Release(d)
	if errors.Is(err, registry.ErrNotFound) {
		return nil // a device may hold what was never published here
	}
	if err == nil {
		_, err = s.Judge(ctx, &v)
	}
	return err
}

// same says that a report says nothing new.
func same(a, b operator.LabResult) bool {
	a.At = b.At
	return a == b
}

func (s *Store) loadTrial(parts []string, value []byte) error {
	if len(parts) != 3 {
		return fmt.Errorf("a trial's key has %d parts", len(parts))
	}
	d, err := release.ParseDigest(parts[1])
	if err != nil {
		return err
	}
	var t operator.LabResult
	if err := json.Unmarshal(value, &t); err != nil {
		return err
	}
	if s.trials[d] == nil {
		s.trials[d] = map[string]operator.LabResult{}
	}
	s.trials[d][parts[2]] = t
	return nil
}

// Trials are what lab devices measured of a release, by profile and device: what
// was kept, and what they report now.
func (s *Store) Trials(model string, d release.Digest) []operator.LabResult {
	found := map[string]operator.LabResult{}
	s.mu.Lock()
	maps.Copy(found, s.trials[d])
	s.mu.Unlock()
	for _, dev := range s.cfg.Fleet.Devices(fleet.InLab) {
		if t, ok := trialsOn(&dev, model)[d]; ok {
			if old, known := found[dev.ID]; !known || !same(t, old) {
				found[dev.ID] = t
			}
		}
	}
	out := []operator.LabResult{}
	for _, t := range found {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b operator.LabResult) int {
		return strings.Compare(a.Profile+"\x00"+a.Device, b.Profile+"\x00"+b.Device)
	})
	return out
}
