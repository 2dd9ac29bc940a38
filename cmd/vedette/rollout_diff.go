package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
)

func rolloutRevise(a *app) *cobra.Command {
	var f specFlags
	var reason string
	cmd := &cobra.Command{
		Use: "revise ROLLOUT --reason TEXT", Short: "Give a rollout a new spec for what is left of it",
		Long: `Gives a rollout a new spec: that of a file, or its present one with the flags that
are given. What was done stays; what is left follows the new spec. The revision
is recorded, and refused when somebody else has revised it in between.`,
		Example: `  vedette rollout revise digits-2-1 --budget 20 --reason "the site link is slow"
  vedette rollout spec digits-2-1 >spec.yaml   # then edit it
  vedette rollout revise digits-2-1 -f spec.yaml --reason "longer soak"`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, rolloutNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			now, err := c.Rollout(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			action, changes, err := f.revision(cmd, now)
			if err != nil {
				return err
			}
			if action.Reason, err = a.reason(reason, "revise "+now.ID); err != nil {
				return err
			}
			r, err := c.ActOnRollout(cmd.Context(), now.ID, *action)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "%s is %s\n", r.ID, stateText(&r.RolloutSummary))
				showDifferences(w, changes)
			})
		},
	}
	f.register(cmd)
	reasonFlag(cmd, &reason)
	return cmd
}

// revision is the action that gives a rollout the spec of the flags, and what
// that changes.
func (f *specFlags) revision(cmd *cobra.Command, now *operator.Rollout) (*operator.RolloutAction, []rollout.Difference, error) {
	spec, err := f.revised(cmd, now.Spec)
	if err != nil {
		return nil, nil, err
	}
	changes, err := rollout.Differences(now.Spec, spec)
	if err != nil {
		return nil, nil, err
	}
	if len(changes) == 0 {
		return nil, nil, operator.Errorf(operator.Invalid, "that is the spec which %s has already", now.ID).
			WithHint("give -f FILE or flags such as --budget; `vedette rollout spec %s` prints the present one", now.ID)
	}
	number := max(len(now.Revisions)-1, 0)
	return &operator.RolloutAction{Action: operator.ActRevise, Spec: &spec, Number: &number}, changes, nil
}

// revised is the spec of the file, or the present one, with the flags given.
func (f *specFlags) revised(cmd *cobra.Command, present operator.RolloutSpec) (spec operator.RolloutSpec, err error) {
	if f.file != "" {
		spec, err = f.spec(cmd, nil)
	} else {
		spec = present
		err = f.change(cmd, &spec)
	}
	if err != nil {
		return spec, err
	}
	return complete(spec)
}

// complete fills in the defaults of a spec, as the server does, and checks it.
func complete(s operator.RolloutSpec) (operator.RolloutSpec, error) {
	text, err := rollout.FormatSpec(s)
	if err != nil {
		return s, err
	}
	parsed, err := rollout.ParseSpec(text)
	if err == nil {
		parsed = parsed.WithDefaults()
		err = parsed.Validate()
	}
	if err != nil {
		return s, operator.Errorf(operator.Invalid, "%w", err)
	}
	return operatorSpec(parsed)
}

func rolloutDiff(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "diff ROLLOUT[@N] [ROLLOUT[@N]]", Short: "Show how the specs of two rollouts, revisions or files differ",
		Long: `Compares specs with their defaults filled in. ROLLOUT is its present spec and
ROLLOUT@N that of revision N; 0 is the one it was created with. With one rollout
and no file it shows what each revision changed.`,
		Example: `  vedette rollout diff digits-2-1                  # what its revisions changed
  vedette rollout diff digits-2-1 -f spec.yaml
  vedette rollout diff digits-2-1@0 digits-2-1
  vedette rollout diff digits-1-1 digits-2-1`,
		Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: a.complete(0, rolloutNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			if file != "" && len(given) == 2 {
				return usagef("give a second rollout or a file, not both")
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			if file == "" && len(given) == 1 && !strings.Contains(given[0], "@") {
				return a.diffRevisions(cmd.Context(), c, given[0])
			}
			from, err := a.specAt(cmd.Context(), c, given[0])
			if err != nil {
				return err
			}
			to, err := a.otherSpec(cmd.Context(), c, given, file)
			if err != nil {
				return err
			}
			return a.printDifferences(from, to)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "compare with this spec, YAML or JSON")
	return cmd
}

// otherSpec is what a rollout is compared with: a file, another rollout or, of a
// revision alone, the present spec.
func (a *app) otherSpec(ctx context.Context, c *client.Client, given []string, file string) (operator.RolloutSpec, error) {
	switch {
	case file != "":
		f := specFlags{file: file}
		s, err := f.fromFile()
		if err != nil {
			return s, err
		}
		return complete(s)
	case len(given) == 2:
		return a.specAt(ctx, c, given[1])
	default:
		id, _, _ := strings.Cut(given[0], "@")
		return a.specAt(ctx, c, id)
	}
}

// specAt is the spec of "ROLLOUT" or "ROLLOUT@N".
func (a *app) specAt(ctx context.Context, c *client.Client, name string) (operator.RolloutSpec, error) {
	id, number, revision := strings.Cut(name, "@")
	r, err := c.Rollout(ctx, id)
	if err != nil {
		return operator.RolloutSpec{}, err
	}
	if !revision {
		return r.Spec, nil
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n >= len(r.Revisions) {
		return operator.RolloutSpec{}, operator.Errorf(operator.NotFound, "%s has no revision %q", id, number).
			WithHint("it has 0 to %d", max(len(r.Revisions)-1, 0))
	}
	return r.Revisions[n].Spec, nil
}

// revisionChange is what one revision changed.
type revisionChange struct {
	operator.SpecRevision
	Changes []rollout.Difference `json:"changes"`
}

func (a *app) diffRevisions(ctx context.Context, c *client.Client, id string) error {
	r, err := c.Rollout(ctx, id)
	if err != nil {
		return err
	}
	list := []revisionChange{}
	for i := 1; i < len(r.Revisions); i++ {
		changes, err := rollout.Differences(r.Revisions[i-1].Spec, r.Revisions[i].Spec)
		if err != nil {
			return err
		}
		list = append(list, revisionChange{r.Revisions[i], changes})
	}
	return a.print(list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintf(w, "%s was not revised\n", id)
		}
		for _, v := range list {
			fmt.Fprintf(w, "revision %d  %s  #%d  %s (%s)\n", v.Number, timeText(v.At), v.Seq, v.Actor, v.Reason)
			showDifferences(w, v.Changes)
		}
	})
}

func (a *app) printDifferences(from, to operator.RolloutSpec) error {
	list, err := rollout.Differences(from, to)
	if err != nil {
		return err
	}
	if list == nil {
		list = []rollout.Difference{}
	}
	return a.print(list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "no difference")
		}
		showDifferences(w, list)
	})
}

func showDifferences(w io.Writer, list []rollout.Difference) {
	rows := [][]string{}
	for _, d := range list {
		rows = append(rows, []string{d.Path, firstOf(d.From, "-"), firstOf(d.To, "-")})
	}
	grid(w, []string{"field", "from", "to"}, rows)
}
