package dashboard

import (
	"cmp"
	"context"
	"slices"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// worstShown is how many features are named where all are too many.
const worstShown = 8

// worst are the features furthest from training.
func worst(cells []operator.DriftCell, most int) []operator.DriftCell {
	out := slices.Clone(cells)
	slices.SortStableFunc(out, func(a, b operator.DriftCell) int { return cmp.Compare(b.PSI, a.PSI) })
	return out[:min(len(out), most)]
}

// modelsView chooses a model for a page that is about one.
type modelsView struct {
	Models []operator.Model
	Base   string // of the links
	Text   string
}

// oneModel leads to the page of the only model, or lets choose among several.
func (s *Server) oneModel(ctx context.Context, section, title, text string, one func(ctx context.Context, model, only string) (string, *page, error)) (string, *page, error) {
	models, err := s.cfg.Service.Models(ctx)
	if err != nil {
		return "", nil, err
	}
	if len(models) == 1 {
		return one(ctx, models[0].Name, "")
	}
	return "choose", &page{Title: title, Section: section, Data: modelsView{Models: models, Base: "/" + section, Text: text}}, nil
}

func (s *Server) driftModels(ctx context.Context, _ *request) (string, *page, error) {
	return s.oneModel(ctx, "drift", "Drift", "No model has been published yet, so nothing is compared with training.", s.driftOf)
}

func (s *Server) drift(ctx context.Context, r *request) (string, *page, error) {
	return s.driftOf(ctx, r.PathValue("model"), r.URL.Query().Get("cohort"))
}

// driftView is one model's inputs and outputs against training.
type driftView struct {
	*operator.Drift

	Releases []releaseDrift
	Open     []operator.Alarm
	Past     []operator.Alarm
	Retrain  []operator.RetrainEvent
	Policy   *operator.RetrainPolicy
	Scale    []scaleStep
	Links    []levelLink
}

// releaseDrift is one version's cohorts.
type releaseDrift struct {
	operator.ReleaseRef

	Cohorts []cohortDrift
	More    int // cohorts not shown
}

// cohortDrift is one cohort with its devices, worst first.
type cohortDrift struct {
	operator.CohortDrift

	Picture  heat
	Interval interval
	Path     string // of the page with its features
	Apart    int    // features of the cohort
	Inputs   int
	Worst    []operator.DriftCell
	Outputs  []operator.DriftCell
	Devices  []deviceDrift
	More     int // devices not shown
}

// cohortDevices bounds how many devices of a cohort have pictures; the list of
// devices has them all.
const cohortDevices = 24

const alarmsShown = 20

func (s *Server) driftOf(ctx context.Context, model, only string) (string, *page, error) {
	d, err := s.cfg.Service.Drift(ctx, model)
	if err != nil {
		return "", nil, err
	}
	v := driftView{Drift: d, Scale: heatScale(), Links: levelLinks(model, "")}
	for _, r := range d.Releases {
		out := releaseDrift{ReleaseRef: r.ReleaseRef}
		cohorts, more := first(worstCohorts(r.Cohorts, only), cohortsShown)
		out.More = more
		for _, c := range cohorts {
			out.Cohorts = append(out.Cohorts, cohortOf(c))
			out.Cohorts[len(out.Cohorts)-1].Path = groupPath(model, &operator.DriftGroup{ReleaseRef: r.ReleaseRef, Level: operator.LevelCohort, Name: c.Cohort})
		}
		v.Releases = append(v.Releases, out)
	}
	if err := s.findings(ctx, &v); err != nil {
		return "", nil, err
	}
	return "drift", &page{
		Title: "Drift of " + model, Section: "drift", Live: "#findings,#comparisons,#retraining", Kinds: "drift,alarm,retrain,model", Data: v,
	}, nil
}

// findings adds alarms and what became of them.
func (s *Server) findings(ctx context.Context, v *driftView) error {
	paging := operator.Paging{Limit: alarmsShown}
	alarms, err := s.cfg.Service.Alarms(ctx, operator.AlarmQuery{Model: v.Model, Paging: paging})
	if err != nil {
		return err
	}
	for _, a := range alarms.Items {
		if a.Cleared.IsZero() {
			v.Open = append(v.Open, a)
		} else {
			v.Past = append(v.Past, a)
		}
	}
	events, err := s.cfg.Service.RetrainEvents(ctx, operator.RetrainQuery{Model: v.Model, Paging: paging})
	if err != nil {
		return err
	}
	v.Retrain = events.Items
	v.Policy, err = s.cfg.Service.RetrainPolicy(ctx, v.Model)
	return err
}

// gravity orders verdicts of devices, the worst first.
var gravity = map[operator.Verdict]int{
	operator.VerdictSensorFault: 0, operator.VerdictDrift: 1, operator.VerdictApart: 2,
	operator.VerdictInsufficient: 3, operator.VerdictOK: 4,
}

// worstCohorts are all cohorts or only the one asked for. Where there are too
// many for one page, those that drift come first.
func worstCohorts(cohorts []operator.CohortDrift, only string) []operator.CohortDrift {
	out := slices.Clone(cohorts)
	if only != "" {
		out = slices.DeleteFunc(out, func(c operator.CohortDrift) bool { return c.Cohort != only })
	}
	if len(out) > cohortsShown {
		slices.SortStableFunc(out, func(a, b operator.CohortDrift) int {
			return cmp.Or(cmp.Compare(gravity[a.Verdict], gravity[b.Verdict]), cmp.Compare(b.MaxPSI, a.MaxPSI))
		})
	}
	return out
}

func cohortOf(c operator.CohortDrift) cohortDrift {
	inputs := sideOf(c.Cells, "input")
	out := cohortDrift{
		CohortDrift: c, Inputs: len(inputs), Interval: intervalOf(&c.Accuracy),
		Picture: inputHeat(named("cohort", c.Cohort)+" against training", c.Cells, againstTraining),
		Worst:   worst(inputs, worstShown), Outputs: sideOf(c.Cells, "output"),
	}
	for i := range c.Cells {
		if c.Cells[i].Apart {
			out.Apart++
		}
	}
	devices := slices.Clone(c.Devices)
	if len(devices) > cohortDevices {
		slices.SortStableFunc(devices, func(a, b operator.DeviceDrift) int {
			return cmp.Or(cmp.Compare(gravity[a.Verdict], gravity[b.Verdict]), cmp.Compare(b.MaxPSI, a.MaxPSI))
		})
		out.More = len(devices) - cohortDevices
		devices = devices[:cohortDevices]
	}
	for _, d := range devices {
		out.Devices = append(out.Devices, driftOfDevice(d))
	}
	return out
}

// scaleStep is one colour of the legend.
type scaleStep struct {
	Class string
	From  string
}

func heatScale() []scaleStep {
	out := []scaleStep{{Class: "h0", From: "0"}}
	for i, v := range heatSteps {
		out = append(out, scaleStep{Class: "h" + string(rune('1'+i)), From: formatNumber(v)})
	}
	return out
}
