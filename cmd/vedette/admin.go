package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func statusCommand(a *app) *cobra.Command {
	type status struct {
		Server   *operator.ServerInfo `json:"server"`
		Overview *operator.Overview   `json:"overview"`
	}
	return &cobra.Command{
		Use: "status", Short: "Show the fleet and its server at a glance", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			server, err := c.Server(cmd.Context())
			if err != nil {
				return err
			}
			overview, err := c.Overview(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(status{server, overview}, func(w io.Writer) {
				showServer(w, c.Address(), server)
				showOverview(w, overview)
			})
		},
	}
}

func showServer(w io.Writer, address string, s *operator.ServerInfo) {
	root := `none yet: run "vedette key init"`
	if s.Trust.Installed {
		root = fmt.Sprintf("version %d, until %s", s.Trust.Root.Version, timeText(s.Trust.Root.Expires))
	}
	facts(w, "server", fmt.Sprintf("%s, version %s, up %s", address, s.Version, durationText(s.Now.Sub(s.Started))),
		"you are", fmt.Sprintf("%s, %s", s.Principal.Name, s.Principal.Role), "devices reach", strings.Join(append([]string{s.DeviceAPI}, s.MQTT...), " "),
		"root of trust", root,
		"storage", storageText(&s.Storage))
}

func storageText(s *operator.Storage) string {
	text := fmt.Sprintf("models %s, disk free %s", bytesText(s.BlobBytes), bytesText(s.DiskFreeBytes))
	if s.RecordLimit > 0 {
		text = fmt.Sprintf("%d records in %s of %s, hours %s, days %s, ", s.Records, bytesText(s.RecordBytes), bytesText(s.RecordLimit),
			bytesText(s.HourBytes), bytesText(s.DayBytes)) + text
	}
	return text
}

// servedText says how many devices serve what, the most first.
func servedText(versions map[string]int) string {
	names := slices.Collect(maps.Keys(versions))
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(versions[b]-versions[a], strings.Compare(a, b)) })
	for i, n := range names {
		names[i] = fmt.Sprintf("%d × %s", versions[n], n)
	}
	return strings.Join(names, ", ")
}

func showOverview(w io.Writer, o *operator.Overview) {
	fmt.Fprintln(w)
	facts(w, "devices", fmt.Sprintf("%d: %d online, %d offline, %d unknown, %d with marks", o.Devices, o.Online, o.Offline, o.Unknown, o.Marked),
		"counted", fmt.Sprintf("%d predictions, %d labels, %d lost", o.Rows, o.Labels, o.LostRows))
	rows := [][]string{}
	for _, s := range o.Sites {
		rows = append(rows, []string{firstOf(s.Site, "(none)"), count(s.Devices), count(s.Online), servedText(s.Versions), string(s.Verdict), optional(s.Accuracy)})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		grid(w, []string{"site", "devices", "online", "runs", "verdict", "accuracy"}, rows)
	}
	if len(o.Rollouts) > 0 {
		heading(w, "rollouts")
		rolloutTable(w, o.Rollouts)
	}
	if len(o.Alarms) > 0 {
		heading(w, "alarms")
		alarmTable(w, o.Alarms)
	}
}

func settingsCommand(a *app) *cobra.Command {
	return group("settings", "Show or change what is asked of all devices", "", settingsShow(a), settingsSet(a))
}

func settingsShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show what is asked of all devices", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			s, err := c.Settings(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { showSettings(w, s) })
		},
	}
}

func showSettings(w io.Writer, s *operator.Settings) {
	facts(w, "window", orDefault(s.Window), "report", orDefault(s.Report), "snapshot", orDefault(s.Snapshot), "sampling", samplingText(s))
}

// samplingText says how much of what manifests allow is sampled.
func samplingText(s *operator.Settings) string {
	switch {
	case s.SamplingOff:
		return "off"
	case s.SampleRows > 0:
		return fmt.Sprintf("at most %d rows a window, where manifests allow it", s.SampleRows)
	default:
		return "as manifests allow"
	}
}

func orDefault(d release.Duration) string {
	if d == 0 {
		return "default"
	}
	return d.String()
}

func settingsSet(a *app) *cobra.Command {
	var window, report, snapshot time.Duration
	var samplingOff bool
	var sampleRows int
	var reason string
	cmd := &cobra.Command{
		Use: "set --reason TEXT", Short: "Change how often devices count, report and write down",
		Long:    "Changes what is asked of all devices. What is not given stays; 0 returns to the default.",
		Example: `  vedette settings set --window 1m --report 10s --reason "watching the rollout closely"`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			s, err := c.Settings(cmd.Context())
			if err != nil {
				return err
			}
			for flag, set := range map[string]func(){
				"window":   func() { s.Window = release.Duration(window) },
				"report":   func() { s.Report = release.Duration(report) },
				"snapshot": func() { s.Snapshot = release.Duration(snapshot) },

				"sampling-off": func() { s.SamplingOff = samplingOff },
				"sample-rows":  func() { s.SampleRows = sampleRows },
			} {
				if cmd.Flags().Changed(flag) {
					set()
				}
			}
			s.Reason = reason
			if s, err = c.SetSettings(cmd.Context(), *s); err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { showSettings(w, s) })
		},
	}
	cmd.Flags().DurationVar(&window, "window", 0, "length of a window of counts (default 5m)")
	cmd.Flags().BoolVar(&samplingOff, "sampling-off", false, "no row leaves a device for labelling, whatever manifests allow")
	cmd.Flags().IntVar(&sampleRows, "sample-rows", 0, "at most so many rows a window leave a device for labelling (default: as manifests allow)")
	cmd.Flags().DurationVar(&report, "report", 0, "longest time between two reports (default 60s)")
	cmd.Flags().DurationVar(&snapshot, "snapshot", 0, "how often the open window is written to disk (default 10s)")
	reasonFlag(cmd, &reason)
	return cmd
}

func tokenCommand(a *app) *cobra.Command {
	return group("token", "Make, list and revoke operator tokens", "", tokenCreate(a), tokenList(a), tokenRevoke(a))
}

func tokenCreate(a *app) *cobra.Command {
	var role string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "create NAME --role ROLE", Short: "Make a token for a person or a program; it is shown once",
		Long: `Roles, each with all that those before it may do:
  viewer     reads everything
  scientist  logs runs, registers candidates
  operator   rollouts, labels, device tokens, settings
  publisher  uploads and publishes models
  admin      operator tokens, device revocation, root of trust`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			t, err := c.CreateToken(cmd.Context(), operator.TokenCreate{Name: given[0], Role: operator.Role(role), TTL: release.Duration(ttl)})
			if err != nil {
				return err
			}
			a.remark("token %s of role %s", t.ID, t.Role)
			return a.print(t, func(w io.Writer) { fmt.Fprintln(w, t.Secret) })
		},
	}
	cmd.Flags().StringVar(&role, "role", string(operator.Viewer), "viewer, scientist, operator, publisher or admin")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long it is good (default: until revoked)")
	return cmd
}

func tokenList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List operator tokens", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			list, err := c.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				rows := [][]string{}
				for _, t := range list {
					state := map[bool]string{true: "revoked", false: "good"}[t.Revoked]
					rows = append(rows, []string{t.ID, t.Name, string(t.Role), state, timeText(t.Created), timeText(t.Expires), timeText(t.LastUsed)})
				}
				grid(w, []string{"token", "name", "role", "state", "created", "expires", "last used"}, rows)
			})
		},
	}
}

func tokenRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN", Short: "End an operator token", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return c.RevokeToken(cmd.Context(), given[0])
		},
	}
}
