package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/vedette-edge/vedette/protocol/evaluation"
	"github.com/vedette-edge/vedette/protocol/release"
)

// scriptedEvaluate writes an evaluation of 300 rows. Version 1 is wrong in 30 of
// them, every other one in 3. With the file "refuse" in the current folder it
// refuses.
func scriptedEvaluate(args []string) error {
	var rows, truth, to string
	var protect []string
	var force bool
	fl := pflag.NewFlagSet("evaluate", pflag.ContinueOnError)
	fl.StringVar(&rows, "rows", "", "")
	fl.StringVar(&truth, "truth", "", "")
	fl.StringVar(&to, "to", "", "")
	fl.StringArrayVar(&protect, "protect", nil, "")
	fl.BoolVar(&force, "force", false, "")
	if err := fl.Parse(args); err != nil {
		return err
	}
	if _, err := os.Stat("refuse"); err == nil {
		return errors.New("row 7 cannot be scored")
	}
	m, err := readManifest(fl.Arg(1)) // of a folder that holds together
	if err != nil {
		return err
	}
	file, _, err := hashFile(rows)
	if err != nil {
		return err
	}
	d, err := m.Digest()
	if err != nil {
		return err
	}
	return os.WriteFile(to, evaluationOf(m, d, file.Digest, truth, protect), 0o600)
}

func evaluationOf(m *release.Manifest, d, rows release.Digest, truth string, protect []string) []byte {
	var b bytes.Buffer
	if err := evaluation.WriteHeader(&b, evaluation.Header{
		Format: evaluation.Format, Task: evaluation.Classification, Model: m.Model, Version: m.Version, Release: &d, Graph: m.Variants[0].Graph.Digest,
		Rows: rows, RowsName: "evaluation.csv", Truth: truth, Protect: protect, Classes: []string{"a", "b", "c"},
		Runtime: "onnxruntime 1.30.0", Golden: &evaluation.Golden{Rows: 1},
	}, []string{evaluation.PredictionColumn}); err != nil {
		panic(err) // a buffer does not fail
	}
	wrong := map[bool]int{true: 30, false: 3}[m.Version == "1"]
	for i := range 300 {
		said := i % 3
		if i < wrong {
			said = (said + 1) % 3
		}
		fmt.Fprintf(&b, "%d,%c%s,%c\n", i+1, 'a'+i%3, strings.Repeat(",x", len(protect)), 'a'+said)
	}
	return b.Bytes()
}
