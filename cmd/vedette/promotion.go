package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
)

//go:embed promotion_example.yaml
var promotionExample string

func modelPromotion(a *app) *cobra.Command {
	return group("promotion", "Say what happens by itself after a version was published", `A promotion takes a published version to the fleet: it waits for the model's gates,
then for a person where the policy names a role, makes a rollout of the policy's
template, follows it, and sets the stage when it is complete. A newer version
takes the place of one whose rollout has not begun.

"vedette model promotion spec" prints a policy with every field explained.`,
		promotionSet(a), promotionShow(a), promotionSpec(a), promotionClear(a), promotionList(a),
		promotionDecide(a, "approve"), promotionDecide(a, "deny"))
}

func promotionSet(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "set MODEL FILE --reason TEXT", Short: "Set the promotion policy of a model",
		Example: `  vedette model promotion spec > promotion.yaml
  vedette model promotion set digits promotion.yaml --reason "answers to drift go out by themselves"`,
		Args: args(cobra.ExactArgs(2)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			text, err := readFile(given[1], maxSmallFile)
			if err != nil {
				return err
			}
			return a.setPromotion(cmd.Context(), given[0], string(text), reason)
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func promotionClear(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "clear MODEL --reason TEXT", Short: "Remove the promotion policy of a model",
		Long: "Removes the policy. Promotions under way go on by the policy that they began with.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.setPromotion(cmd.Context(), given[0], "", reason)
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func (a *app) setPromotion(ctx context.Context, model, text, reason string) error {
	why, err := a.reason(reason, "set the promotion policy of "+model)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	p, err := c.SetPromotionPolicy(ctx, model, operator.PromotionPolicyChange{Text: text, Reason: why})
	if err != nil {
		return err
	}
	return a.print(p, func(w io.Writer) { showPromotionPolicy(w, p) })
}

func promotionShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show MODEL", Short: "Show the promotion policy of a model, as it was set",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			p, err := c.PromotionPolicy(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(p, func(w io.Writer) {
				showPromotionPolicy(w, p)
				if p.Text != "" {
					fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(p.Text))
				}
			})
		},
	}
}

func showPromotionPolicy(w io.Writer, p *operator.PromotionPolicy) {
	if p.Text == "" {
		fmt.Fprintf(w, "%s has no promotion policy: people roll its versions out\n", p.Model)
		return
	}
	facts(w, "model", p.Model, "set by", p.Actor, "at", timeText(p.At), "reason", p.Reason)
}

func promotionSpec(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "spec", Short: "Print a policy with every field explained", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(a.out, promotionExample)
			return err
		},
	}
}

func promotionList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list [MODEL]", Short: "List versions on their way to the fleet, and how they ended",
		Args: args(cobra.MaximumNArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			list, err := promotionsOf(cmd.Context(), c, given)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { promotionTable(w, list) })
		},
	}
}

// promotionsOf are those of one model, or of all.
func promotionsOf(ctx context.Context, c *client.Client, given []string) ([]operator.Promotion, error) {
	if len(given) == 1 {
		return c.Promotions(ctx, given[0])
	}
	models, err := c.Models(ctx)
	if err != nil {
		return nil, err
	}
	list := []operator.Promotion{}
	for _, m := range models {
		more, err := c.Promotions(ctx, m.Name)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

func promotionTable(w io.Writer, list []operator.Promotion) {
	if len(list) == 0 {
		none(w, "promotions")
		return
	}
	rows := [][]string{}
	for _, p := range list {
		rows = append(rows, []string{p.Model, p.Version, string(p.State), p.Rollout, timeText(p.Since), p.Text})
	}
	grid(w, []string{"model", "version", "state", "rollout", "since", ""}, rows)
}

// promotionDecide is "approve" and "deny".
func promotionDecide(a *app, verb string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   verb + " MODEL VERSION --reason TEXT",
		Short: map[string]string{"approve": "Let the rollout of a version begin", "deny": "Reject a version"}[verb],
		Args:  args(cobra.ExactArgs(2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			why, err := a.reason(reason, verb+" "+given[0]+" "+given[1])
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			p, err := c.DecidePromotion(cmd.Context(), given[0], given[1], operator.PromotionDecision{Approve: verb == "approve", Reason: why})
			if err != nil {
				return err
			}
			return a.print(p, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s %s: %s\n", p.Model, p.Version, promotionText(p.State), p.Text)
			})
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

// promotionText is a state as the end of a sentence that a version begins.
func promotionText(s operator.PromotionState) string {
	switch s { //nolint:exhaustive // the others are words
	case operator.PromotionGates:
		return "waits for its gates"
	case operator.PromotionAwaiting:
		return "waits for approval"
	case operator.PromotionRollingOut:
		return "is rolling out"
	}
	return "is " + string(s)
}

// lineageFlags select what is walked back from.
type lineageFlags struct {
	device, model, at string
}

func modelLineage(a *app) *cobra.Command {
	var f lineageFlags
	cmd := &cobra.Command{
		Use: "lineage MODEL [VERSION] | lineage --device DEVICE", Short: "Walk from a version, or a device's prediction, back to run, data and code",
		Long: `Shows where a version comes from: who signed it, which rollouts brought it, the
registered version and the training run, its data and commit, and the version it
was derived from.

With --device it begins at what the device predicted in the hour of --at (now by
default) and finds the version that it predicted with. Hours are kept for 90 days.`,
		Example: `  vedette model lineage digits 7
  vedette model lineage --device cam-1 --at 2026-11-23T09:30:00Z
  vedette model lineage --device cam-1 --model digits -o json`,
		Args: args(cobra.MaximumNArgs(2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			l, err := a.lineageOf(cmd.Context(), f, given)
			if err != nil {
				return err
			}
			return a.print(l, func(w io.Writer) { lineageTree(w, l) })
		},
	}
	cmd.Flags().StringVar(&f.device, "device", "", "device whose prediction is walked back from")
	cmd.Flags().StringVar(&f.model, "model", "", "with --device: the model (default: its only one)")
	cmd.Flags().StringVar(&f.at, "at", "", "with --device: moment of the prediction, e.g. 2026-11-23T09:30:00Z (default: now)")
	return cmd
}

func (a *app) lineageOf(ctx context.Context, f lineageFlags, given []string) (*operator.Provenance, error) {
	if (f.device == "") == (len(given) == 0) {
		return nil, usagef("name a model and a version, or a device with --device")
	}
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	if f.device == "" {
		version, err := versionOrLatest(ctx, c, given)
		if err != nil {
			return nil, err
		}
		return c.Lineage(ctx, given[0], version)
	}
	q := operator.LineageQuery{Model: f.model}
	if f.at != "" {
		if q.At, err = time.Parse(time.RFC3339, f.at); err != nil {
			return nil, usagef("--at %s: give it like 2026-11-23T09:30:00Z", f.at)
		}
	}
	return c.DeviceLineage(ctx, f.device, q)
}
