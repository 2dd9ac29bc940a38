package release

import (
	"slices"
	"time"

	"filippo.io/age"
)

// Bounds and defaults of a sampling plan.
const (
	// MaxSampleRows bounds the rows of one window that leave a device.
	MaxSampleRows = 64
	// MaxSampleRow bounds the inputs and outputs of one row in bytes, so that a
	// record of samples holds at least one row: wider models cannot be sampled.
	MaxSampleRow = 40 << 10

	DefaultSampleRows   = 16
	DefaultSampleRate   = 0.01
	DefaultSampleExpiry = 30 * 24 * time.Hour

	minSampleExpiry = time.Hour
	maxSampleExpiry = 366 * 24 * time.Hour
)

// Strata: what tells the rows of a plan apart, so that rare ones are sampled too.
const (
	StrataNone       = "none"       // all rows are alike
	StrataClass      = "class"      // by the class that was predicted
	StrataConfidence = "confidence" // by the score of that class: below 0.5, 0.8, 0.95, or above
	StrataCondition  = "condition"  // by the inputs: missing, outside of the signed range, or ordinary
)

// Strata lists what Sampling.Strata may be.
func Strata() []string {
	return []string{StrataNone, StrataClass, StrataConfidence, StrataCondition}
}

// Sampling is the publisher's leave to send rows away for labelling. It is
// signed with the manifest: no setting can widen it.
type Sampling struct {
	// Recipient is an age X25519 public key ("age1…"). Rows are encrypted to it
	// on the device; only the holder of its identity reads them.
	Recipient string `json:"recipient"`
	// Rows leave the device at most in one window, all strata together: 1 to MaxSampleRows.
	Rows int `json:"rows"`
	// Rate is the part of all rows that is drawn, above 0 and at most 1.
	Rate float64 `json:"rate"`
	// Strata is one of Strata().
	Strata string `json:"strata"`
	// Expires is how long after its window a sample is deleted everywhere but
	// at the publisher's: an hour to a year.
	Expires Duration `json:"expires"`
}

// check says what may not be in a plan for rows of a schema. A nil plan is fine.
func (p *Sampling) check(s *Schema) error {
	const at = "sampling"
	if p == nil {
		return nil
	}
	if _, err := age.ParseX25519Recipient(p.Recipient); err != nil {
		return invalid(at, "recipient is no age X25519 public key (age1…): %w", err)
	}
	switch expires := time.Duration(p.Expires); {
	case p.Rows < 1 || p.Rows > MaxSampleRows:
		return invalid(at, "rows are %d a window, must be 1 to %d", p.Rows, MaxSampleRows)
	case !(p.Rate > 0 && p.Rate <= 1):
		return invalid(at, "rate is %g, must be above 0 and at most 1", p.Rate)
	case !slices.Contains(Strata(), p.Strata):
		return invalid(at, "strata are %q, must be one of %v", p.Strata, Strata())
	case p.Strata == StrataConfidence && s.Scores == "", p.Strata == StrataClass && s.Scores == "" && s.Label == "":
		return invalid(at, "strata are %q, but the schema names no output that tells it", p.Strata)
	case expires < minSampleExpiry || expires > maxSampleExpiry:
		return invalid(at, "expires after %v, must be %v to %v", expires, minSampleExpiry, maxSampleExpiry)
	}
	if n := s.rowBytes(); n > MaxSampleRow {
		return invalid(at, "a row has %d bytes, at most %d can be sampled: sample such inputs where they are stored", n, MaxSampleRow)
	}
	return nil
}

// rowBytes is the size of one row's tensors, as far as the schema fixes it.
func (s *Schema) rowBytes() int64 {
	var n int64
	for _, t := range slices.Concat(s.Inputs, s.Outputs) {
		if values, fixed := t.RowSize(); fixed {
			n += min(values, MaxFile) * datatypeSize(t.Datatype)
		}
	}
	return n
}

// datatypeSize is the bytes of one element; text has at least one.
func datatypeSize(datatype string) int64 {
	switch datatype {
	case "FP64", "INT64", "UINT64":
		return 8
	case "FP32", "INT32", "UINT32":
		return 4
	case "FP16", "BF16", "INT16", "UINT16":
		return 2
	default:
		return 1
	}
}
