package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"time"

	"filippo.io/age"
	"github.com/spf13/pflag"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// samplingFlags say which rows of a version may leave a device for labelling.
type samplingFlags struct {
	file    string
	to      string
	rows    int
	rate    float64
	strata  string
	expires time.Duration
}

func (f *samplingFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.file, "sampling", "", `sampling: JSON file with recipient, rows, rate, strata, expires ("vedette sample spec")`)
	fs.StringVar(&f.to, "sample-to", "", `sampling: age public key (age1…) that rows are encrypted to; without it no row leaves a device`)
	fs.IntVar(&f.rows, "sample-rows", release.DefaultSampleRows, "sampling: at most so many rows a window leave a device")
	fs.Float64Var(&f.rate, "sample-rate", release.DefaultSampleRate, "sampling: part of all rows that is drawn")
	fs.StringVar(&f.strata, "sample-strata", "", "sampling: none, class, confidence or condition (default: class where the schema has classes)")
	fs.DurationVar(&f.expires, "sample-expires", release.DefaultSampleExpiry, "sampling: how long a sample is kept")
}

// plan is the sampling plan that the flags ask for, nil for none.
func (f *samplingFlags) plan(s *release.Schema) (*release.Sampling, error) {
	switch {
	case f.file != "" && f.to != "":
		return nil, usagef("give either --sampling or --sample-to")
	case f.file != "":
		return readSampling(f.file, s)
	case f.to == "":
		return nil, nil
	}
	return &release.Sampling{
		Recipient: f.to, Rows: f.rows, Rate: f.rate, Strata: cmp.Or(f.strata, usualStrata(s)), Expires: release.Duration(f.expires),
	}, nil
}

// check finds what is wrong with the flags whatever the version, so that no version
// is blamed for it.
func (f *samplingFlags) check() error {
	p, err := f.plan(&release.Schema{})
	if err != nil || p == nil {
		return err
	}
	if _, err := age.ParseX25519Recipient(p.Recipient); err != nil {
		return operator.Errorf(operator.Invalid, "sampling: recipient is no age X25519 public key: %w", err).WithHint(`"vedette key sample-init" makes one`)
	}
	return nil
}

// usualStrata tells rows apart by class where the model has classes.
func usualStrata(s *release.Schema) string {
	if len(s.Classes) > 0 && (s.Label != "" || s.Scores != "") {
		return release.StrataClass
	}
	return release.StrataNone
}

// readSampling reads a plan. What the file leaves out has its default.
func readSampling(path string, s *release.Schema) (*release.Sampling, error) {
	b, err := readFile(path, maxSmallFile)
	if err != nil {
		return nil, err
	}
	p := &release.Sampling{
		Rows: release.DefaultSampleRows, Rate: release.DefaultSampleRate, Strata: usualStrata(s),
		Expires: release.Duration(release.DefaultSampleExpiry),
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(p); err != nil {
		return nil, operator.Errorf(operator.Invalid, "%s: %w", path, err).WithHint(`"vedette sample spec" prints an example that explains each field`)
	}
	return p, nil
}
