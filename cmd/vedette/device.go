package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func deviceCommand(a *app) *cobra.Command {
	return group("device", "Enrol devices, and see what they do", "",
		deviceList(a), deviceShow(a), deviceToken(a), deviceLabel(a), deviceRevoke(a), deviceTap(a), deviceTotals(a))
}

// pages reads all pages of a list.
func pages[T any](read func(operator.Paging) (*operator.Page[T], error)) ([]T, error) {
	all := []T{}
	for p := (operator.Paging{Limit: operator.MaxPage}); ; {
		page, err := read(p)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if p.Cursor = page.Next; p.Cursor == "" {
			return all, nil
		}
	}
}

func deviceList(a *app) *cobra.Command {
	var q operator.DeviceQuery
	cmd := &cobra.Command{
		Use: "list", Short: "List devices with what they run",
		Example: `  vedette device list --selector site=b
  vedette device list --presence offline`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			list, err := pages(func(p operator.Paging) (*operator.Page[operator.Device], error) {
				q.Paging = p
				return c.Devices(cmd.Context(), q)
			})
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				if len(list) == 0 && q != (operator.DeviceQuery{Paging: q.Paging}) {
					none(w, "devices match")
					return
				}
				deviceTable(w, list, time.Now())
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&q.Selector, "selector", "l", "", "label selector, e.g. site=b,ring!=canary")
	f.StringVar((*string)(&q.Presence), "presence", "", "online, offline or unknown")
	f.StringVar(&q.Model, "model", "", "devices that hold this model")
	f.StringVar(&q.Text, "text", "", "part of the id or of a label")
	return cmd
}

func deviceTable(w io.Writer, list []operator.Device, now time.Time) {
	if len(list) == 0 {
		none(w, `devices; let them in with "vedette device token create"`)
		return
	}
	rows := [][]string{}
	for i := range list {
		d := &list[i]
		rows = append(rows, []string{
			d.ID, d.Site, d.Profile, string(d.Presence), ago(now, d.LastSeen), runs(d), states(d), count(d.Outbox.Pending + d.Outbox.Sent), markText(d.Marks),
		})
	}
	grid(w, []string{"device", "site", "profile", "presence", "seen", "runs", "state", "outbox", "marks"}, rows)
}

// runs names what a device serves.
func runs(d *operator.Device) string {
	var parts []string
	for _, m := range d.Models {
		if m.Active != nil {
			parts = append(parts, m.Model+" "+firstOf(m.Active.Version, m.Active.Release.Short()))
		}
	}
	return strings.Join(parts, ", ")
}

// states tells what its update machines do, when they are not idle.
func states(d *operator.Device) string {
	var parts []string
	for _, m := range d.Models {
		if m.State == "" || m.State == "idle" {
			continue
		}
		text := m.State
		if m.TotalBytes > 0 && m.State == "downloading" {
			text += " " + share(m.DoneBytes, m.TotalBytes)
		}
		if m.Waiting != "" {
			text += ", waits"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func markText(marks []operator.Mark) string {
	kinds := make([]string, len(marks))
	for i, m := range marks {
		kinds[i] = m.Kind
	}
	return strings.Join(kinds, ", ")
}

func deviceShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show DEVICE", Short: "Show all that is known of a device",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, deviceNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			d, err := c.Device(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(d, func(w io.Writer) { showDevice(w, d, time.Now()) })
		},
	}
}

func deviceNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	page, err := c.Devices(ctx, operator.DeviceQuery{})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(page.Items))
	for i := range page.Items {
		names[i] = page.Items[i].ID
	}
	return names, nil
}

func showDevice(w io.Writer, d *operator.DeviceDetail, now time.Time) {
	facts(w,
		"device", d.ID, "labels", labelText(d.Labels), "profile", d.Profile, "presence", string(d.Presence),
		"last seen", firstOf(ago(now, d.LastSeen), "never"), "enrolled", timeText(d.Enrolled), "agent", d.AgentVersion,
		"hardware", strings.TrimSpace(fmt.Sprintf("%s, %d × %s, %s memory", d.Facts.Arch, d.Facts.CPUs, d.Facts.CPUModel, bytesText(d.Facts.MemoryBytes))),
		"system", strings.TrimSpace(d.Facts.OS+" "+d.Facts.Kernel), "runtime", strings.TrimSpace(d.Facts.Runtime+" "+d.Facts.RuntimeVersion+" "+strings.Join(d.Facts.Providers, " ")),
		"outbox", fmt.Sprintf("%d records waiting, %d sent, %s", d.Outbox.Pending, d.Outbox.Sent, bytesText(d.Outbox.Bytes)),
		"disk free", bytesText(d.DiskFreeBytes), "agent memory", bytesText(d.RSSBytes),
		"link", protocol.MeteredText(d.Metered), "power", protocol.PowerText(d.Power, d.Battery), "time zone", d.Facts.TimeZone,
		"desired state", fmt.Sprintf("generation %d, device has %d", d.DesiredGeneration, d.Generation))
	for _, m := range d.Marks {
		fmt.Fprintf(w, "! %s: %s\n", m.Kind, m.Message)
	}
	showDeviceModels(w, d)
	showTotals(w, d.Totals, lossesOf(d))
	if len(d.Events) > 0 {
		heading(w, "events")
		rows := [][]string{}
		for _, e := range d.Events {
			rows = append(rows, []string{timeText(e.Received), e.Kind, e.Model, e.Message})
		}
		grid(w, []string{"received", "kind", "model", "message"}, rows)
	}
}

func lossesOf(d *operator.DeviceDetail) []operator.Loss {
	if d.Lost == nil {
		return nil
	}
	return []operator.Loss{*d.Lost}
}

func showDeviceModels(w io.Writer, d *operator.DeviceDetail) {
	if len(d.Models) == 0 {
		return
	}
	heading(w, "models")
	rows := [][]string{}
	for _, m := range d.Models {
		outcome := ""
		if m.Outcome != nil {
			outcome = strings.TrimSpace(m.Outcome.Result + " " + m.Outcome.Code)
		}
		rows = append(rows, []string{m.Model, refText(m.Active), refText(m.Desired), refText(m.Previous), m.State, outcome, m.Provider})
	}
	grid(w, []string{"model", "active", "desired", "previous", "state", "last update", "provider"}, rows)
	showTried(w, d.Models)
	for _, m := range d.Models {
		if m.Waiting != "" {
			fmt.Fprintf(w, "%s waits: %s\n", m.Model, m.Waiting)
		}
		if c := m.Challenger; c != nil {
			showChallenger(w, c)
		}
	}
}

// showTried says what the last trial of each model measured on every execution
// provider of the device, and why it took the one it did.
func showTried(w io.Writer, models []operator.DeviceModel) {
	var rows [][]string
	for _, m := range models {
		if m.Trial == nil {
			continue
		}
		for _, t := range m.Trial.Tried {
			rows = append(rows, triedRow(m.Model, firstOf(m.Trial.Release.Version, m.Trial.Release.Release.Short()), &t))
		}
	}
	if len(rows) > 0 {
		heading(w, "trials")
		grid(w, []string{"model", "version", "variant", "provider", "result", "p95", "memory", "why"}, rows)
	}
}

func triedRow(model, version string, t *operator.Tried) []string {
	result := firstOf(t.Code, "passed")
	if t.Chosen {
		result = "chosen"
	}
	p95, memory := "-", "-"
	if t.P95US > 0 {
		p95 = (time.Duration(t.P95US) * time.Microsecond).String() //nolint:gosec // a device that lies here lies about itself
	}
	if t.PeakBytes > 0 {
		memory = bytesText(t.PeakBytes)
	}
	return []string{model, version, t.Variant, strings.TrimSuffix(t.Provider, "ExecutionProvider"), result, p95, memory, t.Message}
}

// showChallenger tells what runs beside a model's version on one device.
func showChallenger(w io.Writer, c *operator.Challenger) {
	what := fmt.Sprintf("%s beside it, %s, %s", firstOf(refText(c.Active), "-"), roleText(c.Role, c.Share), c.State)
	if c.Active == nil {
		what = fmt.Sprintf("no challenger yet, %s, %s", roleText(c.Role, c.Share), c.State)
	}
	if o := c.Outcome; o != nil && o.Code != "" {
		what += fmt.Sprintf(", last %s (%s)", o.Result, o.Code)
	}
	fmt.Fprintf(w, "%s: %s\n", c.Model, what)
	if c.Waiting != "" {
		fmt.Fprintf(w, "%s challenger waits: %s\n", c.Model, c.Waiting)
	}
}

func refText(r *operator.ReleaseRef) string {
	if r == nil {
		return "-"
	}
	return firstOf(r.Version, r.Release.Short())
}

func showTotals(w io.Writer, totals []operator.Total, lost []operator.Loss) {
	if len(totals) == 0 && len(lost) == 0 {
		none(w, "predictions reported yet")
		return
	}
	heading(w, "totals")
	rows := [][]string{}
	for _, t := range totals {
		rows = append(rows, []string{
			t.Device, t.Model, firstOf(t.Version, t.Release.Short()), count(t.Rows), count(t.FailedRows), count(t.Labels), count(t.Matched), share(t.Correct, t.Matched),
		})
	}
	grid(w, []string{"device", "model", "version", "rows", "failed", "labels", "matched", "accuracy"}, rows)
	for _, l := range lost {
		more := ""
		if l.Unknown {
			more = ", and perhaps more"
		}
		fmt.Fprintf(w, "lost on %s: %d records with %d rows and %d labels%s\n", l.Device, l.Records, l.Rows, l.Labels, more)
	}
}

func deviceTotals(a *app) *cobra.Command {
	var q operator.TotalQuery
	cmd := &cobra.Command{
		Use: "totals", Short: "Show what devices counted for each release, and what is lost",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			t, err := c.Totals(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(t, func(w io.Writer) { showTotals(w, t.Items, t.Lost) })
		},
	}
	cmd.Flags().StringVar(&q.Model, "model", "", "only this model")
	cmd.Flags().StringVar(&q.Device, "device", "", "only this device")
	return cmd
}

func deviceLabel(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "label DEVICE KEY=VALUE... [KEY-...] --reason TEXT", Short: "Set labels, or remove them with KEY-",
		Example: `  vedette device label cam-a1 site=b ring- --reason "moved to the other hall"`,
		Args:    args(cobra.MinimumNArgs(2)), ValidArgsFunction: a.complete(0, deviceNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			change := operator.LabelChange{Set: map[string]string{}, Reason: reason}
			for _, text := range given[1:] {
				key, value, set := strings.Cut(text, "=")
				switch {
				case set && key != "":
					change.Set[key] = value
				case !set && strings.HasSuffix(text, "-") && len(text) > 1:
					change.Remove = append(change.Remove, strings.TrimSuffix(text, "-"))
				default:
					return usagef("%q is neither KEY=VALUE nor KEY-", text)
				}
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			d, err := c.SetLabels(cmd.Context(), given[0], change)
			if err != nil {
				return err
			}
			return a.print(d, func(w io.Writer) { fmt.Fprintf(w, "%s  %s\n", d.ID, labelText(d.Labels)) })
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func deviceRevoke(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "revoke DEVICE --reason TEXT", Short: "Refuse a device from now on and cut its connection",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, deviceNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if err := c.RevokeDevice(cmd.Context(), given[0], operator.Reasoned{Reason: reason}); err != nil {
				return err
			}
			done := map[string]string{"device": given[0], "state": "revoked"}
			return a.print(done, func(w io.Writer) {
				fmt.Fprintf(w, "%s is revoked; it comes back only with a token made with --replace\n", given[0])
			})
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func deviceTap(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "tap DEVICE", Short: "Print what a device sends, decoded, as JSON lines, until Ctrl-C",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, deviceNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			a.remark("listening to %s; it speaks when it has something to say", given[0])
			return c.Tap(cmd.Context(), given[0], func(m operator.TapMessage) error { return writeLine(a.out, m) })
		},
	}
}

func deviceToken(a *app) *cobra.Command {
	return group("token", "Make, list and revoke the tokens that let devices in", "", enrolCreate(a), enrolList(a), enrolRevoke(a))
}

func enrolCreate(a *app) *cobra.Command {
	var c operator.EnrolTokenCreate
	var ttl time.Duration
	var root string
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token that lets a device, or several, enrol",
		Long: `Prints a token for "vedette-agent enrol". It carries the server's addresses, the
digest of the server's CA and the digest of this machine's root.json: a device
believes exactly the publishers that you believe, whatever the server says.`,
		Example: `  vedette device token create --device cam-a1 --label site=a
  vedette device token create --uses 50 --ttl 168h --label site=b`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.TTL = release.Duration(ttl)
			return a.createEnrolToken(cmd.Context(), c, root)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Device, "device", "", "id of the device (default: it proposes one)")
	f.StringToStringVar(&c.Labels, "label", nil, "label the device gets, KEY=VALUE (repeat)")
	f.DurationVar(&ttl, "ttl", 0, "how long the token is good (default 24h)")
	f.IntVar(&c.Uses, "uses", 0, "how many devices may use it (default 1)")
	f.BoolVar(&c.Replace, "replace", false, "it may take over the id of an existing device")
	f.StringVar(&c.DeviceAPI, "device-api", "", "https://host:port the device reaches the server at, if not the usual one")
	f.StringArrayVar(&c.MQTT, "mqtt", nil, "mqtts://host:port the device reaches the broker at, if not the usual one (repeat)")
	f.StringVar(&root, "root", "", "root.json to pin (default: that of the publisher's folder)")
	f.StringVar(&c.Reason, "reason", "", "why, for the ledger")
	return cmd
}

func (a *app) createEnrolToken(ctx context.Context, c operator.EnrolTokenCreate, root string) error {
	pin, err := a.pin(root)
	if err != nil {
		return err
	}
	api, err := a.connect()
	if err != nil {
		return err
	}
	secret, err := api.CreateEnrolToken(ctx, c)
	if err != nil {
		return err
	}
	text, err := tokenText(secret, pin)
	if err != nil {
		return err
	}
	result := struct {
		operator.EnrolToken

		Token string         `json:"token"`
		Root  release.Digest `json:"root"`
	}{secret.EnrolToken, text, pin}
	a.remark("token %s, good until %s for %d devices; run on the device: vedette-agent enrol TOKEN", secret.ID, timeText(secret.Expires), secret.Uses)
	return a.print(result, func(w io.Writer) { fmt.Fprintln(w, text) })
}

// pin is the digest of a root.json: a named one, or that of the publisher's
// folder.
func (a *app) pin(path string) (release.Digest, error) {
	if path != "" {
		b, err := readFile(path, maxSmallFile)
		return release.DigestOf(b), err
	}
	ring, err := a.keyring()
	if err != nil {
		return release.Digest{}, err
	}
	return ring.pin()
}

// tokenText joins what the server said with the root that the operator holds.
func tokenText(s *operator.EnrolSecret, pin release.Digest) (string, error) {
	t := protocol.EnrolmentToken{DeviceAPI: s.DeviceAPI, MQTT: s.MQTT, Root: pin, Secret: s.Secret, Expires: s.Expires}
	ca, err := hex.DecodeString(s.CASHA256)
	if err != nil || len(ca) != len(t.CA) {
		return "", operator.Errorf(operator.UnknownResponse, "the server's CA digest is malformed")
	}
	copy(t.CA[:], ca)
	text, err := t.Encode()
	if err != nil {
		return "", operator.Errorf(operator.Invalid, "%w", err)
	}
	return text, nil
}

func enrolList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List enrolment tokens", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			list, err := c.EnrolTokens(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { enrolTable(w, list, time.Now()) })
		},
	}
}

func enrolTable(w io.Writer, list []operator.EnrolToken, now time.Time) {
	if len(list) == 0 {
		none(w, "enrolment tokens")
		return
	}
	rows := [][]string{}
	for _, t := range list {
		state := "good"
		switch {
		case t.Revoked:
			state = "revoked"
		case now.After(t.Expires):
			state = "expired"
		case t.Uses == 0:
			state = "used"
		}
		rows = append(rows, []string{t.ID, t.Device, labelText(t.Labels), state, count(t.Uses), strings.Join(t.Used, " "), timeText(t.Expires), t.CreatedBy})
	}
	grid(w, []string{"token", "device", "labels", "state", "uses left", "used by", "expires", "made by"}, rows)
}

func enrolRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN", Short: "Take an enrolment token back", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return c.RevokeEnrolToken(cmd.Context(), given[0])
		},
	}
}
