package serve

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedette-edge/vedette/agent/infer"
)

// challengerCollector shows what runs beside the models when it is asked for.
type challengerCollector struct{ challengers func() []infer.Status }

var _ prometheus.Collector = (*challengerCollector)(nil)

var (
	challengerLabels   = []string{"model", "version", "release", "role"}
	besideCallsDesc    = prometheus.NewDesc("vedette_challenger_calls_total", "Calls computed by a challenger since it was activated.", challengerLabels, nil)
	besideRowsDesc     = prometheus.NewDesc("vedette_challenger_rows_total", "Rows computed by a challenger since it was activated.", challengerLabels, nil)
	besideFailedDesc   = prometheus.NewDesc("vedette_challenger_failed_calls_total", "Calls that a challenger could not compute.", challengerLabels, nil)
	besideSkippedDesc  = prometheus.NewDesc("vedette_challenger_skipped_rows_total", "Rows that a shadow had no time for.", challengerLabels, nil)
	besideFallbackDesc = prometheus.NewDesc("vedette_challenger_fallbacks_total", "Calls of a challenger's share that the serving release answered after all.", challengerLabels, nil)
)

// Describe lists what Collect gives.
func (c *challengerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{besideCallsDesc, besideRowsDesc, besideFailedDesc, besideSkippedDesc, besideFallbackDesc} {
		ch <- d
	}
}

// Collect reads the engine.
func (c *challengerCollector) Collect(ch chan<- prometheus.Metric) {
	for _, st := range c.challengers() {
		send := func(d *prometheus.Desc, n uint64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), st.Model, st.Version, st.Release.Short(), st.Role)
		}
		send(besideCallsDesc, st.Calls)
		send(besideRowsDesc, st.Rows)
		send(besideFailedDesc, st.Failed)
		send(besideSkippedDesc, st.Skipped)
		send(besideFallbackDesc, st.Fallbacks)
	}
}
