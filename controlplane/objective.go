package controlplane

// objectives tells the monitor what accuracy the gates of each model ask for:
// what a version needed to be let out, it is held to afterwards, unless a policy
// of retraining says otherwise.
func (s *Server) objectives() {
	for _, m := range s.registry.Models() {
		s.monitor.SetGate(m.Name, s.validation.AccuracyFloor(m.Name))
	}
}
