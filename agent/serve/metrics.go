package serve

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/vedette-edge/vedette/agent/infer"
)

// runBuckets span a small tree on a server to a vision model on a weak board,
// in seconds.
var runBuckets = []float64{20e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1}

type metrics struct {
	calls    *prometheus.CounterVec
	rpcTimes *prometheus.HistogramVec
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	runs     *prometheus.HistogramVec
	waits    *prometheus.HistogramVec
	feedback *prometheus.CounterVec
	models   sync.Map // model → modelMetrics, looked up once
}

// modelMetrics are one model's.
type modelMetrics struct{ run, wait prometheus.Observer }

func newMetrics(reg prometheus.Registerer, engine Engine, challengers func() []infer.Status) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vedette_grpc_requests_total", Help: "Calls over gRPC by method and status.",
		}, []string{"method", "code"}),
		rpcTimes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vedette_grpc_request_duration_seconds", Help: "Time to answer a call over gRPC.", Buckets: runBuckets,
		}, []string{"method"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vedette_http_requests_total", Help: "Requests to the local service by route and status.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vedette_http_request_duration_seconds", Help: "Time to answer a request, without reading it.", Buckets: runBuckets,
		}, []string{"route"}),
		runs: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vedette_infer_run_duration_seconds", Help: "Time of a run of the model, without waiting.", Buckets: runBuckets,
		}, []string{"model"}),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vedette_infer_wait_duration_seconds", Help: "Time that an answered call waited for its turn and for company.", Buckets: runBuckets,
		}, []string{"model"}),
		feedback: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vedette_labels_total", Help: "Labels by whether their prediction was found.",
		}, []string{"matched"}),
	}
	reg.MustRegister(m.calls, m.rpcTimes, m.requests, m.seconds, m.runs, m.waits, m.feedback, &engineCollector{engine: engine})
	if challengers != nil {
		reg.MustRegister(&challengerCollector{challengers: challengers})
	}
	return m
}

// call records one call over gRPC.
func (m *metrics) call(method string, code codes.Code, took time.Duration) {
	m.calls.WithLabelValues(method, code.String()).Inc()
	m.rpcTimes.WithLabelValues(method).Observe(took.Seconds())
}

// ran records the times of one answered call.
func (m *metrics) ran(r *infer.Response) {
	of, ok := m.models.Load(r.Model)
	if !ok {
		of, _ = m.models.LoadOrStore(r.Model, modelMetrics{m.runs.WithLabelValues(r.Model), m.waits.WithLabelValues(r.Model)})
	}
	if of, ok := of.(modelMetrics); ok {
		of.run.Observe(r.Latency.Seconds())
		of.wait.Observe(r.Waited.Seconds())
	}
}

func (m *metrics) labels(r FeedbackResult) {
	m.feedback.WithLabelValues("true").Add(float64(r.Matched))
	m.feedback.WithLabelValues("false").Add(float64(r.Unmatched))
}

// routeMetrics are one route's, with the counters by status looked up once.
type routeMetrics struct {
	name     string
	requests *prometheus.CounterVec
	seconds  prometheus.Observer
	codes    sync.Map // int → prometheus.Counter
}

func (m *metrics) route(name string) *routeMetrics {
	return &routeMetrics{name: name, requests: m.requests, seconds: m.seconds.WithLabelValues(name)}
}

func (r *routeMetrics) done(status int, took time.Duration) {
	c, ok := r.codes.Load(status)
	if !ok {
		c, _ = r.codes.LoadOrStore(status, r.requests.WithLabelValues(r.name, strconv.Itoa(status)))
	}
	if counter, ok := c.(prometheus.Counter); ok {
		counter.Inc()
	}
	r.seconds.Observe(took.Seconds())
}

// engineCollector shows the engine's own counts when they are asked for.
type engineCollector struct {
	engine Engine
}

var _ prometheus.Collector = (*engineCollector)(nil)

var (
	modelLabels = []string{"model", "version", "release"}
	callsDesc   = prometheus.NewDesc("vedette_infer_calls_total", "Calls answered by a release since it was activated.", modelLabels, nil)
	rowsDesc    = prometheus.NewDesc("vedette_infer_rows_total", "Rows answered by a release since it was activated.", modelLabels, nil)
	failedDesc  = prometheus.NewDesc("vedette_infer_failed_calls_total", "Calls that a release did not answer.", modelLabels, nil)
	refusedDesc = prometheus.NewDesc("vedette_infer_refused_calls_total", "Calls refused for what they hold; nothing is held against the release.", modelLabels, nil)
	runningDesc = prometheus.NewDesc("vedette_infer_runs_in_progress", "Runs in progress.", modelLabels, nil)
	waitingDesc = prometheus.NewDesc("vedette_infer_queue_depth", "Calls waiting for their turn.", modelLabels, nil)
	hungDesc    = prometheus.NewDesc("vedette_infer_hung_runs", "Runs past their deadline that have not ended.", modelLabels, nil)
)

// Describe lists what Collect gives.
func (c *engineCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{callsDesc, rowsDesc, failedDesc, refusedDesc, runningDesc, waitingDesc, hungDesc} {
		ch <- d
	}
}

// Collect reads the engine.
func (c *engineCollector) Collect(ch chan<- prometheus.Metric) {
	for _, st := range c.engine.Status() {
		send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
			ch <- prometheus.MustNewConstMetric(d, kind, v, st.Model, st.Version, st.Release.Short())
		}
		send(callsDesc, prometheus.CounterValue, float64(st.Calls))
		send(rowsDesc, prometheus.CounterValue, float64(st.Rows))
		send(failedDesc, prometheus.CounterValue, float64(st.Failed))
		send(refusedDesc, prometheus.CounterValue, float64(st.Refused))
		send(runningDesc, prometheus.GaugeValue, float64(st.Running))
		send(waitingDesc, prometheus.GaugeValue, float64(st.Waiting))
		send(hungDesc, prometheus.GaugeValue, float64(st.Hung))
	}
}
