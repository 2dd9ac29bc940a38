// Package controlplane assembles the server: broker, folds, rollout engine,
// registry, operator API and pages, joined by the small interfaces each of them
// states. It is the only place that knows them all, and decides nothing itself.
package controlplane

import (
	"log/slog"
	"time"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/controlplane/drift"
)

// Defaults of Config: loopback for people, every interface for devices.
const (
	DefaultHTTP    = "127.0.0.1:8480"
	DefaultDevices = ":8443"
	DefaultMQTT    = ":8883"
	// AddressFile, in the data directory, tells where a running server listens.
	AddressFile = "addresses.json"
)

// Config of a Server. Data is required; the zero value of everything else is
// a sensible default.
type Config struct {
	// Data is where everything lives: streams, blobs, keys. It belongs to one
	// server at a time.
	Data string
	// HTTP is where the operator API and the pages listen; Devices is the HTTPS
	// API and MQTT the broker for devices. "host:port", port 0 takes a free one.
	HTTP, Devices, MQTT string
	// Hosts are the names and addresses devices reach the server by, for its
	// certificate; access.DefaultHosts() if empty. The first one stands in the
	// URLs of enrolment tokens.
	Hosts []string
	// TLSCert and TLSKey serve the operator API over TLS. Without them it
	// belongs on loopback or behind a proxy.
	TLSCert, TLSKey string
	// Drift tunes the monitor; zero fields take its defaults.
	Drift drift.Config
	// EvaluateEvery is how often drift is scored, DefaultEvaluate if 0.
	EvaluateEvery time.Duration
	// TrackingBytes bounds what is kept of runs and models, without their artifacts;
	// tracking.DefaultMaxBytes if 0.
	TrackingBytes uint64
	// Version of the build, for people.
	Version string
	// Logger takes what happens; nil discards.
	Logger *slog.Logger
}

// DefaultEvaluate is short against a window of 5 minutes, so that an alarm is
// not late because of it, and long against the second a large fleet costs.
const DefaultEvaluate = 30 * time.Second

func (c Config) withDefaults() Config {
	if c.HTTP == "" {
		c.HTTP = DefaultHTTP
	}
	if c.Devices == "" {
		c.Devices = DefaultDevices
	}
	if c.MQTT == "" {
		c.MQTT = DefaultMQTT
	}
	if len(c.Hosts) == 0 {
		c.Hosts = access.DefaultHosts()
	}
	if c.EvaluateEvery <= 0 {
		c.EvaluateEvery = DefaultEvaluate
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Addresses are where a running server listens, "host:port".
type Addresses struct {
	HTTP    string `json:"http"`
	Devices string `json:"devices"`
	MQTT    string `json:"mqtt"`
}
