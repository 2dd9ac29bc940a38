package dashboard

import (
	"errors"
	"net/url"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// specOfForm reads a spec from a form. What is left empty takes its default
// when the rollout is planned or made.
func specOfForm(values url.Values) (*operator.RolloutSpec, error) {
	b := &binder{values: values, reading: true}
	s := &operator.RolloutSpec{}
	b.spec(s)
	return s, b.err()
}

// formOfSpec fills a form in with a spec that has its defaults.
func formOfSpec(s *operator.RolloutSpec) url.Values {
	b := &binder{values: url.Values{}}
	b.spec(s)
	return b.values
}

// defaultSpec is what a new rollout of a version is unless a person asks for
// something else.
func defaultSpec(model, version string) (*operator.RolloutSpec, error) {
	s := rollout.Spec{Model: model, Version: version}.WithDefaults()
	return operatorSpec(&s)
}

func (b *binder) spec(s *operator.RolloutSpec) {
	b.exchange("what", func(text string) error {
		var found bool
		if s.Model, s.Version, found = strings.Cut(text, " "); !found {
			return errors.New("must be a model and a version")
		}
		return nil
	}, func() string { return strings.TrimSpace(s.Model + " " + s.Version) })
	b.text("selector", &s.Selector)
	rows(b, "wave", &s.Waves, b.wave)
	b.pointer("control", 100, &s.Control)
	b.pointer("alpha", 100, &s.Alpha)
	b.gates(s)
	b.shadow(s)
	b.budget("budget", &s.Budget)
	whole(b, "budget.bytes_per_second", &s.Budget.BytesPerSecond) // going back downloads nothing
	b.budget("revert", &s.Revert)
	rows(b, "window", &s.Windows, func(prefix string, w *operator.WindowSpec) {
		b.text(prefix+"cron", &w.Cron)
		b.duration(prefix+"duration", &w.Duration)
		b.text(prefix+"zone", &w.TimeZone)
	})
	b.flag("require.unmetered", &s.Require.Unmetered)
	b.flag("require.mains", &s.Require.Mains)
	whole(b, "require.battery", &s.Require.Battery)
	b.text("on_failure", (*string)(&s.OnFailure))
	b.text("on_conflict", &s.OnConflict)
	b.text("supersedes", &s.Supersedes)
	b.flag("approval", &s.Approval)
	b.moment("start_at", &s.StartAt)
	b.duration("device_deadline", &s.DeviceDeadline)
	b.duration("decision_deadline", &s.DecisionDeadline)
	b.duration("deadline", &s.Deadline)
}

func (b *binder) wave(prefix string, w *operator.WaveSpec) {
	b.text(prefix+"name", &w.Name)
	b.size(prefix+"size", &w.Count, &w.Percent)
	b.span(prefix+"soak", &w.Soak)
	b.scaled(prefix+"quorum", 100, &w.Quorum)
	b.duration(prefix+"lateness", &w.Lateness)
	b.duration(prefix+"deadline", &w.Deadline)
	whole(b, prefix+"devices", &w.Evidence.Devices)
	whole(b, prefix+"inferences", &w.Evidence.Inferences)
	if !b.reading && w.Evidence.Hours == 0 {
		b.values.Set(prefix+"hours", "")
	} else {
		b.scaled(prefix+"hours", 1, &w.Evidence.Hours)
	}
	b.flag(prefix+"approval", &w.Approval)
}

// limitFactor is what the form shows a gate's limit times: a percentage, except
// for drift.
func limitFactor(kind string) float64 {
	if kind == string(rollout.Drift) {
		return 1
	}
	return 100
}

// gates binds the gates by their kind: all of them are in the form.
func (b *binder) gates(s *operator.RolloutSpec) {
	if b.reading {
		for _, kind := range rollout.Kinds() {
			s.Gates = append(s.Gates, operator.GateSpec{Kind: string(kind)})
		}
	}
	for i := range s.Gates {
		g := &s.Gates[i]
		prefix := "gate." + g.Kind + "."
		on := !g.Off
		b.flag(prefix+"on", &on)
		g.Off = !on
		b.pointer(prefix+"limit", limitFactor(g.Kind), &g.Limit)
		whole(b, prefix+"min", &g.Min)
		b.text(prefix+"inconclusive", &g.Inconclusive)
	}
}

func (b *binder) shadow(s *operator.RolloutSpec) {
	on := s.Shadow != nil
	b.flag("shadow.on", &on)
	if !on {
		return
	}
	if b.reading {
		s.Shadow = &operator.ShadowSpec{}
	}
	whole(b, "shadow.rows", &s.Shadow.Rows)
	share := float64(s.Shadow.Share) / 10
	if b.reading || share > 0 {
		b.scaled("shadow.share", 1, &share)
	}
	s.Shadow.Share = int(share*10 + 0.5)
	b.duration("shadow.deadline", &s.Shadow.Deadline)
}

func (b *binder) budget(prefix string, s *operator.Budget) {
	whole(b, prefix+".in_flight", &s.InFlight)
	whole(b, prefix+".per_minute", &s.PerMinute)
	rows(b, prefix+".unavailable", &s.Unavailable, func(name string, u *operator.UnavailableLimit) {
		b.text(name+"label", &u.Label)
		b.size(name+"most", &u.Max, &u.Percent)
	})
}
