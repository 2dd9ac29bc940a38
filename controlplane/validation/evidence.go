package validation

import (
	"time"

	"github.com/vedette-edge/vedette/protocol/constraints"
	"github.com/vedette-edge/vedette/protocol/evaluation"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Subject is the version that is judged.
type Subject struct {
	Model   string
	Version string
	Release release.Digest
}

// Evidence is everything that gates are judged on.
type Evidence struct {
	Candidate *Evaluated // newest evaluation; nil for none
	Champion  Rival
	// Profiles are those in use: how many devices outside the lab have each.
	Profiles map[string]int
	Trials   []operator.LabResult // of lab devices, of this release
	Training *Reported            // newest report on training rows; nil for none
	Checked  *Reported            // newest report on the candidate's evaluation rows; nil for none
}

// Evaluated is an evaluation with who brought it.
type Evaluated struct {
	Table *evaluation.Table
	Blob  release.Digest
	Actor string
	At    time.Time
}

// Rival is the version in production.
type Rival struct {
	Version string         // empty: none is in production
	Release release.Digest //
	// Evaluated is its evaluation on the candidate's rows; nil for none.
	Evaluated *Evaluated
}

// Reported is a data report with who brought it.
type Reported struct {
	Report *constraints.Report
	Actor  string
	At     time.Time
}
