package tracking

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// record is one change: what is as it says from then on. Runs change by what is
// added to them; of all else a record holds the whole new state.
type record struct {
	AtMS int64 `cbor:"at"`

	Experiment *Experiment `cbor:"experiment,omitempty"`
	Cascade    bool        `cbor:"cascade,omitempty"` // its runs are deleted or restored with it
	Run        *Run        `cbor:"run,omitempty"`     // a new one
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

// run is the id of the run whose history the record belongs to, "" for none.
func (r *record) run() string {
	if r.Change == nil || len(r.Change.Metrics) == 0 {
		return ""
	}
	return r.Change.ID
}

const (
	// maxRecord bounds one record in bytes, and maxGroupBytes the records that are
	// stored together before the last of them: together they stay below what the
	// broker takes in one message, 2 MiB.
	maxRecord     = 1 << 20
	maxGroupBytes = 900 << 10
	// maxGroup bounds the records of one message: their number has to fit into a
	// moment.
	maxGroup = 256
	// formatVersion begins each message of the journal.
	formatVersion = 1
)

var errFormat = errors.New("the journal of runs is of an unknown format: it may be of a newer control plane")

// moment is when a record came: the sequence of its message, then its place
// there.
type moment uint64

const momentBits = 10 // of the place: maxGroup fits

func momentOf(seq uint64, nth int) moment {
	return moment(seq<<momentBits | uint64(nth)) //nolint:gosec // small
}

func (m moment) seq() uint64 { return uint64(m) >> momentBits }

// encode writes a record for a message: the run whose history it belongs to,
// then the rest, each with its length before it. So a history can be read
// without decoding what belongs to others.
func encode(r *record) ([]byte, error) {
	body, err := cbor.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode journal record: %w", err)
	}
	if len(body) > maxRecord {
		return nil, refuse(Invalid, "what is logged at once has %d bytes, at most %d can be kept: log it in parts", len(body), maxRecord)
	}
	id := r.run()
	out := make([]byte, 0, len(id)+len(body)+2*binary.MaxVarintLen32)
	out = append(binary.AppendUvarint(out, uint64(len(id))), id...)
	return append(binary.AppendUvarint(out, uint64(len(body))), body...), nil
}

// decode calls fn for the records of a message; of one run's history alone, if an
// id is given. Nth is the place of a record in the message.
func decode(raw []byte, only string, fn func(nth int, r *record) error) error {
	if len(raw) == 0 || raw[0] != formatVersion {
		return errFormat
	}
	raw = raw[1:]
	for nth := 0; len(raw) > 0; nth++ {
		id, rest, ok := cut(raw)
		body, rest, ok2 := cut(rest)
		if !ok || !ok2 {
			return fmt.Errorf("record %d: %w", nth, errFormat)
		}
		raw = rest
		if only != "" && string(id) != only {
			continue
		}
		r := &record{}
		if err := cbor.Unmarshal(body, r); err != nil {
			return fmt.Errorf("decode record %d: %w", nth, err)
		}
		if err := fn(nth, r); err != nil {
			return err
		}
	}
	return nil
}

// cut takes what has its length before it.
func cut(raw []byte) (part, rest []byte, ok bool) {
	n, size := binary.Uvarint(raw)
	if size <= 0 || n > uint64(len(raw[size:])) {
		return nil, nil, false
	}
	raw = raw[size:]
	return raw[:n], raw[n:], true
}
