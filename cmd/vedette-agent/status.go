package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/serve"
	"github.com/vedette-edge/vedette/protocol"
)

// maxStatus bounds what is read of an agent's status, in bytes.
const maxStatus = 4 << 20

// statusTimeout is long for a loopback address and short for a person.
const statusTimeout = 5 * time.Second

func (a *app) statusCommand() *cobra.Command {
	var listen, socket string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the agent on this device serves and reports",
		Long: `status asks the running agent what it serves, whether it is connected, how much
waits to be sent and how the last updates ended. The agent answers on its local
address or on its socket.`,
		Example: "  vedette-agent status\n  vedette-agent status --socket /run/vedette/agent.sock -o json",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := fetchStatus(cmd.Context(), listen, socket)
			if err != nil {
				return err
			}
			return a.print(st, func(w io.Writer) error { return writeStatus(w, st) })
		},
	}
	cmd.Flags().StringVar(&listen, "listen", serve.DefaultListen, "address of the agent")
	cmd.Flags().StringVar(&socket, "socket", "", "socket of the agent, instead of its address")
	return cmd
}

func fetchStatus(ctx context.Context, listen, socket string) (*serve.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if socket != "" {
			network, address = "unix", socket
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/status", http.NoBody)
	if err != nil {
		return nil, usagef("--listen %q: %w", listen, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w; is it running (vedette-agent run), and at this address?", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the agent: it answered %s; is this address really an agent's?", resp.Status)
	}
	st := &serve.Status{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(st); err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	return st, nil
}

func writeStatus(out io.Writer, st *serve.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "agent\t%s\n", st.Version)
	fmt.Fprintf(w, "runtime\t%s %s\n", st.Runtime.Name, st.Runtime.Version)
	if ag := st.Agent; ag != nil {
		fmt.Fprintf(w, "device\t%s, start %d%s\n", ag.Device, ag.BootCount, unclean(ag))
		fmt.Fprintf(w, "link\t%s\n", protocol.MeteredText(ag.Metered))
		fmt.Fprintf(w, "power\t%s\n", protocol.PowerText(ag.Power, ag.Battery))
		fmt.Fprintf(w, "time zone\t%s\n", cmp.Or(ag.TimeZone, "not known"))
		fmt.Fprintf(w, "control plane\t%s\n", link(&ag.Uplink))
		fmt.Fprintf(w, "waiting\t%d records to be numbered, %d to be acknowledged, %s\n", ag.Outbox.Pending, ag.Outbox.Sent, size(ag.Outbox.Bytes))
		if ag.Outbox.Error != "" {
			fmt.Fprintf(w, "disk\t%s\n", ag.Outbox.Error)
		}
	}
	if len(st.Models) == 0 {
		fmt.Fprintln(w, "models\tnone is served")
	} else {
		fmt.Fprintln(w, "\nMODEL\tVERSION\tRELEASE\tPROVIDER\tCALLS\tROWS\tFAILED\tSINCE")
	}
	for _, m := range st.Models {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", m.Model, m.Version, m.Release.Short(), m.Provider, m.Calls, m.Rows, m.Failed, m.Since.Local().Format(time.DateTime))
	}
	if len(st.Challengers) > 0 {
		fmt.Fprintln(w, "\nCHALLENGER\tVERSION\tRELEASE\tPART\tCALLS\tROWS\tFAILED\tSKIPPED\tSINCE")
	}
	for _, m := range st.Challengers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", m.Model, m.Version, m.Release.Short(), part(&m), m.Calls, m.Rows, m.Failed, m.Skipped, m.Since.Local().Format(time.DateTime))
	}
	if st.Agent != nil && len(st.Agent.Updates) > 0 {
		fmt.Fprintln(w, "\nUPDATE\tSTATE\tFOR\tLAST RESULT")
		for _, u := range st.Agent.Updates {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", u.Model, u.State, time.Duration(u.ForMs)*time.Millisecond, result(u)) //nolint:gosec // a time since the start
		}
		for _, u := range st.Agent.Updates {
			if u.Waiting != "" {
				fmt.Fprintf(w, "\n%s waits: %s\n", u.Model, u.Waiting)
			}
		}
	}
	return w.Flush()
}

// part is what a challenger takes part in.
func part(m *infer.Status) string {
	return fmt.Sprintf("%s of %g%%", m.Role, float64(m.Share)/10)
}

func unclean(a *serve.Agent) string {
	if a.Unclean {
		return "; the one before ended without a clean stop"
	}
	return ""
}

func link(u *serve.Uplink) string {
	since := ""
	if !u.Since.IsZero() {
		since = " since " + u.Since.Local().Format(time.DateTime)
	}
	switch {
	case u.Connected:
		return "connected" + since
	case u.Error != "":
		return "not connected" + since + ": " + u.Error
	}
	return "not connected" + since
}

func result(u serve.Update) string {
	text := u.Result
	if u.Code != "" {
		text += " (" + u.Code + ")"
	}
	if u.Message != "" {
		text += ": " + u.Message
	}
	return text
}

// size is a number of bytes for people.
func size(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
