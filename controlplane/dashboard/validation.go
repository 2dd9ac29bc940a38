package dashboard

import (
	"context"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// versionView is one version; the manifest may be missing when its blob is.
type versionView struct {
	*operator.VersionDetail

	Validation *validationView
	From       *operator.Provenance // where it comes from
}

// validationView is how a version stands with its gates, as a page shows it.
type validationView struct {
	*operator.Validation

	Gates []verdictView
}

// verdictView is one gate as a row.
type verdictView struct {
	*operator.GateVerdict
}

func newValidationView(v *operator.Validation) *validationView {
	out := &validationView{Validation: v}
	for i := range v.Gates {
		out.Gates = append(out.Gates, verdictView{&v.Gates[i]})
	}
	return out
}

// Found is the value of the gate.
func (g verdictView) Found() string {
	if g.Value == nil {
		return "–"
	}
	return measured(*g.Value, g.Unit)
}

// Wanted is the gate's threshold with the side that it has to be on.
func (g verdictView) Wanted() string {
	switch {
	case g.Threshold == nil:
		return "–"
	case g.AtMost:
		return "≤\u2009" + measured(*g.Threshold, g.Unit)
	}
	return "≥\u2009" + measured(*g.Threshold, g.Unit)
}

// Interval is that of the value, one-sided where there is no upper end.
func (g verdictView) Interval() string {
	switch {
	case g.Lower == nil:
		return "–"
	case g.Upper == nil:
		return "≥\u2009" + formatNumber(*g.Lower)
	}
	return formatNumber(*g.Lower) + " – " + formatNumber(*g.Upper)
}

// PartFound is the value of one profile, group or check.
func (g verdictView) PartFound(p operator.GatePart) string {
	if p.Value == nil {
		return ""
	}
	return measured(*p.Value, g.Unit)
}

// measured is a value with its unit.
func measured(v float64, unit string) string {
	switch unit {
	case "bytes":
		text, _ := formatBytes(v) // a number
		return text
	case "":
		return formatNumber(v)
	}
	return formatNumber(v) + "\u2009" + unit
}

func (s *Server) version(ctx context.Context, r *request) (string, *page, error) {
	v, err := s.cfg.Service.Version(ctx, r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return "", nil, err
	}
	gates, err := s.cfg.Service.Validation(ctx, v.Model, v.Release.String())
	if err != nil {
		return "", nil, err
	}
	from, err := s.cfg.Service.Lineage(ctx, v.Model, v.Release.String())
	if err != nil {
		return "", nil, err
	}
	return "version", &page{
		Title: v.Model + " " + v.Version.Version, Section: "models", Live: "#running,#stages,#gates", Kinds: "model,device",
		Data: versionView{v, newValidationView(gates), from},
	}, nil
}

func overrideForm(ctx context.Context, s Service, r *request) (*form, error) {
	v, err := s.Validation(ctx, r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	for i := range v.Gates {
		if g := &v.Gates[i]; g.Name == r.PathValue("gate") {
			return &form{
				Title: "Let " + v.Model + " " + v.Version + " past gate " + g.Name, Button: "Let it past", Danger: true,
				Back:   versionPath(v.Model, v.Version),
				Text:   "The gate no longer stops this version. It holds for this version and this gate alone, and the ledger keeps who did it, why, and what the gate had found.",
				Points: []string{"It is " + words(string(g.Status)) + " now: " + g.Evidence},
			}, nil
		}
	}
	return nil, operator.Errorf(operator.NotFound, "there is no gate %.40q", r.PathValue("gate"))
}

func overrideGate(ctx context.Context, s Service, r *request) error {
	_, err := s.OverrideGate(ctx, r.PathValue("model"), r.PathValue("version"), r.PathValue("gate"), operator.Reasoned{Reason: reasonOf(r)})
	return err
}

func labForm(ctx context.Context, s Service, r *request) (*form, error) {
	v, err := s.Validation(ctx, r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	f := &form{
		Title: "Try " + v.Model + " " + v.Version + " in the lab", Button: "Try it", Back: versionPath(v.Model, v.Version),
		Text: "Devices with the label ring=lab fetch it, try it as any version, and run it as a shadow of what they serve, which answers nobody. They report latency and memory for their firmware profiles.",
	}
	if v.Lab != nil {
		f.Points = []string{"The lab tries " + v.Lab.Version + " now, on " + strings.Join(append(v.Lab.Devices, "no other device"), ", ") + ": this one takes its place."}
	}
	return f, nil
}

func tryInLab(ctx context.Context, s Service, r *request) error {
	_, err := s.SetLabTrial(ctx, r.PathValue("model"), r.PathValue("version"), operator.LabTrialChange{Reason: reasonOf(r)})
	return err
}

func versionPath(model, version string) string {
	return "/models/" + queryPath(model) + "/versions/" + queryPath(version)
}

// historyOf is a model's history.
func (s *Server) historyOf(ctx context.Context, model string) (*operator.History, error) {
	return s.cfg.Service.History(ctx, model, operator.HistoryQuery{})
}
