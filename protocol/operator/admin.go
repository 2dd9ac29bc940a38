package operator

import (
	"encoding/json"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// LedgerRecord is one entry of the ledger.
type LedgerRecord struct {
	Seq   uint64          `json:"seq"`   // in the whole ledger
	Chain string          `json:"chain"` // for example "operator", "rollout.r-7"
	Index uint64          `json:"index"` // in its chain, 1 is the first
	Kind  string          `json:"kind"`
	Actor string          `json:"actor"`
	At    time.Time       `json:"at"`
	Body  json.RawMessage `json:"body,omitempty"`
	Blob  string          `json:"blob,omitempty"` // SHA-256 of a body that is kept apart, hex
	Prev  string          `json:"prev,omitempty"` // hash of the record before it in the chain, hex
	Hash  string          `json:"hash"`           // hex
}

// LedgerQuery selects ledger records, newest first.
type LedgerQuery struct {
	Paging

	Chain string `json:"chain,omitempty" query:"chain"`
	Kind  string `json:"kind,omitempty" query:"kind"`
}

// EnrolTokenCreate asks for a token that lets devices enrol.
type EnrolTokenCreate struct {
	Device    string            `json:"device,omitempty"` // fixes the id; otherwise the device proposes one
	Labels    map[string]string `json:"labels,omitempty"`
	TTL       release.Duration  `json:"ttl,omitempty"`        // 0: 24 h
	Uses      int               `json:"uses,omitempty"`       // 0: 1
	Replace   bool              `json:"replace,omitempty"`    // may take over the id of an existing device
	DeviceAPI string            `json:"device_api,omitempty"` // URL put into the token instead of the server's
	MQTT      []string          `json:"mqtt,omitempty"`       // URLs put into the token instead of the server's
	Reason    string            `json:"reason,omitempty"`
}

// EnrolToken is one enrolment token without its secret.
type EnrolToken struct {
	ID        string            `json:"id"`
	Device    string            `json:"device,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Uses      int               `json:"uses"` // left
	Used      []string          `json:"used,omitempty"`
	Replace   bool              `json:"replace,omitempty"`
	Created   time.Time         `json:"created,omitzero"`
	CreatedBy string            `json:"created_by,omitempty"`
	Expires   time.Time         `json:"expires,omitzero"`
	Revoked   bool              `json:"revoked,omitempty"`
	DeviceAPI string            `json:"device_api,omitempty"`
	MQTT      []string          `json:"mqtt,omitempty"`
}

// EnrolSecret is what the token's text is assembled from, given once. The
// client adds the SHA-256 of its own root.json: the root of trust must not
// come from the server.
type EnrolSecret struct {
	EnrolToken

	Secret   string `json:"secret"`    //
	CASHA256 string `json:"ca_sha256"` // of the device CA's certificate, hex
}

// TokenCreate asks for an operator token.
type TokenCreate struct {
	Name string           `json:"name"`
	Role Role             `json:"role"`
	TTL  release.Duration `json:"ttl,omitempty"` // 0: does not expire
}

// Token is an operator token without its secret.
type Token struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Role     Role      `json:"role"`
	Created  time.Time `json:"created,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	LastUsed time.Time `json:"last_used,omitzero"`
	Revoked  bool      `json:"revoked,omitempty"`
}

// TokenSecret is a new operator token, given once.
type TokenSecret struct {
	Token

	Secret string `json:"secret"`
}

// Settings are what the control plane asks of all devices. They can only
// tighten what signed manifests state. Zero fields are the defaults.
type Settings struct {
	Window   release.Duration `json:"window,omitempty"`   // length of a window
	Report   release.Duration `json:"report,omitempty"`   // longest time between two reports
	Snapshot release.Duration `json:"snapshot,omitempty"` // how often the open window is written down
	// SamplingOff and SampleRows narrow what signed manifests allow to be sampled.
	SamplingOff bool   `json:"sampling_off,omitempty"` // no row leaves a device
	SampleRows  int    `json:"sample_rows,omitempty"`  // at most so many rows of a window, 0 for what manifests allow
	Reason      string `json:"reason,omitempty"`       // of the change, in requests
}

// ServerInfo is what the control plane is.
type ServerInfo struct {
	Version   string    `json:"version"`
	Protocol  uint32    `json:"protocol"`
	Started   time.Time `json:"started"`
	Now       time.Time `json:"now"`
	API       string    `json:"api"`        // URL of this API
	DeviceAPI string    `json:"device_api"` // URL devices enrol at
	MQTT      []string  `json:"mqtt"`       // URLs devices connect to
	CASHA256  string    `json:"ca_sha256"`  // of the device CA's certificate, hex
	Principal Principal `json:"principal"`  // who asks
	Trust     Trust     `json:"trust"`
	Storage   Storage   `json:"storage"`
	CohortBy  string    `json:"cohort_by"` // label that devices of one cohort share
}

// Storage is how full the server is.
type Storage struct {
	Records       uint64 `json:"records"`         // accepted and held in the uplink stream
	RecordBytes   uint64 `json:"record_bytes"`    // of that stream
	RecordLimit   uint64 `json:"record_limit"`    // bytes; when reached and a reader is behind, nothing more is taken
	HourBytes     uint64 `json:"hour_bytes"`      // of hours, kept for 90 days
	DayBytes      uint64 `json:"day_bytes"`       // of days, kept for two years
	BlobBytes     uint64 `json:"blob_bytes"`      // of model files
	DiskFreeBytes uint64 `json:"disk_free_bytes"` // where the data directory is
}

// Overview is the fleet at a glance.
type Overview struct {
	Devices  int              `json:"devices"`
	Online   int              `json:"online"`
	Offline  int              `json:"offline"`
	Unknown  int              `json:"unknown"` // presence not known
	Marked   int              `json:"marked"`  // with at least one mark
	Sites    []SiteOverview   `json:"sites"`
	Models   []Model          `json:"models"`
	Rollouts []RolloutSummary `json:"rollouts"` // that have not ended
	Alarms   []Alarm          `json:"alarms"`   // open
	Rows     uint64           `json:"rows"`     // predictions counted, all time
	Labels   uint64           `json:"labels"`   //
	LostRows uint64           `json:"lost_rows"`
	AsOf     time.Time        `json:"as_of"`
}

// SiteOverview is one site of the fleet.
type SiteOverview struct {
	Site     string         `json:"site"`
	Devices  int            `json:"devices"`
	Online   int            `json:"online"`
	Versions map[string]int `json:"versions"` // devices by "model version" served
	Verdict  Verdict        `json:"verdict"`  // the worst of its models
	Accuracy *float64       `json:"accuracy,omitempty"`
}

// Event says that something changed; whoever cares reads it again. Changes of
// one subject are coalesced, so a slow reader gets fewer events, not older ones.
type Event struct {
	ID      uint64    `json:"id"`      // rises; the Last-Event-ID to continue from
	Kind    string    `json:"kind"`    // an Event… constant
	Subject string    `json:"subject"` // device id, rollout id, model name, alarm id; empty for all
	At      time.Time `json:"at"`
}

// Kinds of events.
const (
	EventDevice   = "device"
	EventRollout  = "rollout"
	EventDrift    = "drift"
	EventModel    = "model"
	EventAlarm    = "alarm"
	EventRetrain  = "retrain"
	EventIncident = "incident" // silences, and who is told, too
)
