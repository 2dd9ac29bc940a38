package runner

import "fmt"

// Revision is the ledger sequence of a rollout's newest record.
func (r *Runner) Revision(id string) (uint64, error) {
	c := r.chain(id)
	if c == nil {
		return 0, fmt.Errorf("rollout %q: %w", id, ErrNotFound)
	}
	return c.head, nil
}
