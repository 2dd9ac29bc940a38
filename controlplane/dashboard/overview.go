package dashboard

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// overviewView is the fleet at a glance.
type overviewView struct {
	*operator.Overview

	Shown      []operator.Alarm
	MoreAlarms int // not shown
	Cards      []siteCard
	MoreSites  int // not shown
	Rollouts   []rolloutRow
}

// siteCard is one site.
type siteCard struct {
	operator.SiteOverview

	Parts  []part // devices by version
	Alarms []operator.Alarm
	Curves []spark // accuracy, one per model
}

func (s *Server) overview(ctx context.Context, _ *request) (string, *page, error) {
	o, err := s.cfg.Service.Overview(ctx)
	if err != nil {
		return "", nil, err
	}
	v := overviewView{Overview: o}
	v.Shown, v.MoreAlarms = first(o.Alarms, alarmsShown)
	sites, more := first(worstSites(o.Sites), sitesShown)
	v.MoreSites = more
	curves := s.siteCurves(ctx, o.Models)
	versions := versionNames(o.Sites)
	for _, site := range sites {
		v.Cards = append(v.Cards, siteCard{
			SiteOverview: site, Parts: bar(site.Versions, versions, versionClass(versions)),
			Alarms: alarmsOf(o.Alarms, site.Site), Curves: curves[site.Site],
		})
	}
	for _, r := range o.Rollouts {
		v.Rollouts = append(v.Rollouts, rowOf(r))
	}
	return "overview", &page{
		Title: "Fleet", Section: "fleet", Live: "#figures,#alarms,#running,#sites,#models-at-a-glance", Data: v,
	}, nil
}

// Bounds of what one page shows: a person reads no more, and a large fleet has
// thousands.
const (
	sitesShown   = 48
	cohortsShown = 24
	namesShown   = 12 // devices of one decision
)

// first are the first n items, and how many are left out.
func first[T any](items []T, n int) (shown []T, more int) {
	n = min(n, len(items))
	return items[:n], len(items) - n
}

// worstSites puts sites with drift before others when not all can be shown.
func worstSites(sites []operator.SiteOverview) []operator.SiteOverview {
	if len(sites) <= sitesShown {
		return sites
	}
	out := slices.Clone(sites)
	slices.SortStableFunc(out, func(a, b operator.SiteOverview) int { return cmp.Compare(gravity[a.Verdict], gravity[b.Verdict]) })
	return out
}

func versionNames(sites []operator.SiteOverview) []string {
	all := map[string]bool{}
	for _, s := range sites {
		for name := range s.Versions {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// versionClass gives versions colours in turn, the same on every card.
func versionClass(names []string) func(string) string {
	return func(name string) string {
		i, _ := slices.BinarySearch(names, name)
		return [...]string{"v0", "v1", "v2", "v3", "v4", "v5"}[i%6]
	}
}

func alarmsOf(alarms []operator.Alarm, site string) []operator.Alarm {
	var out []operator.Alarm
	for _, a := range alarms {
		if a.Cohort == site {
			out = append(out, a)
		}
	}
	return out
}

// curveModels bounds how many models have a curve on the sites' cards.
const curveModels = 3

// siteCurves are accuracy over time by cohort. A model whose curves cannot be
// read has none: the cards are worth showing without.
func (s *Server) siteCurves(ctx context.Context, models []operator.Model) map[string][]spark {
	out := map[string][]spark{}
	for _, m := range models[:min(len(models), curveModels)] {
		q, err := s.cfg.Service.Quality(ctx, operator.QualityQuery{Model: m.Name})
		if err != nil {
			continue
		}
		for cohort, points := range byCohort(q) {
			curve := accuracyCurve(points)
			if curve.Line != "" {
				curve.Label = m.Name
				out[cohort] = append(out[cohort], curve)
			}
		}
	}
	return out
}

// byCohort joins the versions' points of each cohort in the order of time.
func byCohort(q *operator.Quality) map[string][]operator.QualityPoint {
	out := map[string][]operator.QualityPoint{}
	for i := range q.Series {
		c := q.Series[i].Cohort
		out[c] = append(out[c], q.Series[i].Points...)
	}
	for _, points := range out {
		slices.SortStableFunc(points, func(a, b operator.QualityPoint) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	}
	return out
}

// accuracyCurve runs from one half to one: below that a curve says only "bad".
func accuracyCurve(points []operator.QualityPoint) spark {
	var values []float64
	for _, p := range points {
		if p.Accuracy != nil {
			values = append(values, *p.Accuracy)
		}
	}
	return sparkOf(values, 0.5, 1)
}
