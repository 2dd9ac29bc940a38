package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/mlmodel"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// tagProblemOf holds the fingerprint of the version when it failed.
const tagProblemOf = operator.TagProblem + ".of"

// Limits of what is downloaded, bytes.
const (
	maxGraph = 2 << 30 // what a protobuf may have
	maxRows  = 4 << 30
	maxTag   = 2000 // of a problem
)

// problemError is a fault of the version itself: whoever trained it has to do
// something, trying again does not help.
type problemError struct{ error }

func (e *problemError) Unwrap() error { return e.error }

func problemf(format string, args ...any) error { return &problemError{fmt.Errorf(format, args...)} }

func newOutcome(v *client.Registered, what string) outcome {
	return outcome{Time: time.Now().UTC().Truncate(time.Second), Model: v.Name, Version: v.Version, Outcome: what, Retrain: v.Tags[operator.TagRetrain]}
}

// waiting lists the versions that are tagged for publication and are no release
// yet, or lack the evidence for their gates, by model and version.
func (r *releaser) waiting(ctx context.Context) ([]client.Registered, error) {
	var list []client.Registered
	for _, filter := range []string{"tags.`" + operator.TagPublish + "` = 'true'", "tags.`" + operator.TagRetrain + "` LIKE '%'"} {
		found, err := r.api.SearchRegistered(ctx, filter)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	list = slices.DeleteFunc(list, func(v client.Registered) bool {
		return v.Tags[operator.TagRelease] != "" && v.Tags[tagEvidence] != evidenceWanted || v.Tags[operator.TagRetrain] == "" && v.Tags[operator.TagPublish] != "true" ||
			len(r.models) > 0 && !slices.Contains(r.models, v.Name)
	})
	slices.SortFunc(list, func(a, b client.Registered) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(numberOf(a.Version), numberOf(b.Version)))
	})
	return slices.CompactFunc(list, func(a, b client.Registered) bool { return a.Name == b.Name && a.Version == b.Version }), nil
}

func numberOf(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// attempt is release for a watcher: a version that failed and did not change
// since is left alone, and gives no outcome.
func (r *releaser) attempt(ctx context.Context, v *client.Registered) (outcome, error) {
	if v.Tags[operator.TagProblem]+v.Tags[tagEvidenceProblem] == "" {
		return r.release(ctx, v)
	}
	mark, err := r.fingerprint(ctx, v)
	if err != nil || mark == v.Tags[tagProblemOf] {
		return outcome{}, err
	}
	return r.release(ctx, v)
}

// fingerprint changes when anything does that could make a version publishable:
// its tags, its files, those of its run.
func (r *releaser) fingerprint(ctx context.Context, v *client.Registered) (string, error) {
	h := sha256.New()
	tags := maps.Clone(v.Tags)
	for _, key := range []string{operator.TagRelease, operator.TagProblem, tagProblemOf, tagEvidence, tagEvidenceProblem} {
		delete(tags, key)
	}
	fmt.Fprintln(h, v.Source, v.Run, v.ModelID)
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		fmt.Fprintf(h, "%q=%q\n", key, tags[key])
	}
	places, err := r.places(ctx, v)
	if err != nil && operator.CodeOf(err) != operator.NotFound && !errors.Is(err, client.ErrElsewhere) {
		return "", err
	}
	for _, p := range places {
		for _, below := range []string{"", mlmodel.HandoverFolder} {
			files, err := r.api.LoggedFiles(ctx, p, below)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(h, "%q %q %v\n", p, below, files)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// places are where files of a version may lie: with the model, and with its run.
func (r *releaser) places(ctx context.Context, v *client.Registered) ([]string, error) {
	model, err := r.api.ArtifactURI(ctx, v.Name, v.Version)
	if err != nil {
		return nil, err
	}
	if v.Run == "" {
		return []string{model}, nil
	}
	run, err := r.api.MLflowRun(ctx, v.Run)
	if err != nil {
		return []string{model}, err
	}
	return []string{model, run.Info.ArtifactURI}, nil
}

// release makes a release of a registered version, brings the evidence for its
// gates and tells the version. A fault of the version is told there too, and is an
// outcome; any other is an error.
func (r *releaser) release(ctx context.Context, v *client.Registered) (outcome, error) {
	o, at, err := r.make(ctx, v)
	if err == nil {
		return r.bring(ctx, v, o, at)
	}
	fault, isFault := errors.AsType[*problemError](err)
	if !isFault {
		return o, err
	}
	o = newOutcome(v, outcomeProblem)
	o.Problem = protocol.Brief(fault.Error(), maxTag)
	mark, err := r.fingerprint(ctx, v)
	if err != nil {
		return o, err
	}
	return o, errors.Join(
		r.api.TagRegistered(ctx, v.Name, v.Version, operator.TagProblem, o.Problem),
		r.api.TagRegistered(ctx, v.Name, v.Version, tagProblemOf, mark),
	)
}

// make makes the release, and says where the files lie that its gates are judged on.
func (r *releaser) make(ctx context.Context, v *client.Registered) (outcome, map[string]string, error) {
	if err := protocol.CheckName(v.Name); err != nil {
		return outcome{}, nil, problemf("the model cannot be released: %w", err)
	}
	if numberOf(v.Version) < 1 { // it names folders here
		return outcome{}, nil, operator.Errorf(operator.Invalid, "the server names a version %q of %s: versions are numbers", protocol.Brief(v.Version, 80), v.Name)
	}
	name, done, err := r.nameFor(ctx, v)
	if err != nil {
		return outcome{}, nil, err
	}
	o := newOutcome(v, outcomeAlready)
	o.Name = name
	if done == nil {
		o.Outcome = outcomePublished
		m, err := r.build(ctx, v, name)
		if err != nil {
			return outcome{}, nil, err
		}
		d, err := m.Digest()
		if err != nil {
			return outcome{}, nil, err
		}
		done = &d
	}
	o.Release = done.String()
	at, err := r.handed(ctx, v)
	if err != nil {
		return o, nil, err
	}
	return o, at, r.attach(ctx, v, o.Release, hasRows(at))
}

// attach tells the registered version which release it became. That evidence is
// wanted it learns before: a run that is stopped between leaves word of it.
func (r *releaser) attach(ctx context.Context, v *client.Registered, d string, evidence bool) error {
	if evidence && v.Tags[tagEvidence] == "" {
		if err := r.api.TagRegistered(ctx, v.Name, v.Version, tagEvidence, evidenceWanted); err != nil {
			return err
		}
	}
	if v.Tags[operator.TagRelease] == d {
		return nil
	}
	if err := r.api.TagRegistered(ctx, v.Name, v.Version, operator.TagRelease, d); err != nil {
		return err
	}
	for _, key := range []string{operator.TagProblem, tagProblemOf} {
		if v.Tags[key] == "" {
			continue
		}
		if err := r.api.TagRegistered(ctx, v.Name, v.Version, key, ""); err != nil {
			return err
		}
	}
	return nil
}

func sourceOf(v *client.Registered) string { return "models:/" + v.Name + "/" + v.Version }

// nameFor is the name of the release: the tag's, else the version's number, else
// "mlflow-NUMBER" where that number is another release's. When a release of that
// name was made from this very version, done is its digest: a run before this one
// was stopped between publishing and tagging.
func (r *releaser) nameFor(ctx context.Context, v *client.Registered) (name string, done *release.Digest, err error) {
	if v.Tags[tagEvidence] == evidenceWanted && v.Tags[operator.TagRelease] != "" {
		has, err := r.api.Version(ctx, v.Name, v.Tags[operator.TagRelease])
		if err != nil {
			return "", nil, err
		}
		return has.Version.Version, &has.Release, nil
	}
	names := []string{v.Version, "mlflow-" + v.Version}
	if tag := v.Tags[operator.TagVersion]; tag != "" {
		if err := protocol.CheckName(tag); err != nil {
			return "", nil, problemf("tag %s: %w", operator.TagVersion, err)
		}
		names = []string{tag}
	}
	withdrawn := false
	for _, name := range names {
		has, err := r.api.Version(ctx, v.Name, name)
		if operator.CodeOf(err) == operator.NotFound {
			return name, nil, nil
		}
		if err != nil {
			return "", nil, err
		}
		if has.Manifest != nil && has.Manifest.Lineage.Source == sourceOf(v) {
			if !has.Withdrawn {
				return name, &has.Release, nil
			}
			withdrawn = true
		}
	}
	if withdrawn {
		return "", nil, problemf("release %s of %s was made of this version and withdrawn since: set the tag %s to another name to publish it again", names[len(names)-1], v.Name, operator.TagVersion)
	}
	return "", nil, problemf("release %s of %s exists already and was made of something else: set the tag %s to another name", names[len(names)-1], v.Name, operator.TagVersion)
}

// build downloads, profiles, packs, signs and publishes.
func (r *releaser) build(ctx context.Context, v *client.Registered, name string) (*release.Manifest, error) {
	if err := r.maySign(ctx, v.Name); err != nil {
		return nil, err
	}
	dir := r.folder(v)
	logged, packed := filepath.Join(dir, "logged"), filepath.Join(dir, "release")
	if err := os.RemoveAll(packed); err != nil {
		return nil, fileError(err)
	}
	if err := os.MkdirAll(packed, 0o700); err != nil {
		return nil, fileError(err)
	}
	graph, err := r.fetch(ctx, v, logged)
	if err != nil {
		return nil, err
	}
	if err := r.profile(ctx, logged, packed); err != nil {
		return nil, err
	}
	flags, err := r.flags(ctx, v, name)
	if err != nil {
		return nil, err
	}
	flags.graphs = []string{filepath.Join(logged, filepath.FromSlash(graph))}
	m, err := r.push(ctx, packed, flags)
	if err != nil {
		return nil, r.blame(err)
	}
	return m, os.RemoveAll(logged)
}

// folder is where files of a registered version lie while it is worked on.
func (r *releaser) folder(v *client.Registered) string {
	return filepath.Join(r.work, v.Name, v.Version)
}

// maySign refuses early, and for the whole command, when publishing cannot work.
func (r *releaser) maySign(ctx context.Context, model string) error {
	l, err := r.listing(ctx, model)
	if err != nil {
		return err
	}
	role, err := r.mayOnlyDelegate(l)
	if err != nil || role {
		return err
	}
	signed, err := r.sign(l.targets) // a trial: nothing of it is kept
	if err != nil {
		return err
	}
	if bytes.Equal(signed, l.targets) && r.key != nil {
		return operator.Errorf(operator.Forbidden, "key %s may not sign releases of %s", shortID(r.key.Public()), model).
			WithHint("a publisher allows it: vedette key delegate %s --key %s --reason …", model, r.key.Public())
	}
	return nil
}

// blame tells faults of the version from those of server, keys and network.
func (r *releaser) blame(err error) error {
	switch operator.CodeOf(err) { //nolint:exhaustive // all others are not the version's
	case operator.Invalid, operator.Conflict:
		return &problemError{err}
	}
	return err
}

// fetch downloads what is needed of a version, and nothing else: the files that
// its MLmodel names, and the handover. It returns the graph's path in dir.
func (r *releaser) fetch(ctx context.Context, v *client.Registered, dir string) (graph string, err error) {
	places, err := r.places(ctx, v)
	if err != nil {
		return "", err
	}
	m, err := r.fetchModel(ctx, places[0], dir)
	if errors.Is(err, client.ErrElsewhere) {
		return "", problemf("%w: log the model to this server (%s)", err, r.api.Address())
	}
	if err != nil {
		return "", err
	}
	return m.Graph, r.fetchHandover(ctx, places, dir)
}

func (r *releaser) fetchModel(ctx context.Context, uri, dir string) (*mlmodel.Model, error) {
	files, err := r.api.LoggedFiles(ctx, uri, "")
	if err != nil {
		return nil, err
	}
	has := func(name string) bool {
		return slices.ContainsFunc(files, func(f client.Logged) bool { return f.Path == name && !f.Dir })
	}
	if has(mlmodel.FileName) {
		if err := r.fetchFile(ctx, uri, mlmodel.FileName, dir, mlmodel.MaxSize); err != nil {
			return nil, err
		}
	} else {
		files = slices.DeleteFunc(files, func(f client.Logged) bool { return path.Ext(f.Path) != ".onnx" })
		if len(files) != 1 {
			return nil, problemf("%w", mlmodel.ErrNotONNX)
		}
		return &mlmodel.Model{Graph: files[0].Path}, r.fetchFile(ctx, uri, files[0].Path, dir, maxGraph)
	}
	m, err := mlmodel.Read(os.DirFS(dir))
	if err != nil {
		return nil, &problemError{err}
	}
	if m.Example != nil && has(m.Example.Path) {
		if err := r.fetchFile(ctx, uri, m.Example.Path, dir, mlmodel.MaxExample); err != nil {
			return nil, err
		}
	}
	return m, r.fetchFile(ctx, uri, m.Graph, dir, maxGraph)
}

// fetchHandover downloads what the training script left for the fleet: beside
// the model, or in its run.
func (r *releaser) fetchHandover(ctx context.Context, places []string, dir string) error {
	for _, uri := range places {
		files, err := r.api.LoggedFiles(ctx, uri, mlmodel.HandoverFolder)
		if err != nil {
			return err
		}
		found := false
		for _, f := range files {
			if f.Dir || !slices.Contains(mlmodel.HandoverFiles, f.Path) {
				continue
			}
			found = true
			if err := r.fetchFile(ctx, uri, mlmodel.HandoverFolder+"/"+f.Path, dir, maxRows); err != nil {
				return err
			}
		}
		if found {
			return nil
		}
	}
	return problemf("%w\n%s", mlmodel.ErrHandover, mlmodel.HowToLog)
}

func (r *releaser) fetchFile(ctx context.Context, uri, below, dir string, limit int64) error {
	if !filepath.IsLocal(filepath.FromSlash(below)) { // a server may list anything
		return problemf("%.80q is %w", below, mlmodel.ErrPath)
	}
	to := filepath.Join(dir, filepath.FromSlash(below))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fileError(err)
	}
	_, err := r.api.Download(ctx, uri, below, to, limit)
	switch operator.CodeOf(err) { //nolint:exhaustive // all others are not the version's
	case operator.NotFound, operator.TooLarge:
		return &problemError{err}
	}
	return err
}

// profile runs the agent over what was logged.
func (r *releaser) profile(ctx context.Context, logged, packed string) error {
	return r.runAgent(ctx, logged, "profile", "--mlmodel", logged, "--to", packed)
}

// runAgent runs the agent over files in a folder. Its refusal is the version's
// fault, and its text is for whoever trained it, who knows no such folder.
func (r *releaser) runAgent(ctx context.Context, folder string, args ...string) error {
	cmd := exec.CommandContext(ctx, r.agent, args...) //nolint:gosec // the publisher's own program
	cmd.WaitDelay = 10 * time.Second
	said := &tail{limit: 8 << 10}
	cmd.Stdout, cmd.Stderr = io.Discard, said
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, refused := errors.AsType[*exec.ExitError](err); refused {
		return problemf("%s", strings.TrimSpace(strings.ReplaceAll(said.String(), folder, "the model's folder")))
	}
	if err != nil {
		return operator.Errorf(operator.Invalid, "run %s: %w", r.agent, err)
	}
	return nil
}

// tail keeps the beginning of what a program says.
type tail struct {
	bytes.Buffer

	limit int
}

func (t *tail) Write(b []byte) (int, error) {
	t.Buffer.Write(b[:min(len(b), max(0, t.limit-t.Len()))])
	return len(b), nil
}

// flags are the lineage and limits of the release.
func (r *releaser) flags(ctx context.Context, v *client.Registered, name string) (versionFlags, error) {
	f := r.limits
	f.model, f.version, f.precision, f.source, f.run = v.Name, name, "fp32", sourceOf(v), v.Run
	f.author = v.User
	m, err := r.api.Model(ctx, v.Name)
	if err != nil && operator.CodeOf(err) != operator.NotFound {
		return f, err
	}
	if m != nil {
		f.parent = parentIn(m)
	}
	if v.Run == "" {
		return f, nil
	}
	run, err := r.api.MLflowRun(ctx, v.Run)
	if err != nil {
		return f, err
	}
	f.author = firstOf(run.Data.Tags["mlflow.user"], run.Info.User, f.author)
	f.commit = run.Data.Tags["mlflow.source.git.commit"]
	f.data = dataVersion(run)
	f.metrics = metricsOf(run)
	return f, nil
}

// parentIn is the release in production, which the new one is to replace.
func parentIn(m *operator.ModelDetail) string {
	i := slices.IndexFunc(m.List, func(v operator.Version) bool { return v.Version == m.Production && !v.Withdrawn })
	if i < 0 {
		return ""
	}
	return m.List[i].Release.String()
}

// dataVersion is what the run says about its data: its own words, or else the
// datasets that it logged.
func dataVersion(run *client.MLflowRun) string {
	for _, key := range []string{"data_version", "data.version", "data_hash"} {
		if text := firstOf(run.Data.Tags[key], run.Data.Params[key]); text != "" {
			return protocol.Brief(text, 200)
		}
	}
	var names []string
	for _, in := range run.Inputs.Datasets {
		names = append(names, in.Dataset.Name+"@"+in.Dataset.Digest)
	}
	return protocol.Brief(strings.Join(names, " "), 200)
}

// maxMetrics bounds how many metrics a manifest carries; the run has them all.
const maxMetrics = 64

func metricsOf(run *client.MLflowRun) map[string]string {
	metrics := map[string]string{}
	for _, m := range run.Data.Metrics {
		plain := !strings.ContainsFunc(m.Key, func(r rune) bool { return r > unicode.MaxASCII })
		if plain && m.Value != nil && !math.IsInf(*m.Value, 0) && !math.IsNaN(*m.Value) && len(metrics) < maxMetrics {
			metrics[m.Key] = strconv.FormatFloat(*m.Value, 'g', -1, 64)
		}
	}
	return metrics
}
