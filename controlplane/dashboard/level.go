package dashboard

import (
	"context"
	"fmt"
	"net/url"
	"slices"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// levelNames are what levels are called on pages.
var levelNames = map[string]string{
	operator.LevelDevice: "Devices", operator.LevelCohort: "Cohorts", operator.LevelSite: "Sites", operator.LevelVersion: "Versions", operator.LevelFleet: "Fleet",
}

// levelLink leads to one level of a model.
type levelLink struct {
	Name, Path string
	Here       bool
}

// levelLinks are the levels of a model, the widest first; by is the present one.
func levelLinks(model, by string) []levelLink {
	out := []levelLink{{Name: "Heat map", Path: "/drift/" + url.PathEscape(model), Here: by == ""}}
	for _, level := range slices.Backward(operator.Levels()) {
		out = append(out, levelLink{Name: levelNames[level], Path: "/drift/" + url.PathEscape(model) + "/by/" + level, Here: level == by})
	}
	return out
}

// levelView is one level of a model, group by group.
type levelView struct {
	*operator.DriftLevel

	Links  []levelLink
	Groups []groupRow
	More   int // groups not shown
}

// groupRow is one group in a list.
type groupRow struct {
	operator.DriftGroup

	Path     string // of its page
	Worst    []operator.DriftCell
	Missing  []operator.DriftCell // with another share of missing values
	New      []operator.DriftCell // with values that training did not know
	Interval interval
	Diagram  diagram
}

// levelShown bounds a list; worstNamed how many features a row of it names.
const (
	levelShown = 200
	worstNamed = 3
)

func (s *Server) level(ctx context.Context, r *request) (string, *page, error) {
	model, by := r.PathValue("model"), r.PathValue("level")
	l, err := s.cfg.Service.DriftLevel(ctx, model, operator.LevelQuery{By: by, Version: r.URL.Query().Get("version")})
	if err != nil {
		return "", nil, err
	}
	v := levelView{DriftLevel: l, Links: levelLinks(model, by)}
	groups, more := first(l.Groups, levelShown)
	v.More = more
	for i := range groups {
		v.Groups = append(v.Groups, groupOf(model, &groups[i]))
	}
	return "level", &page{Title: "Drift of " + model + " by " + by, Section: "drift", Live: "#groups", Kinds: "drift,model", Data: v}, nil
}

// groupPath is the page of one group.
func groupPath(model string, g *operator.DriftGroup) string {
	query := url.Values{"by": {g.Level}, "name": {g.Name}}
	if !g.Release.IsZero() {
		query.Set("version", g.Release.String())
	}
	return "/drift/" + url.PathEscape(model) + "/group?" + query.Encode()
}

func groupOf(model string, g *operator.DriftGroup) groupRow {
	out := groupRow{DriftGroup: *g, Path: groupPath(model, g), Interval: intervalOf(&g.Accuracy), Diagram: diagramOf(&g.Calibration)}
	out.Worst = slices.DeleteFunc(worst(g.Cells, worstNamed), func(c operator.DriftCell) bool { return !c.Apart })
	for _, c := range g.Cells {
		if c.Missing != nil && c.Missing.Apart {
			out.Missing = append(out.Missing, c)
		}
		if c.New != nil && c.New.Apart {
			out.New = append(out.New, c)
		}
	}
	return out
}

// groupView is one group with the pictures of its features.
type groupView struct {
	groupRow

	Links     []levelLink
	By        string
	Threshold float64
	Features  []featurePicture
	More      []featurePicture // without a picture
}

// featurePicture is one feature before and now.
type featurePicture struct {
	operator.FeatureDrift

	Bars   histogram
	Chance string // the p-value that decides
}

// featuresDrawn bounds how many features of a group have pictures; the table
// below has the others.
const featuresDrawn = 24

func (s *Server) group(ctx context.Context, r *request) (string, *page, error) {
	q, model := r.URL.Query(), r.PathValue("model")
	g, err := s.cfg.Service.DriftGroup(ctx, model, operator.GroupQuery{By: q.Get("by"), Name: q.Get("name"), Version: q.Get("version")})
	if err != nil {
		return "", nil, err
	}
	v := groupView{groupRow: groupOf(model, &g.DriftGroup), Links: levelLinks(model, g.Level), By: g.Level}
	for i, f := range g.Features {
		picture := featurePicture{f, histogramOf(f.Feature, f.Bins), chanceText(max(f.P, f.Chi2P))}
		if i < featuresDrawn && len(f.Bins) > 0 {
			v.Features = append(v.Features, picture)
		} else {
			v.More = append(v.More, picture)
		}
	}
	return "group", &page{
		Title: fmt.Sprintf("Drift of %s, %s", model, groupName(&g.DriftGroup)), Section: "drift", Live: "#verdicts,#features", Kinds: "drift,model", Data: v,
	}, nil
}

// groupName is what a group is called.
func groupName(g *operator.DriftGroup) string {
	switch g.Level {
	case operator.LevelFleet:
		return "the whole fleet"
	case operator.LevelDevice:
		return g.Name
	default:
		return named(g.Level, g.Name)
	}
}

// chanceText is a p-value. What is below a millionth says no more.
func chanceText(p float64) string {
	if p < 1e-6 {
		return "< 1e-06"
	}
	return fmt.Sprintf("%.2g", p)
}
