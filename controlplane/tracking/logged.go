package tracking

import (
	"cmp"
	"context"
	"maps"
	"slices"
)

func (m *LoggedModel) clone() LoggedModel {
	out := *m
	out.Params, out.Tags, out.Metrics = maps.Clone(m.Params), maps.Clone(m.Tags), slices.Clone(m.Metrics)
	return out
}

// CreateLoggedModel makes a logged model; id, status and artifact place are given.
func (s *Store) CreateLoggedModel(ctx context.Context, m LoggedModel) (LoggedModel, error) {
	e, err := s.activeExperiment(cmp.Or(m.Experiment, DefaultID))
	if err != nil {
		return LoggedModel{}, err
	}
	if err := cmp.Or(checkText("model name", m.Name, MaxName), checkText("model type", m.Type, MaxName), checkTags(m.Tags), checkParams(m.Params)); err != nil {
		return LoggedModel{}, err
	}
	at := s.nowMS()
	m.ID, m.Experiment, m.Status = "m-"+newID(), e.ID, cmp.Or(m.Status, ModelPending)
	m.ArtifactURI = modelPlace(e, m.ID)
	m.Name = cmp.Or(m.Name, m.ID)
	m.Deleted, m.CreatedMS, m.UpdatedMS, m.Metrics = false, at, at, nil
	m = m.clone()
	return m.clone(), s.store(ctx, &record{AtMS: at, Logged: &m})
}

// checkParams checks all parameters of a model.
func checkParams(params map[string]string) error {
	for k, v := range params {
		if err := cmp.Or(checkKey("param", k), checkValue("param "+k, v, MaxParam)); err != nil {
			return err
		}
	}
	return nil
}

// LoggedModel returns the one with an id.
func (s *Store) LoggedModel(id string) (LoggedModel, error) {
	s.mu.RLock()
	c := s.x.loggedAs[id]
	s.mu.RUnlock()
	if c == nil || c.get().Deleted {
		return LoggedModel{}, refuse(NotFound, "no logged model with id %q", id)
	}
	return c.get().clone(), nil
}

// changeLogged stores what edit makes of a logged model.
func (s *Store) changeLogged(ctx context.Context, id string, edit func(*LoggedModel) error) (LoggedModel, error) {
	defer s.hold(holdLogged, id)()
	m, err := s.LoggedModel(id)
	if err != nil {
		return LoggedModel{}, err
	}
	if err := edit(&m); err != nil {
		return LoggedModel{}, err
	}
	if n := m.size(); n > MaxSnapshot {
		return LoggedModel{}, refuse(Invalid, "model %s has %d bytes of params and tags, at most %d can be kept", id, n, MaxSnapshot)
	}
	m.UpdatedMS = s.nowMS()
	return m.clone(), s.store(ctx, &record{AtMS: m.UpdatedMS, Logged: &m})
}

// size is about what a logged model takes in a checkpoint, in bytes.
func (m *LoggedModel) size() int {
	return 400 + len(m.StatusText) + textSize(m.Params) + textSize(m.Tags) + 100*len(m.Metrics)
}

func textSize(texts map[string]string) (n int) {
	for k, v := range texts {
		n += 8 + len(k) + len(v)
	}
	return n
}

// FinalizeLoggedModel says that a model is ready or that its upload failed.
func (s *Store) FinalizeLoggedModel(ctx context.Context, id string, status ModelStatus) (LoggedModel, error) {
	switch status {
	case ModelPending, ModelReady, ModelFailed:
	default:
		return LoggedModel{}, refuse(Invalid, "status %q is none of %s, %s, %s", status, ModelPending, ModelReady, ModelFailed)
	}
	return s.changeLogged(ctx, id, func(m *LoggedModel) error {
		m.Status = status
		return nil
	})
}

// DeleteLoggedModel marks a logged model deleted.
func (s *Store) DeleteLoggedModel(ctx context.Context, id string) error {
	_, err := s.changeLogged(ctx, id, func(m *LoggedModel) error {
		m.Deleted = true
		return nil
	})
	return err
}

// SetLoggedModelTags sets some tags and removes others.
func (s *Store) SetLoggedModelTags(ctx context.Context, id string, set map[string]string, unset []string) (LoggedModel, error) {
	if err := checkTags(set); err != nil {
		return LoggedModel{}, err
	}
	return s.changeLogged(ctx, id, func(m *LoggedModel) error {
		for _, key := range unset {
			if _, ok := m.Tags[key]; !ok {
				return refuse(NotFound, "logged model %s has no tag %q", id, key)
			}
			delete(m.Tags, key)
		}
		for k, v := range set {
			m.Tags = with(m.Tags, k, v)
		}
		return checkTags(m.Tags)
	})
}

// LogModelParams adds parameters; one that is there never changes.
func (s *Store) LogModelParams(ctx context.Context, id string, params map[string]string) error {
	if err := checkParams(params); err != nil {
		return err
	}
	_, err := s.changeLogged(ctx, id, func(m *LoggedModel) error {
		for k, v := range params {
			if have, ok := m.Params[k]; ok && have != v {
				return refuse(Invalid, "param %q of model %s is %.100q already and cannot change", k, id, have)
			}
			m.Params = with(m.Params, k, v)
		}
		return nil
	})
	return err
}
