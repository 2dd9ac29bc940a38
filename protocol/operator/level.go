package operator

import (
	"context"
	"time"
)

// LevelReader reads drift and quality by level: a device, a cohort, a site, a
// version, or the whole fleet of a model.
type LevelReader interface {
	DriftLevel(ctx context.Context, model string, q LevelQuery) (*DriftLevel, error)
	DriftGroup(ctx context.Context, model string, q GroupQuery) (*DriftGroupDetail, error)
}

// Levels, from the narrowest.
const (
	LevelDevice  = "device"
	LevelCohort  = "cohort"  // devices of one version that share the label that makes cohorts
	LevelSite    = "site"    // devices of one version with one label "site"
	LevelVersion = "version" // all devices of one version
	LevelFleet   = "fleet"   // all versions of a model, each against training of its own
)

// Levels are all of them, from the narrowest.
func Levels() []string {
	return []string{LevelDevice, LevelCohort, LevelSite, LevelVersion, LevelFleet}
}

// LevelQuery selects a level of one model.
type LevelQuery struct {
	By      string `json:"by,omitempty" query:"by"`           // a Level… constant, cohort if empty
	Version string `json:"version,omitempty" query:"version"` // only this one, by name or by the hex of its release digest
}

// GroupQuery selects one group of a level.
type GroupQuery struct {
	By      string `json:"by,omitempty" query:"by"`           // a Level… constant, cohort if empty
	Version string `json:"version,omitempty" query:"version"` // the newest that has the group if empty
	Name    string `json:"name,omitempty" query:"name"`       // as in DriftGroup; empty for devices without the label, and for the fleet
}

// DriftLevel is one level of a model, group by group.
type DriftLevel struct {
	Model     string       `json:"model"`
	By        string       `json:"by"`
	CohortBy  string       `json:"cohort_by"` // label that devices of one cohort share
	Threshold float64      `json:"threshold"` // PSI that counts when it is above the noise too
	Share     float64      `json:"share"`     // change of a share of missing or of new values that counts
	Groups    []DriftGroup `json:"groups"`    // by version, newest first, and name
	AsOf      time.Time    `json:"as_of"`
}

// DriftGroup is the devices of one group.
type DriftGroup struct {
	ReleaseRef

	Level       string      `json:"level"`
	Name        string      `json:"name"`       // of the device, cohort, site or version; empty for the fleet, and for devices without the label
	Verdict     Verdict     `json:"verdict"`    // apart: the group is as a whole, but not most of its devices
	Prediction  Verdict     `json:"prediction"` // on what the model answers, alone
	Text        string      `json:"text,omitempty"`
	Devices     int         `json:"devices"`
	Drifted     int         `json:"drifted"` // devices that are themselves apart from training
	Rows        uint64      `json:"rows"`
	From        time.Time   `json:"from,omitzero"`
	To          time.Time   `json:"to,omitzero"`
	MaxPSI      float64     `json:"max_psi"`
	Condition   string      `json:"condition,omitempty"` // of the training data that is nearest, where the baseline knows several
	Cells       []DriftCell `json:"cells"`
	Accuracy    Accuracy    `json:"accuracy"`
	Calibration Calibration `json:"calibration"`
}

// DriftGroupDetail is a group with the histograms behind its cells.
type DriftGroupDetail struct {
	DriftGroup

	Features []FeatureDrift `json:"features"` // those apart first, then the furthest from training
}

// FeatureDrift is one feature or output with its bins. The fleet has none: the
// bins of versions differ.
type FeatureDrift struct {
	DriftCell

	Bins []FeatureBin `json:"bins,omitempty"`
}

// FeatureBin is one bin that was scored. Missing and new values come last, where
// there are any.
type FeatureBin struct {
	Label  string  `json:"label"`
	Before float64 `json:"before"` // share of the training rows
	After  float64 `json:"after"`
}

// ShareChange is the part of rows that has no value, or one that training did
// not know.
type ShareChange struct {
	Before float64 `json:"before"` // in training
	After  float64 `json:"after"`
	P      float64 `json:"p"`     // of Fisher's exact test
	Apart  bool    `json:"apart"` // changed by more than matters, and not by chance
}

// Leanings of calibration.
const (
	LeaningCalibrated     = "calibrated"
	LeaningOverconfident  = "overconfident"  // right less often than it says
	LeaningUnderconfident = "underconfident" // right more often than it says
	LeaningInsufficient   = "insufficient"   // too few labels to say
)

// Calibration holds the confidence of predictions against their labels. Its
// intervals are for one look at a fixed span, unlike those of accuracy.
type Calibration struct {
	Labels     uint64           `json:"labels"`     // of predictions with a confidence
	Confidence float64          `json:"confidence"` // mean
	Accuracy   float64          `json:"accuracy"`   // of the same predictions
	ECE        float64          `json:"ece"`        // expected calibration error over ten bins
	Noise      float64          `json:"noise"`      // ECE that chance stays below in 95% of calibrated models
	Brier      float64          `json:"brier"`      // mean squared distance of the confidence from being right
	BrierLower float64          `json:"brier_lower"`
	BrierUpper float64          `json:"brier_upper"`
	Leaning    string           `json:"leaning"`        // a Leaning… constant
	Bins       []CalibrationBin `json:"bins,omitempty"` // those with labels
}

// CalibrationBin is one tenth of the confidence.
type CalibrationBin struct {
	From       float64 `json:"from"`
	To         float64 `json:"to"`
	Labels     uint64  `json:"labels"`
	Confidence float64 `json:"confidence"` // mean
	Accuracy   float64 `json:"accuracy"`
	Lower      float64 `json:"lower"` // 95% interval of accuracy
	Upper      float64 `json:"upper"`
}
