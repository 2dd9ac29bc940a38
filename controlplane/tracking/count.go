package tracking

// CountRuns is how many runs of an experiment are not deleted.
func (s *Store) CountRuns(experiment string) (n int) {
	s.mu.RLock()
	list := s.x.group[experiment]
	s.mu.RUnlock()
	for _, some := range list {
		for _, c := range some.cells {
			if c.get().deleted == 0 {
				n++
			}
		}
	}
	return n
}
