package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func incidentCommand(a *app) *cobra.Command {
	return group("incident", "See what is wrong, and say who is at it", `Whatever the server finds wrong is an incident: drift, a faulty sensor, accuracy
below its floor, a gate that refuses a version, a rollout that stopped, an event
that nobody took. One cause is one incident, however often it is seen. It is over
when its cause is, or when a person says so; a cause that comes back soon opens
the same incident again.

Who is told of incidents is set with "vedette notify".`,
		incidentList(a), incidentShow(a),
		incidentAct(a, "ack", "Say that somebody is at it: nobody is reminded any more", "acknowledged", (*client.Client).AcknowledgeIncident),
		incidentAct(a, "resolve", "Close an incident by hand; a cause that still stands opens it again", "resolved", (*client.Client).ResolveIncident),
		incidentSilence(a), silenceList(a), silenceExpire(a))
}

func incidentNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	page, err := c.Incidents(ctx, operator.IncidentQuery{Open: true})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, i := range page.Items {
		out = append(out, i.ID+"\t"+i.Summary)
	}
	return out, nil
}

func incidentList(a *app) *cobra.Command {
	var q operator.IncidentQuery
	var all bool
	cmd := &cobra.Command{
		Use: "list", Short: "List incidents that are not resolved, newest first", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.Open = !all
			c, err := a.connect()
			if err != nil {
				return err
			}
			list, err := pages(func(p operator.Paging) (*operator.Page[operator.Incident], error) {
				q.Paging = p
				return c.Incidents(cmd.Context(), q)
			})
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { incidentTable(w, list) })
		},
	}
	cmd.Flags().StringVar(&q.Model, "model", "", "only of this model")
	cmd.Flags().StringVar(&q.Kind, "kind", "", "only of this kind: drift, accuracy, sensor_fault, gate_failed, rollout_stopped …")
	cmd.Flags().BoolVar(&all, "all", false, "resolved ones too")
	return cmd
}

func incidentTable(w io.Writer, list []operator.Incident) {
	if len(list) == 0 {
		none(w, "incidents")
		return
	}
	rows := [][]string{}
	for i := range list {
		n := &list[i]
		rows = append(rows, []string{n.ID, ago(time.Now(), n.Opened), n.Severity, incidentState(n), n.Kind, n.Model, count(n.Count), n.Summary})
	}
	grid(w, []string{"incident", "age", "severity", "state", "kind", "model", "seen", "what"}, rows)
}

func incidentState(n *operator.Incident) string {
	switch {
	case n.Silence != "":
		return n.State + ", silenced"
	case n.Owner != "":
		return n.State + " by " + n.Owner
	}
	return n.State
}

func incidentShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show INCIDENT", Short: "Show an incident with its timeline", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, incidentNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			n, err := c.Incident(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(n, func(w io.Writer) { showIncident(w, n) })
		},
	}
}

func showIncident(w io.Writer, n *operator.Incident) {
	facts(w, "incident", n.ID, "what", n.Summary, "state", incidentState(n), "severity", n.Severity, "kind", n.Kind, "model", n.Model,
		"version", n.Version, "cohort", n.Cohort, "device", n.Device, "opened", timeText(n.Opened), "seen last", timeText(n.Last),
		"seen", seenText(n), "resolved", timeText(n.Resolved),
		"detail", strings.ReplaceAll(n.Detail, "\n", "\n          "), "page", n.Link)
	heading(w, "timeline")
	rows := [][]string{}
	for _, e := range n.Timeline {
		rows = append(rows, []string{timeText(e.At), e.What, e.Who, e.Text})
	}
	grid(w, []string{"time", "what", "who", ""}, rows)
}

// seenText says how often a cause was raised.
func seenText(n *operator.Incident) string {
	text := "once"
	if n.Count > 1 {
		text = fmt.Sprintf("%d times", n.Count)
	}
	if n.Flaps > 0 {
		text += fmt.Sprintf(", came back %d times", n.Flaps)
	}
	return text
}

// incidentAct is a command that does one thing to incidents.
func incidentAct(a *app, use, short, done string, act func(*client.Client, context.Context, string, operator.Reasoned) (*operator.Incident, error)) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: use + " INCIDENT… --reason TEXT", Short: short, Args: args(cobra.MinimumNArgs(1)), ValidArgsFunction: a.complete(0, incidentNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			list := []operator.Incident{}
			for _, id := range given {
				n, err := act(c, cmd.Context(), id, operator.Reasoned{Reason: reason})
				if err != nil {
					return err
				}
				list = append(list, *n)
			}
			return a.print(list, func(w io.Writer) {
				for i := range list {
					fmt.Fprintf(w, "%s %s: %s\n", done, list[i].ID, list[i].Summary)
				}
			})
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func incidentSilence(a *app) *cobra.Command {
	var s operator.SilenceCreate
	var lasts time.Duration
	cmd := &cobra.Command{
		Use: "silence [INCIDENT] --for DURATION --reason TEXT", Short: "Keep messages back for a time",
		Long: `Keeps messages about one incident's cause back, or about all that match the
flags. Incidents are still opened and listed; who is told hears of them when the
silence ends, if they still stand.`,
		Example: `  vedette incident silence inc-1f2e3d4c5b6a --for 4h --reason "spare part ordered"
  vedette incident silence --model digits --cohort hall-b --for 48h --reason "rebuilding hall b"`,
		Args: args(cobra.MaximumNArgs(1)), ValidArgsFunction: a.complete(0, incidentNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			s.For = release.Duration(lasts)
			if len(given) == 1 {
				n, err := c.Incident(cmd.Context(), given[0])
				if err != nil {
					return err
				}
				s.Key = n.Key
			}
			done, err := c.CreateSilence(cmd.Context(), s)
			if err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) {
				fmt.Fprintf(w, "%s: silent until %s about %s\n", done.ID, timeText(done.Until), silenceText(done))
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&s.Model, "model", "", "of this model")
	fs.StringVar(&s.Kind, "kind", "", "of this kind")
	fs.StringVar(&s.Cohort, "cohort", "", "of this cohort, e.g. a site")
	fs.StringVar(&s.Device, "device", "", "of this device")
	fs.DurationVar(&lasts, "for", 2*time.Hour, "how long, at most 90 days")
	reasonFlag(cmd, &s.Reason)
	return cmd
}

// silenceText says what a silence matches.
func silenceText(s *operator.Silence) string {
	var parts []string
	for _, p := range [][2]string{{"model", s.Model}, {"kind", s.Kind}, {"cohort", s.Cohort}, {"device", s.Device}, {"cause", s.Key}} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	return strings.Join(parts, ", ")
}

func silenceList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "silences", Short: "List silences that hold or ended within a week", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			list, err := c.Silences(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				if len(list) == 0 {
					none(w, "silences")
				}
				rows := [][]string{}
				for i := range list {
					s := &list[i]
					state := "ended"
					if s.Active {
						state = "holds"
					}
					rows = append(rows, []string{s.ID, state, timeText(s.Until), silenceText(s), s.Who, s.Reason})
				}
				grid(w, []string{"silence", "state", "until", "about", "by", "reason"}, rows)
			})
		},
	}
}

func silenceExpire(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "expire SILENCE --reason TEXT", Short: "End a silence now", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if err := c.ExpireSilence(cmd.Context(), given[0], operator.Reasoned{Reason: reason}); err != nil {
				return err
			}
			a.remark("%s has ended", given[0])
			return nil
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}
