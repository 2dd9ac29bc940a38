package operator

import (
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Stage is where a version stands in its life.
type Stage string

// Stages of a version. At most one version of a model is in production.
const (
	StageNone       Stage = "none"
	StageStaging    Stage = "staging"
	StageProduction Stage = "production"
	StageArchived   Stage = "archived"
)

// Valid says whether s is a stage.
func (s Stage) Valid() bool {
	switch s {
	case StageNone, StageStaging, StageProduction, StageArchived:
		return true
	}
	return false
}

// Model is one row of the registry.
type Model struct {
	Name       string    `json:"name"`
	Versions   int       `json:"versions"`
	Latest     *Version  `json:"latest,omitempty"`     // highest sequence
	Production string    `json:"production,omitempty"` // version in that stage
	Floor      uint64    `json:"floor"`                // lowest sequence devices accept, signed
	Devices    int       `json:"devices"`              // that serve any version
	Alarms     int       `json:"alarms"`               // raised and not cleared
	Updated    time.Time `json:"updated,omitzero"`
}

// ModelDetail is a model with all its versions, highest sequence first.
type ModelDetail struct {
	Model

	List []Version `json:"list"`
}

// Version is one release of a model.
type Version struct {
	Model      string         `json:"model"`
	Version    string         `json:"version"`
	Release    release.Digest `json:"release"` // of the manifest
	Sequence   uint64         `json:"sequence"`
	Stage      Stage          `json:"stage"`
	Revision   string         `json:"revision"` // of the stage; give it back as If-Match
	Size       int64          `json:"size"`     // of all files, bytes
	Created    time.Time      `json:"created,omitzero"`
	Published  time.Time      `json:"published,omitzero"`
	BelowFloor bool           `json:"below_floor,omitempty"` // devices refuse it
	Withdrawn  bool           `json:"withdrawn,omitempty"`   // no longer among the signed targets
	Running    Running        `json:"running"`
	Author     string         `json:"author,omitempty"`
}

// Running counts the devices of one version.
type Running struct {
	Active  int            `json:"active"`            // serve it
	Desired int            `json:"desired"`           // are to serve it
	Failed  int            `json:"failed"`            // refused it, or went back from it
	Sites   map[string]int `json:"sites,omitempty"`   // active, by label "site"
	Devices []string       `json:"devices,omitempty"` // active, in details only
}

// VersionDetail is everything about one version.
type VersionDetail struct {
	Version

	Manifest  *release.Manifest `json:"manifest"`
	Signature Signature         `json:"signature"`
	Baseline  BaselineInfo      `json:"baseline"`
	StageLog  []StageChanged    `json:"stage_log,omitempty"` // newest first
}

// Signature says who signed the targets that name a release.
type Signature struct {
	Role           string    `json:"role"`      // "targets", or "model-NAME" for the model's delegated role
	Targets        int64     `json:"targets"`   // version of the signed metadata
	Threshold      int       `json:"threshold"` // signatures needed
	KeyIDs         []string  `json:"key_ids"`   // of valid signatures
	Expires        time.Time `json:"expires,omitzero"`
	Floor          uint64    `json:"floor"`           // of the model, signed with it
	MetadataDigest string    `json:"metadata_digest"` // SHA-256 of the targets file
}

// BaselineInfo summarises the baseline of a version.
type BaselineInfo struct {
	Rows    uint64   `json:"rows"` // training rows
	Streams []string `json:"streams"`
}

// StageChanged is one change of a version's stage.
type StageChanged struct {
	From   Stage     `json:"from"`
	To     Stage     `json:"to"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

// StageChange moves a version to a stage. Revision, when given, must be the
// version's; over HTTP it is the If-Match header.
type StageChange struct {
	Stage    Stage  `json:"stage"`
	Reason   string `json:"reason"`
	Revision string `json:"-"`
}

// Upload is how far the upload of a blob is.
type Upload struct {
	Digest   release.Digest `json:"digest"`
	Offset   int64          `json:"offset"` // bytes held; where the next chunk starts
	Complete bool           `json:"complete"`
}

// OnlineKey is a public key the control plane signs snapshot or timestamp
// metadata with. A root must name it before the server can publish.
type OnlineKey struct {
	Role string `json:"role"` // snapshot, timestamp
	ID   string `json:"id"`   // TUF key id, hex
	Key  string `json:"key"`  // "ed25519:" and 64 hex digits
}

// Trust is the state of the server's TUF repository.
type Trust struct {
	Installed  bool        `json:"installed"` // a root has been installed
	OnlineKeys []OnlineKey `json:"online_keys"`
	Root       TrustFile   `json:"root,omitzero"`
	Targets    TrustFile   `json:"targets,omitzero"`
	Snapshot   TrustFile   `json:"snapshot,omitzero"`
	Timestamp  TrustFile   `json:"timestamp,omitzero"`
}

// TrustFile is one metadata file of the repository.
type TrustFile struct {
	Version   int64     `json:"version"`
	Digest    string    `json:"digest,omitempty"` // SHA-256 of the file, hex
	Expires   time.Time `json:"expires,omitzero"`
	Threshold int       `json:"threshold,omitempty"`
	KeyIDs    []string  `json:"key_ids,omitempty"`
}

// RootUpload installs a root of trust, or the next one of the chain.
type RootUpload struct {
	Root []byte `json:"root"` // root.json, signed, byte for byte (base64 in JSON)
}

// TargetsUpload publishes the file of the targets or of a delegated role: the
// manifests it newly names must have been uploaded as blobs with all their files.
// Previous is the version of the file it was made from; another version in the
// server means Stale.
type TargetsUpload struct {
	Targets  []byte `json:"targets"` // targets.json or model-NAME.json, signed, byte for byte (base64 in JSON)
	Previous int64  `json:"previous"`
	Reason   string `json:"reason,omitempty"`
}

// Published is what a targets upload changed.
type Published struct {
	Role      string       `json:"role"`    // "targets", or "model-NAME"
	Targets   int64        `json:"targets"` // version of its file now
	Added     []ReleaseRef `json:"added"`
	Withdrawn []ReleaseRef `json:"withdrawn,omitempty"`
}
