package validation

// AccuracyFloor is the accuracy that a model's gates ask for, 0 when none does.
// What a version needed to be let out, it is held to afterwards.
func (s *Store) AccuracyFloor(model string) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.policies[model]
	if !ok {
		return 0
	}
	return p.policy.accuracyFloor()
}

func (p *Policy) accuracyFloor() (floor float64) {
	for i := range p.Gates {
		if g := &p.Gates[i]; g.Kind == Metric && g.Metric == accuracy && g.AtLeast != nil {
			floor = max(floor, *g.AtLeast)
		}
	}
	return floor
}
