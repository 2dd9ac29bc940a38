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

//go:embed retrain_example.yaml
var exampleRetrain string

func retrainCommand(a *app) *cobra.Command {
	return group("retrain", "Say when a model asks for retraining, and see what came of it", `A policy says when a model asks for a new version: when inputs or predictions
left the training data, when accuracy is below a bound, or by the clock. The
request is a CloudEvent with the evidence, sent to webhooks and a NATS subject. It
names a tag: a version that is registered with that tag answers the request.`,
		retrainSpec(a), retrainPolicy(a), retrainList(a), retrainShow(a), retrainDead(a),
		retrainAct(a, "redeliver REQUEST", "Try the dead letters of a request again", "tried again", retrainNames, (*client.Client).Redeliver),
		retrainAct(a, "request MODEL", "Ask for retraining now, whatever the policy's conditions are", "asked", modelNames, (*client.Client).RequestRetraining))
}

func retrainNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	page, err := c.RetrainEvents(ctx, operator.RetrainQuery{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range page.Items {
		out = append(out, e.ID+"\t"+e.Model+" "+e.State)
	}
	return out, nil
}

func retrainSpec(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "spec", Short: "Print a policy with every field explained", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return printDocument[operator.RetrainPolicy](a, exampleRetrain, "the policy")
		},
	}
}

func retrainPolicy(a *app) *cobra.Command {
	var file, reason string
	cmd := &cobra.Command{
		Use: "policy MODEL [-f FILE --reason TEXT]", Short: "Show a model's policy, or replace it by that of a file",
		Long: `Without -f it shows the policy, without secrets, as a file that can be set again.
With -f it replaces the policy ("vedette retrain spec" explains one). A webhook
given without its secret keeps the one that is stored for the same URL.`,
		Example: `  vedette retrain spec > policy.yaml    # then edit it
  vedette retrain policy digits -f policy.yaml --reason "ask sooner"`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if file == "" {
				p, err := c.RetrainPolicy(cmd.Context(), given[0])
				if err != nil {
					return err
				}
				return a.showDocument(p)
			}
			p, err := readDocument[operator.RetrainPolicy](file, "the policy")
			if err != nil {
				return err
			}
			if p.Model != "" && p.Model != given[0] {
				return usagef("%s is a policy of %s, not of %s", file, p.Model, given[0])
			}
			p.Model, p.Reason = given[0], reason
			done, err := c.SetRetrainPolicy(cmd.Context(), p)
			if err != nil {
				return err
			}
			return a.showDocument(done)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file with the policy, YAML or JSON")
	reasonFlag(cmd, &reason)
	return cmd
}

// listRetrain reads all requests that a query selects.
func (a *app) listRetrain(ctx context.Context, q operator.RetrainQuery) ([]operator.RetrainEvent, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	return pages(func(p operator.Paging) (*operator.Page[operator.RetrainEvent], error) {
		q.Paging = p
		return c.RetrainEvents(ctx, q)
	})
}

func retrainList(a *app) *cobra.Command {
	var q operator.RetrainQuery
	cmd := &cobra.Command{
		Use: "list", Short: "List requests for retraining, newest first", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.listRetrain(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { requestTable(w, list) })
		},
	}
	cmd.Flags().StringVar(&q.Model, "model", "", "only this model")
	cmd.Flags().StringVar(&q.State, "state", "", "only in this state: pending, delivered, failed, answered, validated, rolled_out, rejected")
	return cmd
}

func requestTable(w io.Writer, list []operator.RetrainEvent) {
	if len(list) == 0 {
		none(w, "requests for retraining")
		return
	}
	rows := [][]string{}
	for i := range list {
		e := &list[i]
		answer := ""
		if e.Answer != nil {
			answer = "version " + e.Answer.Version
		}
		rows = append(rows, []string{e.ID, ago(time.Now(), e.At), e.Model, e.State, e.Cause, strings.Join(e.Cohorts, " "), takenText(e), answer})
	}
	grid(w, []string{"request", "age", "model", "state", "cause", "cohorts", "taken by", "answer"}, rows)
}

// takenText says how many destinations have a request.
func takenText(e *operator.RetrainEvent) string {
	done := 0
	for _, d := range e.Deliveries {
		if d.Done {
			done++
		}
	}
	if len(e.Deliveries) == 0 {
		return "nobody is asked"
	}
	return fmt.Sprintf("%d of %d", done, len(e.Deliveries))
}

func retrainShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show REQUEST", Short: "Show a request: why, to whom, and what came of it", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, retrainNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			e, err := c.RetrainEvent(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(e, func(w io.Writer) { showRequest(w, e) })
		},
	}
}

func showRequest(w io.Writer, e *operator.RetrainEvent) {
	facts(w, "request", e.ID, "model", e.Model, "version", e.Version, "asked", timeText(e.At), "state", e.State, "cause", e.Cause,
		"condition", e.Condition, "why", e.Text, "cohorts", strings.Join(e.Cohorts, " "), "furthest apart", worst(e.Alarm.Cells), "tag", e.Tag)
	if e.Alarm.Accuracy != nil {
		facts(w, "accuracy", accuracyText(e.Alarm.Accuracy))
	}
	if e.Answer != nil {
		facts(w, "answer", "version "+e.Answer.Version, "release", e.Answer.Release, "since", timeText(e.Answer.At), "stands", e.Answer.Text)
	}
	heading(w, "deliveries")
	grid(w, []string{"to", "state", "tries", "last", "next", "error"}, deliveryRows(e))
}

func deliveryRows(e *operator.RetrainEvent) [][]string {
	rows := [][]string{}
	for i := range e.Deliveries {
		d := &e.Deliveries[i]
		rows = append(rows, []string{d.Target, deliveryState(d), count(d.Attempts), timeText(d.Last), timeText(d.Next), d.Error})
	}
	return rows
}

func deliveryState(d *operator.Delivery) string {
	switch {
	case d.Done:
		return "taken"
	case d.Next.IsZero():
		return "dead letter"
	}
	return "being tried"
}

func retrainDead(a *app) *cobra.Command {
	var model string
	cmd := &cobra.Command{
		Use: "dead", Short: "List dead letters: deliveries that were given up", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.listRetrain(cmd.Context(), operator.RetrainQuery{Model: model, Dead: true})
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { deadTable(w, list) })
		},
	}
	cmd.Flags().StringVar(&model, "model", "", "only this model")
	return cmd
}

func deadTable(w io.Writer, list []operator.RetrainEvent) {
	rows := [][]string{}
	for i := range list {
		e := &list[i]
		for j := range e.Deliveries {
			if d := &e.Deliveries[j]; deliveryState(d) == "dead letter" {
				rows = append(rows, []string{e.ID, e.Model, d.Target, count(d.Attempts), timeText(d.Last), d.Error})
			}
		}
	}
	if len(rows) == 0 {
		none(w, "dead letters")
		return
	}
	grid(w, []string{"request", "model", "to", "tries", "last", "error"}, rows)
	fmt.Fprintln(w, "put the receiver right, then: vedette retrain redeliver REQUEST")
}

// retrainAct is a command that gives one subject a reason and shows the request.
func retrainAct(a *app, use, short, done string, names func(context.Context, *client.Client, []string) ([]string, error),
	act func(*client.Client, context.Context, string, operator.Reasoned) (*operator.RetrainEvent, error),
) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: use + " --reason TEXT", Short: short, Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, names),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			e, err := act(c, cmd.Context(), given[0], operator.Reasoned{Reason: reason})
			if err != nil {
				return err
			}
			return a.print(e, func(w io.Writer) { fmt.Fprintf(w, "%s: %s, %s\n", done, e.ID, e.State) })
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}
