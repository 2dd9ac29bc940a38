package api

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Info is what the control plane says of itself.
type Info struct {
	Version   string
	Started   time.Time
	API       string   // URL of the operator API
	DeviceAPI string   // URL devices enrol at
	MQTT      []string // URLs devices connect to
	CASHA256  string   // of the device CA's certificate, hex
	// Storage tells how full the server is.
	Storage func(ctx context.Context) (operator.Storage, error)
}

// Server is what the control plane is, and who asks.
func (s *Service) Server(ctx context.Context) (*operator.ServerInfo, error) {
	info := s.d.Info
	p, _ := operator.PrincipalOf(ctx)
	storage, err := info.Storage(ctx)
	if err != nil {
		return nil, operator.Errorf(operator.Unavailable, "ask the storage how full it is: %w", err)
	}
	return &operator.ServerInfo{
		Version: info.Version, Protocol: protocol.Version, Started: info.Started.UTC(), Now: s.d.Now().UTC(),
		API: info.API, DeviceAPI: info.DeviceAPI, MQTT: info.MQTT, CASHA256: info.CASHA256,
		Principal: p, Trust: s.d.Registry.Trust(), Storage: storage, CohortBy: s.d.Monitor.Config().CohortBy,
	}, nil
}

// Settings is what is asked of all devices.
func (s *Service) Settings(context.Context) (*operator.Settings, error) {
	return settings(s.d.Desired.FleetSettings()), nil
}

func settings(d desired.Settings) *operator.Settings {
	return &operator.Settings{
		Window: d.Window, Report: d.Report, Snapshot: d.Snapshot, SamplingOff: d.SamplingOff, SampleRows: d.SampleRows,
	}
}

// SetSettings changes what is asked of all devices.
func (s *Service) SetSettings(ctx context.Context, c operator.Settings) (*operator.Settings, error) {
	p, err := commander(ctx, operator.Operator, c.Reason)
	if err != nil {
		return nil, err
	}
	change := desired.SettingsChange{Reason: c.Reason, Settings: desired.Settings{
		Window: c.Window, Report: c.Report, Snapshot: c.Snapshot, SamplingOff: c.SamplingOff, SampleRows: c.SampleRows,
	}}
	err = s.d.Desired.SetSettings(ctx, p.Name, change)
	if errors.Is(err, desired.ErrSettings) {
		return nil, operator.Errorf(operator.Invalid, "%w", err)
	}
	if err != nil {
		return nil, operator.Errorf(operator.Unavailable, "change settings: %w", err)
	}
	s.Changed(operator.EventDevice, "")
	return settings(s.d.Desired.FleetSettings()), nil
}

// Overview is the fleet at a glance.
func (s *Service) Overview(context.Context) (*operator.Overview, error) {
	out := &operator.Overview{Models: s.models(), Rollouts: []operator.RolloutSummary{}, Alarms: []operator.Alarm{}, AsOf: s.d.Now().UTC()}
	for _, v := range s.d.Rollouts.List() {
		if summary := s.looks.summary(v); !summary.State.Ended() {
			out.Rollouts = append(out.Rollouts, summary)
		}
	}
	for _, a := range s.alarms("") {
		if a.Cleared.IsZero() {
			out.Alarms = append(out.Alarms, a)
		}
	}
	s.countDevices(out)
	s.countTotals(out)
	return out, nil
}

// countDevices fills in the sites and the counts of devices.
func (s *Service) countDevices(out *operator.Overview) {
	sites := map[string]*operator.SiteOverview{}
	k := s.knowledge()
	for _, d := range s.d.Fleet.Devices(nil) {
		site := sites[d.Site()]
		if site == nil {
			site = &operator.SiteOverview{Site: d.Site(), Versions: map[string]int{}, Verdict: operator.VerdictInsufficient}
			sites[d.Site()] = site
		}
		out.Devices++
		site.Devices++
		switch d.Presence {
		case fleet.Online:
			out.Online++
			site.Online++
		case fleet.Offline:
			out.Offline++
		case fleet.PresenceUnknown:
			out.Unknown++
		}
		if len(marks(&d, k)) > 0 {
			out.Marked++
		}
		for _, m := range d.Models {
			if !m.Active.IsZero() {
				site.Versions[m.Name+" "+firstOf(s.ref(m.Name, m.Active).Version, m.Active.Short())]++
			}
		}
	}
	s.judgeSites(sites)
	out.Sites = []operator.SiteOverview{}
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		out.Sites = append(out.Sites, *sites[name])
	}
}

// judgeSites gives each site the worst verdict of its models and their common
// accuracy. It only says something where sites are the cohorts.
func (s *Service) judgeSites(sites map[string]*operator.SiteOverview) {
	if s.d.Monitor.Config().CohortBy != fleet.SiteLabel {
		return
	}
	labels, correct := map[string]uint64{}, map[string]uint64{}
	for _, score := range s.d.Monitor.Scores("") {
		for i := range score.Cohorts {
			c := &score.Cohorts[i]
			site := sites[c.Cohort]
			if site == nil {
				continue
			}
			site.Verdict = worse(site.Verdict, operator.Verdict(c.Verdict))
			labels[c.Cohort] += c.Accuracy.Labels
			correct[c.Cohort] += c.Accuracy.Correct
		}
	}
	for name, n := range labels {
		if n > 0 {
			accuracy := float64(correct[name]) / float64(n)
			sites[name].Accuracy = &accuracy
		}
	}
}

var badness = map[operator.Verdict]int{operator.VerdictInsufficient: 0, operator.VerdictOK: 1, operator.VerdictDrift: 2}

func worse(a, b operator.Verdict) operator.Verdict {
	if cmp.Compare(badness[a], badness[b]) < 0 {
		return b
	}
	return a
}

func (s *Service) countTotals(out *operator.Overview) {
	for _, t := range s.d.Monitor.Totals() {
		out.Rows += t.Rows + t.FailedRows
		out.Labels += t.Labels
		out.LostRows += t.LostRows
	}
}

// openAlarms counts standing alarms by model.
func (s *Service) openAlarms() map[string]int {
	out := map[string]int{}
	for _, a := range s.d.Monitor.Alarms("") {
		if a.Raised() {
			out[a.Model]++
		}
	}
	return out
}
