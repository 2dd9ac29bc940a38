package tracking

// CountRuns is how many runs of an experiment are not deleted.
func (s *Store) CountRuns(experiment string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for _, c := range s.x.group[experiment] {
		if c.get().deleted == 0 {
			n++
		}
	}
	return n
}
