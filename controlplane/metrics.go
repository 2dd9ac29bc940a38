package controlplane

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// scrapeTimeout bounds one look at everything: below Prometheus' own 10 s.
const scrapeTimeout = 5 * time.Second

var (
	messagesDesc = prometheus.NewDesc("vedette_ingest_messages_total",
		"What became of the messages of devices since the start.", []string{"outcome"}, nil)
	clonedDesc = prometheus.NewDesc("vedette_ingest_cloned_devices_total",
		"Devices whose identity was seen used twice since the start.", nil, nil)
	devicesDesc  = prometheus.NewDesc("vedette_devices", "Devices by presence.", []string{"presence"}, nil)
	alarmsDesc   = prometheus.NewDesc("vedette_alarms_raised", "Alarms that are raised now, by kind.", []string{"kind"}, nil)
	streamDesc   = prometheus.NewDesc("vedette_stream_bytes", "Bytes of the stream of what devices sent.", nil, nil)
	limitDesc    = prometheus.NewDesc("vedette_stream_limit_bytes", "Bytes at which that stream takes nothing more.", nil, nil)
	lagDesc      = prometheus.NewDesc("vedette_fold_lag_messages", "Messages that a fold of the stream has not taken in yet.", []string{"fold"}, nil)
	freeDesc     = prometheus.NewDesc("vedette_disk_free_bytes", "Free bytes where the data directory is.", nil, nil)
	deltasDesc   = prometheus.NewDesc("vedette_deltas_tried_total", "Pairs of files between which a delta was tried, by what came of it.", []string{"outcome"}, nil)
	deltaHeld    = prometheus.NewDesc("vedette_deltas", "Deltas that devices can be offered now.", nil, nil)
	deltaBytes   = prometheus.NewDesc("vedette_delta_bytes", "Bytes that those take.", nil, nil)
	deltaWaiting = prometheus.NewDesc("vedette_deltas_waiting", "Pairs of files that wait for their delta.", nil, nil)
	appliedDesc  = prometheus.NewDesc("vedette_deltas_applied_total", "Deltas that a device told to have made a file of, since the start.", nil, nil)
	savedDesc    = prometheus.NewDesc("vedette_delta_saved_bytes_total", "Bytes by which those were smaller than the files.", nil, nil)
	lastsDesc    = prometheus.NewDesc("vedette_storage_left_seconds",
		"Time until the stream or the disk is full if devices go on as they do; missing when neither will be.", nil, nil)
)

// What is counted even when there is none of it: an alert on a value that is
// missing never fires.
var (
	presences = []fleet.Presence{fleet.Online, fleet.Offline, fleet.PresenceUnknown}
	kinds     = drift.AlarmKinds()
)

// newMetrics registers what the control plane tells of itself. All of it is
// read at the scrape from whoever knows it.
func newMetrics(reg prometheus.Registerer, s *Server) {
	reg.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		stateCollector{s}, rolloutCollector{func() rolloutTeller { return s.runner }},
	)
}

// stateCollector reads the state of a server that has started.
type stateCollector struct{ server *Server }

var _ prometheus.Collector = stateCollector{}

// Describe implements prometheus.Collector.
func (c stateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		messagesDesc, clonedDesc, devicesDesc, alarmsDesc, streamDesc, limitDesc, lagDesc, freeDesc, lastsDesc,
		deltasDesc, deltaHeld, deltaBytes, deltaWaiting, appliedDesc, savedDesc,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c stateCollector) Collect(out chan<- prometheus.Metric) {
	c.ingest(out)
	c.fleet(out)
	c.storage(out)
	c.deltas(out)
}

func gauge(out chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (c stateCollector) ingest(out chan<- prometheus.Metric) {
	stats := c.server.ingest.Stats()
	for outcome, n := range map[string]uint64{
		"stored": stats.Stored, "repeated": stats.Repeated, "refused": stats.Refused, "malformed": stats.Malformed,
		"rate_limited": stats.RateLimited, "dropped": stats.Dropped, "failed": stats.Failed,
	} {
		out <- prometheus.MustNewConstMetric(messagesDesc, prometheus.CounterValue, float64(n), outcome)
	}
	out <- prometheus.MustNewConstMetric(clonedDesc, prometheus.CounterValue, float64(stats.Cloned))
}

func (c stateCollector) fleet(out chan<- prometheus.Metric) {
	devices := c.server.fleet.Presences()
	for _, p := range presences {
		gauge(out, devicesDesc, float64(devices[p]), string(p))
	}
	alarms := map[drift.AlarmKind]int{}
	for _, a := range c.server.monitor.Alarms("") {
		if a.Raised() {
			alarms[a.Kind]++
		}
	}
	for _, kind := range kinds {
		gauge(out, alarmsDesc, float64(alarms[kind]), string(kind))
	}
}

func (c stateCollector) storage(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	held, err := c.server.ingest.Storage(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(streamDesc, err)
		return
	}
	free, err := c.server.diskFree()
	if err != nil {
		out <- prometheus.NewInvalidMetric(freeDesc, err)
		return
	}
	gauge(out, streamDesc, float64(held.Bytes))
	gauge(out, limitDesc, float64(held.Limit))
	gauge(out, freeDesc, float64(free))
	for fold, n := range held.Behind {
		gauge(out, lagDesc, float64(n), fold)
	}
	if left, bounded := held.Lasts(free); bounded {
		gauge(out, lastsDesc, left.Seconds())
	}
}

func (c stateCollector) deltas(out chan<- prometheus.Metric) {
	s := c.server.deltas.Stats()
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	count(deltasDesc, s.Made, "made")
	count(deltasDesc, s.Useless, "useless")
	count(deltasDesc, s.Failed, "failed")
	count(appliedDesc, s.Applied)
	count(savedDesc, s.SavedBytes)
	gauge(out, deltaHeld, float64(s.Held))
	gauge(out, deltaBytes, float64(s.HeldBytes))
	gauge(out, deltaWaiting, float64(s.Waiting))
}

// serveMetrics answers scrapes that show an operator token, which may be a
// viewer's. Coming from loopback is no proof: behind a proxy everybody does.
func (s *Server) serveMetrics() http.Handler {
	reg := prometheus.NewPedanticRegistry()
	newMetrics(reg, s)
	scrape := promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 2, Timeout: 2 * scrapeTimeout,
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		p, err := s.access.Authenticate(r.Context(), token)
		if err != nil || !p.Role.Allows(operator.Viewer) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="vedette"`)
			http.Error(w, "metrics need the token of a viewer: set authorization.credentials_file in the scrape configuration", http.StatusUnauthorized)
			return
		}
		scrape.ServeHTTP(w, r)
	})
}
