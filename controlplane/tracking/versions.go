package tracking

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
)

func versionText(n int) string { return strconv.Itoa(n) }

// version returns a version that the caller may change.
func (s *Store) version(m *model, number int) (version, error) {
	s.mu.RLock()
	c := s.x.versionOf(m.Serial, number)
	s.mu.RUnlock()
	if c == nil {
		return version{}, refuse(NotFound, "model %q has no version %d", m.Name, number)
	}
	v := *c.get()
	v.Tags, v.History = maps.Clone(v.Tags), slices.Clone(v.History)
	return v, nil
}

// CreateVersion registers a version of a model; number and stage are given.
func (s *Store) CreateVersion(ctx context.Context, in ModelVersion) (ModelVersion, error) {
	if err := cmp.Or(checkText("source", in.Source, MaxText), checkText("run link", in.RunLink, MaxText), checkText("user", in.User, MaxName),
		checkText("description", in.Description, MaxText), checkTags(in.Tags)); err != nil {
		return ModelVersion{}, err
	}
	if in.ArtifactURI == "" {
		place, err := s.resolve(in.Source)
		if err != nil {
			return ModelVersion{}, err
		}
		in.ArtifactURI = place
	}
	defer s.hold(holdModels, "")()
	m, err := s.model(in.Name)
	if err != nil {
		return ModelVersion{}, err
	}
	at := s.nowMS()
	m.Latest++
	m.UpdatedMS = at
	v := version{ModelVersion: in, Serial: m.Serial}
	v.Version, v.Stage, v.CreatedMS, v.UpdatedMS = m.Latest, cmp.Or(in.Stage, StageNone), at, at
	v.Tags, v.Aliases, v.History = maps.Clone(in.Tags), nil, nil
	if err := s.store(ctx, &record{AtMS: at, Model: &m, Versions: []version{v}}); err != nil {
		return ModelVersion{}, err
	}
	return m.view(&v), nil
}

// Version returns a version of a model.
func (s *Store) Version(name string, number int) (ModelVersion, error) {
	m, err := s.model(name)
	if err != nil {
		return ModelVersion{}, err
	}
	v, err := s.version(&m, number)
	if err != nil {
		return ModelVersion{}, err
	}
	return m.view(&v), nil
}

// changeVersion stores what edit makes of a version, and of others that it
// returns.
func (s *Store) changeVersion(ctx context.Context, name string, number int, edit func(m *model, v *version) ([]version, error)) (ModelVersion, error) {
	defer s.hold(holdModels, "")()
	m, err := s.model(name)
	if err != nil {
		return ModelVersion{}, err
	}
	v, err := s.version(&m, number)
	if err != nil {
		return ModelVersion{}, err
	}
	others, err := edit(&m, &v)
	if err != nil {
		return ModelVersion{}, err
	}
	at := s.nowMS()
	m.UpdatedMS, v.UpdatedMS = at, at
	if err := s.store(ctx, &record{AtMS: at, Model: &m, Versions: append(others, v)}); err != nil {
		return ModelVersion{}, err
	}
	return m.view(&v), nil
}

// DescribeVersion sets the description.
func (s *Store) DescribeVersion(ctx context.Context, name string, number int, description string) (ModelVersion, error) {
	if err := checkText("description", description, MaxText); err != nil {
		return ModelVersion{}, err
	}
	return s.changeVersion(ctx, name, number, func(_ *model, v *version) ([]version, error) {
		v.Description = description
		return nil, nil
	})
}

// DeleteVersion removes a version with the aliases that point to it. Its number
// is not given again.
func (s *Store) DeleteVersion(ctx context.Context, name string, number int) error {
	defer s.hold(holdModels, "")()
	m, err := s.model(name)
	if err != nil {
		return err
	}
	if _, err := s.version(&m, number); err != nil {
		return err
	}
	m.UpdatedMS = s.nowMS()
	maps.DeleteFunc(m.Aliases, func(_, to string) bool { return to == versionText(number) })
	return s.store(ctx, &record{AtMS: m.UpdatedMS, Model: &m, Dropped: &dropped{Model: m.Serial, Version: number}})
}

// SetVersionTag sets a tag; nil deletes it.
func (s *Store) SetVersionTag(ctx context.Context, name string, number int, key string, value *string) error {
	_, err := s.changeVersion(ctx, name, number, func(_ *model, v *version) (_ []version, err error) {
		v.Tags, err = retag(v.Tags, key, value)
		return nil, err
	})
	return err
}

// maxHistoryStages bounds the stage changes that a version remembers. The ledger
// has them all.
const maxHistoryStages = 200

// SetVersionStage moves a version, and archives those that were in that stage
// where asked to.
func (s *Store) SetVersionStage(ctx context.Context, by, name string, number int, to Stage, archive bool) (ModelVersion, error) {
	switch to {
	case StageNone, StageStaging, StageProduction, StageArchived:
	default:
		return ModelVersion{}, refuse(Invalid, "stage %q is none of None, Staging, Production, Archived", to)
	}
	if archive && to != StageStaging && to != StageProduction {
		return ModelVersion{}, refuse(Invalid, "archive_existing_versions goes with the stages Staging and Production, not %s", to)
	}
	return s.changeVersion(ctx, name, number, func(m *model, v *version) ([]version, error) {
		var others []version
		if archive {
			others = s.inStage(m, to, number)
		}
		at := s.nowMS()
		for i := range others {
			others[i].move(StageArchived, by, at)
		}
		v.move(to, by, at)
		return others, nil
	})
}

// inStage are the versions in a stage, but for one.
func (s *Store) inStage(m *model, stage Stage, but int) (out []version) {
	s.mu.RLock()
	list := s.x.version[m.Serial]
	s.mu.RUnlock()
	for _, c := range list {
		if v := *c.get(); v.Stage == stage && v.Version != but {
			v.History = slices.Clone(v.History)
			out = append(out, v)
		}
	}
	return out
}

func (v *version) move(to Stage, by string, atMS int64) {
	if v.Stage == to {
		return
	}
	v.History = append(v.History, StageChange{From: v.Stage, To: to, By: by, AtMS: atMS})
	if n := len(v.History) - maxHistoryStages; n > 0 {
		v.History = v.History[n:]
	}
	v.Stage, v.UpdatedMS = to, atMS
}
