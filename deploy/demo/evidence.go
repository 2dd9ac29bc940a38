package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// deviceTotal is what the server counted of one device.
type deviceTotal struct {
	rows   map[string]uint64 // by version
	labels uint64
	lost   uint64 // rows and labels reported as lost
}

func (p *plant) serverTotals(ctx context.Context) (map[string]deviceTotal, error) {
	t, err := p.client.Totals(ctx, operator.TotalQuery{})
	if err != nil {
		return nil, err
	}
	out := map[string]deviceTotal{}
	at := func(device string) deviceTotal {
		d, ok := out[device]
		if !ok {
			d.rows = map[string]uint64{}
		}
		return d
	}
	for _, item := range t.Items {
		d := at(item.Device)
		d.rows[item.Version] += item.Rows
		d.labels += item.Labels
		out[item.Device] = d
	}
	for _, l := range t.Lost {
		d := at(l.Device)
		d.lost += l.Rows + l.Labels
		out[l.Device] = d
	}
	return out, nil
}

// balance waits until the server's totals of devices are what their cameras
// counted: exactly, or for a device that was killed within what it served
// between two snapshots. The cameras must be paused.
func (p *plant) balance(ctx context.Context, devices []string) (numbers, error) {
	var rows, labels uint64
	err := until(ctx, 60*time.Second, "the server's totals to equal what the cameras counted", func() error {
		totals, err := p.serverTotals(ctx)
		if err != nil {
			return err
		}
		rows, labels = 0, 0
		for _, id := range devices {
			got, want := totals[id], p.agents[id].camera.tally()
			if got.lost > 0 {
				return permanent{fmt.Errorf("%s reports %d as lost", id, got.lost)}
			}
			slack := p.killSlack(id)
			for version, n := range want.Rows {
				if !near(got.rows[version], n, slack) {
					return fmt.Errorf("%s version %s: server has %d rows, the camera %d", id, version, got.rows[version], n)
				}
				rows += got.rows[version]
			}
			if !near(got.labels, want.Labels, slack) {
				return fmt.Errorf("%s: server has %d labels, the camera %d", id, got.labels, want.Labels)
			}
			labels += got.labels
		}
		return nil
	})
	return numbers{"devices": len(devices), "rows": rows, "labels": labels}, err
}

// killSlack is the traffic a device's kills may have cost: what it served since
// its last snapshot, and the request that was under way.
func (p *plant) killSlack(id string) uint64 {
	p.power.Lock()
	defer p.power.Unlock()
	pace, kills := p.opts.Pace, len(p.agents[id].kills)
	perKill := int(pace.Snapshot/pace.Every+2) * pace.Batch
	return uint64(kills * perKill) //nolint:gosec // small and positive
}

func near(a, b, slack uint64) bool { return max(a, b)-min(a, b) <= slack }

// accuracy is measured from labels, by the server, over points of a version at
// a site ("" for all) that began at since or later.
func (p *plant) accuracy(ctx context.Context, version, site string, since time.Time) (accuracy float64, labels uint64, err error) {
	q, err := p.client.Quality(ctx, operator.QualityQuery{Model: model, Version: version, Cohort: site, Since: since})
	if err != nil {
		return 0, 0, err
	}
	var correct uint64
	for _, s := range q.Series {
		if s.Version != version || site != "" && s.Cohort != site {
			continue
		}
		for _, point := range s.Points {
			if !point.At.Before(since) {
				labels, correct = labels+point.Labels, correct+point.Correct
			}
		}
	}
	if labels == 0 {
		return 0, 0, nil
	}
	return float64(correct) / float64(labels), labels, nil
}

// alarm finds a raised alarm.
func (p *plant) alarm(ctx context.Context, kind string, about func(operator.Alarm) bool) (operator.Alarm, error) {
	page, err := p.client.Alarms(ctx, operator.AlarmQuery{Model: model})
	if err != nil {
		return operator.Alarm{}, err
	}
	for _, a := range page.Items {
		if a.Kind == kind && about(a) {
			return a, nil
		}
	}
	return operator.Alarm{}, fmt.Errorf("no alarm of kind %s yet", kind)
}
