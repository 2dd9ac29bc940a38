package serve

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// agentCollector shows the state of the rest of the agent when it is asked for.
type agentCollector struct {
	agent            func() *Agent
	version, runtime string
}

var _ prometheus.Collector = (*agentCollector)(nil)

var (
	infoDesc     = prometheus.NewDesc("vedette_agent_info", "Always 1; the labels say what runs here.", []string{"device", "version", "runtime"}, nil)
	startsDesc   = prometheus.NewDesc("vedette_agent_starts_total", "Starts of this installation.", nil, nil)
	uplinkDesc   = prometheus.NewDesc("vedette_uplink_connected", "1 while the control plane is connected.", nil, nil)
	recordsDesc  = prometheus.NewDesc("vedette_outbox_records", "Records kept for the control plane: windows open still, waiting to be sent, sent and not acknowledged.", []string{"state"}, nil)
	bytesDesc    = prometheus.NewDesc("vedette_outbox_size_bytes", "Bytes of the records kept for the control plane.", nil, nil)
	mergedDesc   = prometheus.NewDesc("vedette_outbox_merges_total", "Windows merged with their neighbours to save room, since the start.", nil, nil)
	diskDesc     = prometheus.NewDesc("vedette_outbox_disk_failing", "1 while the disk takes no records.", nil, nil)
	updateDesc   = prometheus.NewDesc("vedette_update_state", "1 for the state that a model's update is in.", []string{"model", "state"}, nil)
	updateForSec = prometheus.NewDesc("vedette_update_state_seconds", "How long a model's update has been in its state.", []string{"model"}, nil)
	fetchedDesc  = prometheus.NewDesc("vedette_update_fetched_bytes", "Bytes fetched of the release that a model is updated to.", []string{"model"}, nil)
	deltasDesc   = prometheus.NewDesc("vedette_update_deltas_total", "Files of releases for which there was a delta since the start: made by it, or fetched whole because it failed.", []string{"outcome"}, nil)
	copiedDesc   = prometheus.NewDesc("vedette_update_copied_files_total", "Files of releases that another release here has too, since the start.", nil, nil)
	savedDesc    = prometheus.NewDesc("vedette_update_saved_bytes_total", "Bytes that deltas and copies saved since the start.", nil, nil)
	fetchDesc    = prometheus.NewDesc("vedette_update_size_bytes", "Bytes to fetch of the release that a model is updated to.", []string{"model"}, nil)
)

// registerAgent adds the agent's state and the process to the registry.
func registerAgent(reg prometheus.Registerer, cfg *Config) {
	reg.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	if cfg.Agent != nil {
		reg.MustRegister(&agentCollector{agent: cfg.Agent, version: cfg.Version, runtime: cfg.Runtime.Name + " " + cfg.Runtime.Version})
	}
}

// Describe lists what Collect gives.
func (c *agentCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		infoDesc, startsDesc, uplinkDesc, recordsDesc, bytesDesc, mergedDesc, diskDesc, updateDesc, updateForSec, fetchedDesc, fetchDesc,
		deltasDesc, copiedDesc, savedDesc,
	} {
		ch <- d
	}
}

// Collect asks the agent.
func (c *agentCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	a := c.agent()
	gauge(infoDesc, 1, a.Device, c.version, c.runtime)
	ch <- prometheus.MustNewConstMetric(startsDesc, prometheus.CounterValue, float64(a.BootCount))
	gauge(uplinkDesc, truth(a.Uplink.Connected))
	gauge(recordsDesc, float64(a.Outbox.Open), "open")
	gauge(recordsDesc, float64(a.Outbox.Pending), "pending")
	gauge(recordsDesc, float64(a.Outbox.Sent), "sent")
	gauge(bytesDesc, float64(a.Outbox.Bytes))
	ch <- prometheus.MustNewConstMetric(mergedDesc, prometheus.CounterValue, float64(a.Outbox.Merged))
	gauge(diskDesc, truth(a.Outbox.Error != ""))
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	count(deltasDesc, a.Fetch.Deltas, "applied")
	count(deltasDesc, a.Fetch.DeltasFailed, "failed")
	count(copiedDesc, a.Fetch.Copied)
	count(savedDesc, a.Fetch.SavedBytes)
	for _, u := range a.Updates {
		gauge(updateDesc, 1, u.Model, u.State)
		gauge(updateForSec, float64(u.ForMs)/1e3, u.Model)
		gauge(fetchedDesc, float64(u.Done), u.Model)
		gauge(fetchDesc, float64(u.Total), u.Model)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
