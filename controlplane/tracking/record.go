package tracking

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// record is one entry of the journal: what is as it says from then on. Runs
// change by what is added to them; of all else a record holds the whole new state.
type record struct {
	AtMS int64 `cbor:"at"`

	Experiment *Experiment `cbor:"experiment,omitempty"`
	Run        *Run        `cbor:"run,omitempty"` // a new one
	Change     *change     `cbor:"change,omitempty"`
	Purged     []string    `cbor:"purged,omitempty"` // runs that are gone for good

	Logged *LoggedModel `cbor:"logged,omitempty"` // without metrics: those come with the runs'

	Model    *model    `cbor:"model,omitempty"`
	Versions []version `cbor:"versions,omitempty"`
	Dropped  *dropped  `cbor:"dropped,omitempty"`
}

// change is what happens to a run.
type change struct {
	ID      string            `cbor:"id"`
	Metrics []Metric          `cbor:"metrics,omitempty"`
	Params  map[string]string `cbor:"params,omitempty"`
	Tags    map[string]string `cbor:"tags,omitempty"`
	Untag   string            `cbor:"untag,omitempty"`
	Status  RunStatus         `cbor:"status,omitempty"`
	EndedMS int64             `cbor:"ended,omitempty"`
	Name    string            `cbor:"name,omitempty"`
	Delete  *bool             `cbor:"delete,omitempty"` // false restores
	Data    []Dataset         `cbor:"data,omitempty"`
	Inputs  []ModelRef        `cbor:"inputs,omitempty"`
	Outputs []ModelRef        `cbor:"outputs,omitempty"`
}

// dropped is a registered model that is gone, or one version of it.
type dropped struct {
	Model   int64 `cbor:"model"`
	Version int   `cbor:"version,omitempty"` // 0: the model with all of them
}

// Subjects of the journal. Each run has one, so that its history can be read
// without that of others.
const (
	subjectRoot        = "tracking."
	subjectExperiments = subjectRoot + "experiments"
	subjectLogged      = subjectRoot + "logged"
	subjectModels      = subjectRoot + "models"
	subjectPurged      = subjectRoot + "purged"
	subjectRuns        = subjectRoot + "run."
)

// subject is where a record belongs.
func (r *record) subject() string {
	switch {
	case r.Experiment != nil:
		return subjectExperiments
	case r.Run != nil:
		return subjectRuns + r.Run.ID
	case r.Change != nil:
		return subjectRuns + r.Change.ID
	case r.Logged != nil:
		return subjectLogged
	case r.Purged != nil:
		return subjectPurged
	default:
		return subjectModels
	}
}

// maxRecord bounds one record in bytes.
const maxRecord = 1 << 20

// A stored record begins with a version and the sequence of the record before it
// in its subject, so that one that is lost is missed even where others were
// purged.
const (
	formatVersion = 1
	headerSize    = 1 + 8
)

var errFormat = errors.New("journal record is of an unknown format: it may be of a newer control plane")

// encode writes a record with room for what precedes it.
func encode(r *record) ([]byte, error) {
	body, err := cbor.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode journal record: %w", err)
	}
	if len(body) > maxRecord {
		return nil, refuse(Invalid, "what is logged at once has %d bytes, at most %d can be kept: log it in parts", len(body), maxRecord)
	}
	out := make([]byte, headerSize, headerSize+len(body))
	out[0] = formatVersion
	return append(out, body...), nil
}

// follow notes which sequence the record follows in its subject.
func follow(raw []byte, prev uint64) { binary.BigEndian.PutUint64(raw[1:headerSize], prev) }

// header reads what comes before the body.
func header(raw []byte) (body []byte, prev uint64, err error) {
	if len(raw) < headerSize || raw[0] != formatVersion {
		return nil, 0, errFormat
	}
	return raw[headerSize:], binary.BigEndian.Uint64(raw[1:headerSize]), nil
}

func decode(raw []byte) (r *record, prev uint64, err error) {
	body, prev, err := header(raw)
	if err != nil {
		return nil, 0, err
	}
	r = &record{}
	if err := cbor.Unmarshal(body, r); err != nil {
		return nil, 0, fmt.Errorf("decode journal record: %w", err)
	}
	return r, prev, nil
}
