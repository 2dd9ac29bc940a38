package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// publishFlags say what is published, and with what.
type publishFlags struct {
	watch, once bool
	models      []string
	key         string
	agent       string
	work        string
	every       time.Duration
	limits      versionFlags
}

func publishCommand(a *app) *cobra.Command {
	f := publishFlags{}
	cmd := &cobra.Command{
		Use: "publish [MODEL VERSION | --watch]", Short: "Make releases of versions that were registered with MLflow",
		Long: `Turns a registered version into a release: downloads its graph and what the
training script logged for the fleet, runs "vedette-agent profile" over it, packs,
signs, uploads and publishes it, and sets the version's tag vedette.release. Where
the script logged labelled rows it then brings the evidence for the model's gates:
it runs "vedette-agent evaluate" over them for the new version and for the one in
production, and holds them against the constraints. What happens then, the gates
and the model's promotion policy say.

It is made for CI: it signs with --key, a key that publishers let sign this one
model ("vedette key delegate MODEL --key ci.pub"), and a copy of root.json in the
folder of --keys. The server never holds the key. "vedette-agent" must be
installed beside it, since the graph is run as devices run it.

With --watch it publishes every version that carries the tag vedette.publish=true,
or vedette.retrain (the answer to a request for retraining), and no vedette.release.
A version that cannot be published gets the tag vedette.problem, which says why;
it is tried again when it changed, and keeps no other waiting. So is evidence that
could not be brought, with the tags vedette.evidence=wanted and
vedette.evidence.problem; the release stays. What was done is
seen from the tags and from the releases themselves, so it may be stopped and
started at any time. With --once it makes one round and exits with 1 if anything
failed, as a scheduled job wants it.

A training script hands a version over by logging, beside the model or in its run:
  vedette/training.csv   training rows (or .parquet)
  vedette/expected.csv   what the framework computes for them, in the graph's order
  vedette/profile.yaml   optional; see "vedette-agent profile --help"
  vedette/evaluation.csv optional: labelled rows that training never saw (or .parquet);
                         truth: and protect: in profile.yaml name their columns
  vedette/constraints.json  optional: from "vedette data suggest", for a data gate
Tags of the version that are read: vedette.version (name of the release; by default
the version's number). Of the run: mlflow.source.git.commit, mlflow.user,
data_version (tag or parameter), its datasets and metrics.`,
		Example: `  vedette publish digits 7 --key ci.key --keys ci/
  vedette publish --watch --once --key ci.key --keys ci/ -o json
  vedette publish --watch --model digits --key /run/secrets/ci.key --sample-to age1…`,
		Args: args(cobra.MaximumNArgs(2)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error { return a.publishing(cmd.Context(), f, given) },
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.watch, "watch", false, "publish what is tagged for it, and go on doing so")
	fl.BoolVar(&f.once, "once", false, "with --watch: one round, then exit")
	fl.StringSliceVar(&f.models, "model", nil, "with --watch: only these models (repeat)")
	fl.StringVar(&f.key, "key", "", "private key to sign with (default: those of the folder of --keys)")
	fl.StringVar(&f.agent, "agent", "", "the vedette-agent program (default: beside this one, or on the PATH)")
	fl.StringVar(&f.work, "work", "", "folder for downloads, which continue after a restart (default: in the user's cache)")
	fl.DurationVar(&f.every, "every", 30*time.Second, "with --watch: time between rounds, ± a fifth")
	fl.DurationVar(&f.limits.p95, "max-p95", 0, "devices refuse it when the warm 95th percentile of its latency is above this")
	fl.StringVar(&f.limits.memory, "max-memory", "", "devices refuse it when it needs more memory than this, e.g. 64MiB")
	f.limits.sampling.register(fl)
	return cmd
}

func (f publishFlags) check(given []string) error {
	switch {
	case f.watch && len(given) > 0:
		return usagef("--watch finds versions by their tags: name models with --model")
	case !f.watch && len(given) != 2:
		return usagef("name a model and a version, or give --watch")
	case !f.watch && (f.once || len(f.models) > 0):
		return usagef("--once and --model go with --watch")
	case f.every < time.Second:
		return usagef("--every %v: at least a second", f.every)
	}
	return f.limits.sampling.check()
}

func (a *app) publishing(ctx context.Context, f publishFlags, given []string) error {
	if err := f.check(given); err != nil {
		return err
	}
	r, err := a.releaser(f)
	if err != nil {
		return err
	}
	if !f.watch {
		v, err := r.api.RegisteredVersion(ctx, given[0], given[1])
		if err != nil {
			return err
		}
		o, err := r.release(ctx, v)
		if err == nil && o.Problem != "" {
			err = operator.Errorf(operator.Invalid, "%s of %s: %s", v.Version, v.Name, notDone(&o))
		}
		return a.told(o, err)
	}
	return a.watchVersions(ctx, r, f)
}

// releaser makes releases of registered versions.
type releaser struct {
	*publisher

	agent  string // program
	work   string // folder
	limits versionFlags
	models []string // that are published; none means all
}

func (a *app) releaser(f publishFlags) (*releaser, error) {
	p, err := a.publisher()
	if err != nil {
		return nil, err
	}
	r := &releaser{publisher: p, work: f.work, limits: f.limits, models: f.models}
	if f.key != "" {
		if p.key, err = readKey(f.key); err != nil {
			return nil, err
		}
	}
	if r.agent, err = findAgent(f.agent); err != nil {
		return nil, err
	}
	if r.work == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, operator.Errorf(operator.Invalid, "find a folder for downloads: %w", err).WithHint("name one with --work DIR")
		}
		r.work = filepath.Join(cache, "vedette", "publish")
	}
	return r, nil
}

func findAgent(given string) (string, error) {
	const name = "vedette-agent"
	if given == "" {
		if self, err := os.Executable(); err == nil {
			if beside := filepath.Join(filepath.Dir(self), name); executable(beside) {
				return beside, nil
			}
		}
	}
	path, err := exec.LookPath(firstOf(given, name))
	if err != nil {
		return "", operator.Errorf(operator.Invalid, "find %s: %w", name, err).
			WithHint("install the agent's package on this machine, or name the program with --agent FILE: it runs the graph as devices do")
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// Outcomes of one version.
const (
	outcomePublished = "published"
	outcomeAlready   = "already" // it was a release before; the tag is set now
	outcomeProblem   = "problem" // of the version; it has the tag now
	outcomeFailed    = "failed"  // for another reason; it is tried again
)

// outcome is what became of one registered version.
type outcome struct {
	Time    time.Time `json:"time"`
	Model   string    `json:"model"`
	Version string    `json:"version"` // registered
	Outcome string    `json:"outcome"`
	Name    string    `json:"released_as,omitempty"`
	Release string    `json:"release,omitempty"`
	Retrain string    `json:"retrain,omitempty"` // request that it answers
	// Evidence is what was brought for its gates.
	Evidence string `json:"evidence,omitempty"`
	Problem  string `json:"problem,omitempty"` // with a release: of its evidence
}

// told prints an outcome, as one line of JSON for programs.
func (a *app) told(o outcome, err error) error {
	if err != nil && o.Outcome == "" {
		return err
	}
	if a.json() {
		b, bad := json.Marshal(o)
		if bad != nil {
			return errors.Join(err, bad)
		}
		_, bad = a.out.Write(append(b, '\n'))
		return errors.Join(err, bad)
	}
	text := fmt.Sprintf("%s %s: %s", o.Model, o.Version, o.Outcome)
	if o.Release != "" {
		text += fmt.Sprintf(" as %s, release %s", o.Name, o.Release[:12])
	}
	if o.Evidence != "" {
		text += "; " + o.Evidence
	}
	if o.Problem != "" {
		text += ": " + o.Problem
	}
	_, bad := io.WriteString(plain{a.out}, text+"\n")
	return errors.Join(err, bad)
}

// notDone says what a problem left undone.
func notDone(o *outcome) string {
	if o.Release != "" {
		return "it is published, without the evidence for its gates"
	}
	return "it could not be published"
}

// watchVersions makes rounds until ctx ends, or one.
func (a *app) watchVersions(ctx context.Context, r *releaser, f publishFlags) error {
	for {
		done, failed, err := a.round(ctx, r)
		if f.once && err == nil && done == 0 {
			a.remark("nothing to publish")
		}
		if f.once && err == nil && failed > 0 {
			err = operator.Errorf(operator.Invalid, "versions that could not be published: %d", failed)
		}
		if f.once || ctx.Err() != nil {
			return err
		}
		if err != nil {
			if !client.Temporary(err) {
				return err
			}
			a.remark("round broken off, the next one tries again: %v", err)
		}
		if !sleep(ctx, jittered(f.every)) {
			return nil
		}
	}
}

// jittered is d ± a fifth: several runners do not ask at once.
func jittered(d time.Duration) time.Duration {
	return d - d/5 + rand.N(2*d/5) //nolint:gosec // spreads load, guards nothing
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// round publishes what waits for it now, oldest first. Trouble with one version
// keeps no other waiting. It says how many versions it looked into, and how many of
// them failed.
func (a *app) round(ctx context.Context, r *releaser) (done, failed int, err error) {
	list, err := r.waiting(ctx)
	if err != nil {
		return 0, 0, err
	}
	for i := range list {
		o, err := r.attempt(ctx, &list[i])
		if ctx.Err() != nil {
			return done, failed, ctx.Err()
		}
		if o.Outcome == "" && err == nil {
			continue // it did not change since it failed
		}
		done++
		if err != nil {
			failed++
			o = newOutcome(&list[i], outcomeFailed)
			o.Problem = strings.TrimSpace(err.Error())
		} else if o.Problem != "" {
			failed++
		}
		if err := a.told(o, nil); err != nil {
			return done, failed, err
		}
	}
	return done, failed, nil
}
