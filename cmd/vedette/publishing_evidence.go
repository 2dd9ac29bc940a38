package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/constraints"
	"github.com/vedette-edge/vedette/protocol/mlmodel"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Tags about the evidence for the gates of a registered version that became a release.
const (
	tagEvidence        = "vedette.evidence"         // evidenceWanted, or the digest of the rows when it was brought
	tagEvidenceProblem = "vedette.evidence.problem" // why it could not be
	evidenceWanted     = "wanted"
)

// handed says where the files of the handover lie that gates are judged on: by
// name, the artifact URI. Of two places the model's own counts.
func (r *releaser) handed(ctx context.Context, v *client.Registered) (map[string]string, error) {
	places, err := r.places(ctx, v)
	if err != nil {
		return nil, err
	}
	at := map[string]string{}
	for _, uri := range places {
		files, err := r.api.LoggedFiles(ctx, uri, mlmodel.HandoverFolder)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			known := slices.Contains(mlmodel.EvidenceFiles, f.Path) || slices.Contains(mlmodel.HandoverFiles, f.Path)
			if known && !f.Dir && at[f.Path] == "" {
				at[f.Path] = uri
			}
		}
	}
	return at, nil
}

// hasRows says whether evaluation rows were handed over.
func hasRows(at map[string]string) bool { return at["evaluation.csv"]+at["evaluation.parquet"] != "" }

// bring brings the evidence for the gates of a release that is published. What
// goes wrong is told in the outcome, and with the version when it is its fault:
// the release stays.
func (r *releaser) bring(ctx context.Context, v *client.Registered, o outcome, at map[string]string) (outcome, error) {
	dir := r.folder(v)
	if !hasRows(at) {
		return o, os.RemoveAll(dir)
	}
	rows, said, err := r.prove(ctx, v, o.Name, at)
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	o.Evidence = strings.Join(said, ", ")
	if err != nil {
		text := strings.ReplaceAll(err.Error(), filepath.Join(dir, "evidence")+string(filepath.Separator), "")
		o.Problem = protocol.Brief("evidence for its gates: "+text, maxTag)
		if _, fault := errors.AsType[*problemError](err); !fault {
			return o, nil
		}
		mark, err := r.fingerprint(ctx, v)
		return o, errors.Join(err, r.tag(ctx, v, tagEvidenceProblem, o.Problem), r.tag(ctx, v, tagProblemOf, mark))
	}
	return o, errors.Join(
		r.tag(ctx, v, tagEvidence, rows.String()), r.tag(ctx, v, tagEvidenceProblem, ""), r.tag(ctx, v, tagProblemOf, ""), os.RemoveAll(dir))
}

// tag sets a tag that has another value yet.
func (r *releaser) tag(ctx context.Context, v *client.Registered, key, value string) error {
	if v.Tags[key] == value {
		return nil
	}
	return r.api.TagRegistered(ctx, v.Name, v.Version, key, value)
}

// exam is what versions are evaluated on.
type exam struct {
	*mlmodel.Handover

	rows    release.Digest
	truth   string
	columns []string
}

// prove evaluates a version, and the one in production, on the rows of its
// handover, and holds rows against its constraints. What the server has of these
// very rows is not made again.
func (r *releaser) prove(ctx context.Context, v *client.Registered, name string, at map[string]string) (rows release.Digest, said []string, err error) {
	dir := r.folder(v)
	e, err := r.fetchExam(ctx, at, filepath.Join(dir, "evidence"))
	if err != nil {
		return rows, nil, err
	}
	has, err := r.api.Validation(ctx, v.Name, name)
	if err != nil {
		return e.rows, nil, err
	}
	if !holds(has, operator.EvidenceEvaluation, e.rows) {
		if err := r.sit(ctx, e, v.Name, name, filepath.Join(dir, "release")); err != nil {
			return e.rows, nil, err
		}
		said = append(said, "evaluated on "+filepath.Base(e.Evaluation))
	}
	if e.Constraints != "" && !holds(has, operator.EvidenceEvaluationData, e.rows) {
		if err := r.report(ctx, e, v.Name, name); err != nil {
			return e.rows, said, err
		}
		said = append(said, "rows held against "+mlmodel.ConstraintsFile)
	}
	champion := has.Champion
	if champion == "" || champion == name {
		return e.rows, said, nil
	}
	if has, err = r.api.Validation(ctx, v.Name, champion); err != nil || holds(has, operator.EvidenceEvaluation, e.rows) {
		return e.rows, said, err
	}
	if err := r.sit(ctx, e, v.Name, champion, filepath.Join(dir, "champion-"+has.Release.Short())); err != nil {
		return e.rows, said, fmt.Errorf("version %s, in production: %w", champion, err)
	}
	return e.rows, append(said, "as was version "+champion+", in production"), nil
}

// holds says whether the server has evidence of a kind on these rows.
func holds(v *operator.Validation, kind string, rows release.Digest) bool {
	return slices.ContainsFunc(v.Evidence, func(e operator.EvidenceHeld) bool { return e.Kind == kind && e.Rows == rows })
}

// fetchExam downloads what versions are to be evaluated on.
func (r *releaser) fetchExam(ctx context.Context, at map[string]string, dir string) (*exam, error) {
	wanted := append([]string{mlmodel.SettingsFile}, mlmodel.EvidenceFiles...)
	if at[mlmodel.ConstraintsFile] != "" {
		wanted = append(wanted, "training.csv", "training.parquet")
	}
	for _, name := range wanted {
		if at[name] == "" {
			continue
		}
		if err := r.fetchFile(ctx, at[name], mlmodel.HandoverFolder+"/"+name, dir, maxRows); err != nil {
			return nil, err
		}
	}
	h, err := mlmodel.ReadHandover(dir)
	if err != nil {
		return nil, &problemError{err}
	}
	e := &exam{Handover: h}
	t, err := openRows(h.Evaluation)
	if err != nil {
		return nil, r.blame(err)
	}
	e.columns = slices.Clone(t.columns())
	t.close()
	if e.truth, err = h.Settings.TruthColumn(e.columns); err != nil {
		return nil, &problemError{err}
	}
	file, _, err := hashFile(h.Evaluation)
	e.rows = file.Digest
	return e, err
}

// sit evaluates one version and uploads what it showed.
func (r *releaser) sit(ctx context.Context, e *exam, model, version, folder string) error {
	if _, err := r.pull(ctx, model, version, folder); err != nil {
		return r.blame(err)
	}
	to := folder + ".evaluation.csv"
	call := []string{"evaluate", folder, "--rows", e.Evaluation, "--truth", e.truth, "--force", "--to", to}
	for _, column := range e.Settings.Protect {
		call = append(call, "--protect", column)
	}
	if err := r.runAgent(ctx, filepath.Dir(folder), call...); err != nil {
		return err
	}
	d, err := r.app.uploadFile(ctx, r.api, to)
	if err != nil {
		return err
	}
	_, err = r.api.AddEvidence(ctx, model, version, operator.EvidenceAdded{Evaluation: &d})
	return r.blame(err)
}

// report holds the evaluation rows, and the training rows where they were handed
// over, against the constraints. Whether violations matter, the gate decides.
func (r *releaser) report(ctx context.Context, e *exam, model, version string) error {
	var brought operator.EvidenceAdded
	var err error
	if brought.EvaluationData, err = e.check(e.Evaluation); err != nil {
		return r.blame(err)
	}
	if e.Training != "" {
		if brought.TrainingData, err = e.check(e.Training); err != nil {
			return r.blame(err)
		}
	}
	_, err = r.api.AddEvidence(ctx, model, version, brought)
	return r.blame(err)
}

// check holds a file of rows against the constraints. Columns that are no
// features are left out unless the constraints name them.
func (e *exam) check(rows string) (json.RawMessage, error) {
	raw, err := readFile(e.Constraints, constraints.MaxFile)
	if err != nil {
		return nil, err
	}
	c, err := constraints.Decode(raw)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "%s: %w", mlmodel.ConstraintsFile, err)
	}
	s := &e.Settings
	ignore := slices.DeleteFunc(slices.Concat([]string{e.truth, s.Condition, "condition"}, s.Protect, s.Ignore), func(name string) bool {
		return slices.ContainsFunc(c.Features, func(f constraints.Feature) bool { return f.Name == name })
	})
	report, err := checkRows(rows, e.Constraints, ignore)
	if err != nil {
		return nil, err
	}
	return json.Marshal(report)
}
