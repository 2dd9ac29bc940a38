package tracking

import (
	"cmp"
	"context"
	"maps"
	"path"
	"slices"
	"strings"
)

// CreateRegisteredModel makes a name under which versions are registered.
func (s *Store) CreateRegisteredModel(ctx context.Context, name, description string, tags map[string]string) (RegisteredModel, error) {
	if err := cmp.Or(checkModelName(name), checkText("description", description, MaxText), checkTags(tags)); err != nil {
		return RegisteredModel{}, err
	}
	defer s.hold(holdModels, "")()
	if _, err := s.model(name); err == nil {
		return RegisteredModel{}, refuse(AlreadyExists, "registered model %q exists already", name)
	}
	at := s.nowMS()
	s.mu.RLock()
	serial := s.x.nextModel
	s.mu.RUnlock()
	m := model{Serial: serial, RegisteredModel: RegisteredModel{
		Name: name, Description: description, CreatedMS: at, UpdatedMS: at, Tags: maps.Clone(tags),
	}}
	if err := s.store(ctx, &record{AtMS: at, Model: &m}); err != nil {
		return RegisteredModel{}, err
	}
	return s.RegisteredModel(name)
}

// model returns a registered model that the caller may change.
func (s *Store) model(name string) (model, error) {
	s.mu.RLock()
	c := s.x.model[name]
	s.mu.RUnlock()
	if c == nil {
		return model{}, refuse(NotFound, "no registered model named %q", name)
	}
	m := *c.get()
	m.Tags, m.Aliases, m.Versions = maps.Clone(m.Tags), maps.Clone(m.Aliases), nil
	return m, nil
}

// RegisteredModel returns a model with its versions, the highest first.
func (s *Store) RegisteredModel(name string) (RegisteredModel, error) {
	m, err := s.model(name)
	if err != nil {
		return RegisteredModel{}, err
	}
	s.mu.RLock()
	list := s.x.version[m.Serial]
	s.mu.RUnlock()
	for _, c := range slices.Backward(list) {
		m.Versions = append(m.Versions, m.view(c.get()))
	}
	return m.RegisteredModel, nil
}

// view is a version as callers see it.
func (m *model) view(v *version) ModelVersion {
	out := v.ModelVersion
	out.Name, out.Tags, out.History = m.Name, maps.Clone(v.Tags), slices.Clone(v.History)
	for alias, number := range m.Aliases {
		if number == versionText(v.Version) {
			out.Aliases = append(out.Aliases, alias)
		}
	}
	slices.Sort(out.Aliases)
	return out
}

// changeModel stores what edit makes of a registered model.
func (s *Store) changeModel(ctx context.Context, name string, edit func(*model) error) (RegisteredModel, error) {
	defer s.hold(holdModels, "")()
	m, err := s.model(name)
	if err != nil {
		return RegisteredModel{}, err
	}
	if err := edit(&m); err != nil {
		return RegisteredModel{}, err
	}
	if n := len(m.Description) + textSize(m.Tags) + textSize(m.Aliases); n > MaxSnapshot {
		return RegisteredModel{}, refuse(Invalid, "model %q has %d bytes of tags and aliases, at most %d can be kept", name, n, MaxSnapshot)
	}
	m.UpdatedMS = s.nowMS()
	if err := s.store(ctx, &record{AtMS: m.UpdatedMS, Model: &m}); err != nil {
		return RegisteredModel{}, err
	}
	return s.RegisteredModel(m.Name)
}

// RenameRegisteredModel gives a model and its versions another name.
func (s *Store) RenameRegisteredModel(ctx context.Context, name, to string) (RegisteredModel, error) {
	if err := checkModelName(to); err != nil {
		return RegisteredModel{}, err
	}
	return s.changeModel(ctx, name, func(m *model) error {
		if _, err := s.model(to); err == nil && to != name {
			return refuse(AlreadyExists, "registered model %q exists already", to)
		}
		m.Name = to
		return nil
	})
}

// DescribeRegisteredModel sets the description.
func (s *Store) DescribeRegisteredModel(ctx context.Context, name, description string) (RegisteredModel, error) {
	if err := checkText("description", description, MaxText); err != nil {
		return RegisteredModel{}, err
	}
	return s.changeModel(ctx, name, func(m *model) error {
		m.Description = description
		return nil
	})
}

// DeleteRegisteredModel removes a model with its versions. What was logged of
// them stays with the runs.
func (s *Store) DeleteRegisteredModel(ctx context.Context, name string) error {
	defer s.hold(holdModels, "")()
	m, err := s.model(name)
	if err != nil {
		return err
	}
	return s.store(ctx, &record{AtMS: s.nowMS(), Dropped: &dropped{Model: m.Serial}})
}

// SetRegisteredModelTag sets a tag; nil deletes it.
func (s *Store) SetRegisteredModelTag(ctx context.Context, name, key string, value *string) error {
	_, err := s.changeModel(ctx, name, func(m *model) (err error) {
		m.Tags, err = retag(m.Tags, key, value)
		return err
	})
	return err
}

// retag is tags with one set, or deleted where the value is nil. That a tag to
// delete was not there is no error, as in MLflow.
func retag(tags map[string]string, key string, value *string) (map[string]string, error) {
	if value == nil {
		delete(tags, key)
		return tags, nil
	}
	if err := checkTag(key, *value); err != nil {
		return nil, err
	}
	tags = with(tags, key, *value)
	return tags, checkTags(tags)
}

// SetAlias lets an alias point to a version; version 0 deletes it.
func (s *Store) SetAlias(ctx context.Context, name, alias string, version int) error {
	if err := checkAlias(alias); err != nil {
		return err
	}
	_, err := s.changeModel(ctx, name, func(m *model) error {
		if version == 0 {
			delete(m.Aliases, alias)
			return nil
		}
		if _, err := s.version(m, version); err != nil {
			return err
		}
		m.Aliases = with(m.Aliases, alias, versionText(version))
		return nil
	})
	return err
}

// resolve finds where the artifacts of a source are.
func (s *Store) resolve(source string) (string, error) {
	switch {
	case strings.HasPrefix(source, "models:/"):
		m, err := s.LoggedModel(strings.TrimPrefix(source, "models:/"))
		if err != nil {
			return "", refuse(Invalid, "source %q names no logged model", source)
		}
		return m.ArtifactURI, nil
	case strings.HasPrefix(source, "runs:/"):
		id, below, _ := strings.Cut(strings.TrimPrefix(source, "runs:/"), "/")
		r, err := s.Run(id)
		if err != nil {
			return "", refuse(Invalid, "source %q names no run", source)
		}
		return strings.TrimSuffix(r.ArtifactURI+path.Clean("/"+below), "/"), nil
	default:
		return source, nil
	}
}
