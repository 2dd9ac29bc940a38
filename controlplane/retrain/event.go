package retrain

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// EventType is the CloudEvents type of a request. Fields are only ever added.
// History:
//
//	v1  2026-11-23  first
//	    2026-11-23  condition, cohorts, window, origin, sample, tracking, tag
const EventType = "io.vedette.retrain.requested.v1"

// Schema is the JSON schema of the event.
//
//go:embed event.schema.json
var Schema []byte

// Origins tell where a release came from, ok when that is known.
type Origins interface {
	Origin(model string, d release.Digest) (o Origin, ok bool)
}

// Origin is what a release was trained by and on.
type Origin struct {
	Run         string             `json:"run,omitempty"`    // of the tracking server
	Source      string             `json:"source,omitempty"` // registered version, "models:/NAME/VERSION"
	DataVersion string             `json:"data_version,omitempty"`
	Commit      string             `json:"commit,omitempty"`
	Author      string             `json:"author,omitempty"`
	Parent      string             `json:"parent,omitempty"` // release it was derived from, hex
	Metrics     map[string]float64 `json:"metrics,omitempty"`
}

// Samples tell what was sampled of a model for labelling since a time.
type Samples interface {
	Sampled(model string, since time.Time) (rows int)
}

// evidence is the data of an event.
type evidence struct {
	Model     string               `json:"model"`
	Version   string               `json:"version"`
	Release   string               `json:"release"`
	Cause     string               `json:"cause"`
	Condition string               `json:"condition,omitempty"`
	Cohort    string               `json:"cohort,omitempty"` // the first of cohorts
	Alarm     string               `json:"alarm"`            // empty where a condition or the clock asked
	RaisedMS  int64                `json:"raised_ms"`
	Message   string               `json:"message"`
	Features  []drift.FeatureScore `json:"features,omitempty"` // the furthest apart
	Accuracy  *drift.AccuracyScore `json:"accuracy,omitempty"`

	Window   *window       `json:"window,omitempty"`
	Cohorts  []cohort      `json:"cohorts,omitempty"` // affected, at most maxCohorts
	Origin   *Origin       `json:"origin,omitempty"`
	Sample   *sampleSource `json:"sample,omitempty"`
	Tracking string        `json:"tracking"` // MLFLOW_TRACKING_URI
	Tag      tag           `json:"tag"`      // to be put on the version that answers
}

// window is the time that the evidence is of.
type window struct {
	FromMS int64 `json:"from_ms"`
	ToMS   int64 `json:"to_ms"`
}

// cohort is one group that is affected.
type cohort struct {
	Level    string               `json:"level"`
	Name     string               `json:"name"`
	Selector string               `json:"selector,omitempty"` // of its devices by labels
	Version  string               `json:"version,omitempty"`
	Devices  int                  `json:"devices"`
	Drifted  int                  `json:"drifted"` // that are themselves apart from training
	Rows     uint64               `json:"rows"`
	FromMS   int64                `json:"from_ms"`
	ToMS     int64                `json:"to_ms"`
	MaxPSI   float64              `json:"max_psi"`
	Features []drift.FeatureScore `json:"features"` // the furthest apart
	Accuracy *drift.AccuracyScore `json:"accuracy,omitempty"`
}

// sampleSource is where rows for labelling lie.
type sampleSource struct {
	URL  string `json:"url"`  // of the operator API; sealed to the publisher's key
	Rows int    `json:"rows"` // held now
	Help string `json:"help"`
}

type tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Bounds of an event.
const (
	maxCohorts       = 20
	furthestFeatures = 5
)

// ofAlarm is the request of an alarm. What its cohort shows now goes with it.
func (t *Trigger) ofAlarm(now time.Time, a drift.Alarm) Request {
	r := Request{
		ID: requestID(a.ID), Model: a.Model, Version: a.Version, AtMS: now.UnixMilli(), Alarm: a,
		Cause: string(a.Kind), Condition: map[drift.AlarmKind]string{drift.DriftAlarm: "on_drift", drift.AccuracyAlarm: "accuracy_floor"}[a.Kind], Message: a.Message,
	}
	if a.Cohort != "" {
		r.Cohorts = []string{a.Cohort}
	}
	if t.cfg.Scores != nil {
		r.groups = slices.DeleteFunc(slices.Clone(t.cfg.Scores.Groups(a.Model, drift.LevelCohort)), func(g drift.GroupScore) bool {
			return g.Name != a.Cohort || g.Release != a.Release
		})
	}
	return r
}

// ofWant is the request of a condition, the clock or a person. The evidence of
// its first group stands where an alarm would.
func (t *Trigger) ofWant(now time.Time, w *want) Request {
	r := Request{
		ID: w.id, AtMS: now.UnixMilli(), Cause: w.cause, Condition: w.condition, Message: w.message, Subjects: w.subjects, groups: w.groups,
		Alarm: drift.Alarm{Kind: drift.AlarmKind(w.cause), RaisedMS: now.UnixMilli(), Message: w.message},
	}
	for i := range w.groups {
		if name := w.groups[i].Name; name != "" && !slices.Contains(r.Cohorts, name) && len(r.Cohorts) < maxCohorts {
			r.Cohorts = append(r.Cohorts, name)
		}
	}
	if len(w.groups) > 0 {
		g := &w.groups[0]
		r.Version = g.Version
		r.Alarm.Version, r.Alarm.Release, r.Alarm.Features = g.Version, g.Release, g.Training.Furthest(furthestFeatures)
		if g.Level == drift.LevelCohort {
			r.Alarm.Cohort = g.Name
		}
		if g.Accuracy.Labels > 0 {
			r.Alarm.Accuracy = new(g.Accuracy)
		}
	}
	return r
}

// event encodes a request as a structured CloudEvent.
func (t *Trigger) event(now time.Time, r *Request) (json.RawMessage, error) {
	e := event.New()
	e.SetID(r.ID)
	e.SetType(EventType)
	e.SetSource(t.cfg.Source)
	e.SetSubject(r.Model)
	e.SetTime(now.UTC().Truncate(time.Millisecond))
	if err := e.SetData(event.ApplicationJSON, t.evidence(r)); err != nil {
		return nil, fmt.Errorf("encode evidence: %w", err)
	}
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("make event: %w", err)
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return data, nil
}

func (t *Trigger) evidence(r *Request) evidence {
	a := &r.Alarm
	out := evidence{
		Model: r.Model, Version: a.Version, Release: a.Release.String(), Cause: r.Cause, Condition: r.Condition, Cohort: a.Cohort,
		Alarm: a.ID, RaisedMS: a.RaisedMS, Message: r.Message, Features: a.Features, Accuracy: a.Accuracy,
		Tracking: t.cfg.Source, Tag: tag{operator.TagRetrain, r.ID},
	}
	for i := range r.groups[:min(len(r.groups), maxCohorts)] {
		out.Cohorts = append(out.Cohorts, t.cohort(&r.groups[i]))
	}
	out.Window = span(out.Cohorts)
	if t.cfg.Origins != nil {
		if o, ok := t.cfg.Origins.Origin(r.Model, a.Release); ok {
			out.Origin = &o
		}
	}
	if t.cfg.Samples != nil {
		since := time.Time{}
		if out.Window != nil {
			since = time.UnixMilli(out.Window.FromMS)
		}
		out.Sample = &sampleSource{
			URL: t.cfg.Source + "/api/v1/models/" + url.PathEscape(r.Model) + "/samples/sealed", Rows: t.cfg.Samples.Sampled(r.Model, since),
			Help: "vedette sample pull " + r.Model + " --to rows.csv",
		}
	}
	return out
}

func (t *Trigger) cohort(g *drift.GroupScore) cohort {
	c := cohort{
		Level: string(g.Level), Name: g.Name, Version: g.Version, Devices: g.Devices, Drifted: g.Drifted, Rows: g.Rows,
		FromMS: g.FromMS, ToMS: g.ToMS, MaxPSI: g.Training.MaxPSI, Features: g.Training.Furthest(furthestFeatures),
	}
	switch {
	case g.Name == "":
	case g.Level == drift.LevelCohort:
		c.Selector = t.cfg.CohortBy + "=" + g.Name
	case g.Level == drift.LevelSite:
		c.Selector = "site=" + g.Name
	}
	if c.Features == nil {
		c.Features = []drift.FeatureScore{}
	}
	if g.Accuracy.Labels > 0 {
		c.Accuracy = new(g.Accuracy)
	}
	return c
}

// span is from the first row of all to the last.
func span(all []cohort) *window {
	var w *window
	for i := range all {
		c := &all[i]
		switch {
		case c.Rows == 0:
		case w == nil:
			w = &window{c.FromMS, c.ToMS}
		default:
			w.FromMS, w.ToMS = min(w.FromMS, c.FromMS), max(w.ToMS, c.ToMS)
		}
	}
	return w
}
