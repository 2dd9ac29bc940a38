package tracking

import (
	"cmp"
	"context"
	"maps"
	"strconv"
)

// clone is an experiment that the caller may change.
func (e *Experiment) clone() Experiment {
	out := *e
	out.Tags = maps.Clone(e.Tags)
	return out
}

// CreateExperiment makes an experiment; an empty artifactURI gets a place of the
// artifact proxy.
func (s *Store) CreateExperiment(ctx context.Context, name, artifactURI string, tags map[string]string) (Experiment, error) {
	if err := cmp.Or(checkName("experiment", name), checkText("artifact location", artifactURI, MaxText), checkTags(tags)); err != nil {
		return Experiment{}, err
	}
	defer s.hold(holdExperiments, "")()
	if err := s.free(name, ""); err != nil {
		return Experiment{}, err
	}
	at := s.nowMS()
	s.mu.RLock()
	id := strconv.FormatInt(s.x.nextExperiment, 10)
	s.mu.RUnlock()
	e := Experiment{
		ID: id, Name: name, ArtifactURI: cmp.Or(artifactURI, experimentPlace(id)), CreatedMS: at, UpdatedMS: at, Tags: maps.Clone(tags),
	}
	return e.clone(), s.store(ctx, &record{AtMS: at, Experiment: &e})
}

// free is an error when an experiment other than id has the name.
func (s *Store) free(name, id string) error {
	s.mu.RLock()
	c := s.x.named[name]
	s.mu.RUnlock()
	switch {
	case c == nil || c.get().ID == id:
		return nil
	case c.get().Deleted:
		return refuse(AlreadyExists, "experiment %q exists in deleted state: restore it (id %s) or choose another name", name, c.get().ID)
	default:
		return refuse(AlreadyExists, "experiment %q exists already (id %s)", name, c.get().ID)
	}
}

// Experiment returns the one with an id, a deleted one too.
func (s *Store) Experiment(id string) (Experiment, error) {
	e, err := s.experiment(id)
	if err != nil {
		return Experiment{}, err
	}
	return e.clone(), nil
}

func (s *Store) experiment(id string) (*Experiment, error) {
	s.mu.RLock()
	c := s.x.experiment[id]
	s.mu.RUnlock()
	if c == nil {
		return nil, refuse(NotFound, "no experiment with id %q", id)
	}
	return c.get(), nil
}

// activeExperiment is an experiment that runs may be added to.
func (s *Store) activeExperiment(id string) (*Experiment, error) {
	e, err := s.experiment(id)
	if err == nil && e.Deleted {
		return nil, refuse(InvalidState, "experiment %s (%s) is deleted: restore it first", id, e.Name)
	}
	return e, err
}

// ExperimentByName returns the one with a name, a deleted one too.
func (s *Store) ExperimentByName(name string) (Experiment, error) {
	s.mu.RLock()
	c := s.x.named[name]
	s.mu.RUnlock()
	if c == nil {
		return Experiment{}, refuse(NotFound, "no experiment named %q", name)
	}
	return c.get().clone(), nil
}

// changeExperiment stores what edit makes of an experiment.
func (s *Store) changeExperiment(ctx context.Context, id string, edit func(*Experiment) error) error {
	defer s.hold(holdExperiments, "")()
	e, err := s.Experiment(id)
	if err != nil {
		return err
	}
	if err := edit(&e); err != nil {
		return err
	}
	before, err := s.experiment(id)
	if err != nil {
		return err
	}
	e.UpdatedMS = s.nowMS()
	return s.store(ctx, &record{AtMS: e.UpdatedMS, Experiment: &e, Cascade: e.Deleted != before.Deleted})
}

// RenameExperiment gives an experiment another name.
func (s *Store) RenameExperiment(ctx context.Context, id, name string) error {
	if err := checkName("experiment", name); err != nil {
		return err
	}
	return s.changeExperiment(ctx, id, func(e *Experiment) error {
		if e.Deleted {
			return refuse(InvalidState, "experiment %s is deleted: restore it before you rename it", id)
		}
		e.Name = name
		return s.free(name, id)
	})
}

// DeleteExperiment marks an experiment and its runs deleted, or, with false,
// restores them.
func (s *Store) DeleteExperiment(ctx context.Context, id string, deleted bool) error {
	return s.changeExperiment(ctx, id, func(e *Experiment) error {
		switch {
		case id == DefaultID && deleted:
			return refuse(Invalid, "the default experiment cannot be deleted: clients use it for runs that name none")
		case e.Deleted == deleted && deleted:
			return refuse(NotFound, "experiment %s is deleted already", id)
		case e.Deleted == deleted:
			return refuse(NotFound, "experiment %s is not deleted", id)
		}
		e.Deleted = deleted
		return nil
	})
}

// SetExperimentTag sets a tag; nil deletes it.
func (s *Store) SetExperimentTag(ctx context.Context, id, key string, value *string) error {
	if value != nil {
		if err := checkTag(key, *value); err != nil {
			return err
		}
	}
	return s.changeExperiment(ctx, id, func(e *Experiment) error {
		if e.Deleted {
			return refuse(InvalidState, "experiment %s is deleted: restore it first", id)
		}
		if value == nil {
			delete(e.Tags, key)
			return nil
		}
		e.Tags = with(e.Tags, key, *value)
		return checkTags(e.Tags)
	})
}

// with is tags with one set.
func with(tags map[string]string, key, value string) map[string]string {
	if tags == nil {
		tags = map[string]string{}
	}
	tags[key] = value
	return tags
}
