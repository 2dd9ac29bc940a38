// Command vedette-control is Vedette's server: one process with its own broker
// and storage, that devices, operators and publishers talk to.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
	_ "time/tzdata" // windows of rollouts name zones, and a server may have no zoneinfo

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane"
	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/controlplane/tracking"
)

var version = "dev" // set by the build

// stopWithin bounds a clean stop. What a client has not finished by then is cut
// off; nothing stored depends on it.
const stopWithin = 20 * time.Second

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv("GOGC") == "" { // which goes before
		go paceCollections(ctx, time.Second)
	}
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "vedette-control:", err)
		return 1
	}
	return 0
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "vedette-control",
		Short: "Vedette's control plane",
		Long: `vedette-control is the server of a fleet: it registers signed models, staggers
rollouts, takes what devices report, watches drift and serves the operator API
and the dashboard. Everything it needs is in this one program; everything it
knows is in its data directory.`,
		SilenceUsage: true, SilenceErrors: true, Version: version,
	}
	root.AddCommand(serve(), repair())
	return root
}

func serve() *cobra.Command {
	var cfg controlplane.Config
	var level string
	var trackingGiB uint32
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the control plane until it is told to stop",
		Long: `Runs the control plane. The first start makes the data directory, the device
CA and the first admin token, which is left in DATA/admin-token.

GET /metrics on the --http address tells Prometheus how the fleet is; it asks for
an operator token, of which a viewer's is enough (authorization.credentials_file).`,
		Example: `  vedette-control run --data /var/lib/vedette-control --host fleet.example.com
  vedette login --server http://127.0.0.1:8480 --token-file /var/lib/vedette-control/admin-token`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(os.Stderr, level)
			if err != nil {
				return err
			}
			cfg.Version, cfg.Logger, cfg.TrackingBytes = version, log, uint64(trackingGiB)<<30
			return runServer(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Data, "data", "vedette-data", "directory for everything the server keeps")
	f.StringVar(&cfg.HTTP, "http", controlplane.DefaultHTTP, "address of the operator API and the dashboard")
	f.StringVar(&cfg.Devices, "devices", controlplane.DefaultDevices, "address of the HTTPS API for devices")
	f.StringVar(&cfg.MQTT, "mqtt", controlplane.DefaultMQTT, "address of the MQTT broker for devices")
	f.StringSliceVar(&cfg.Hosts, "host", nil, "name or address devices reach this server by (repeat; the first goes into tokens)")
	f.StringVar(&cfg.TLSCert, "tls-cert", "", "certificate of the operator API (PEM); without one it speaks plain HTTP")
	f.StringVar(&cfg.TLSKey, "tls-key", "", "key that belongs to --tls-cert (PEM)")
	f.StringVar(&cfg.Drift.CohortBy, "cohort-by", "", "device label that makes a cohort (default site)")
	f.DurationVar(&cfg.Drift.MaxAge, "drift-max-age", 0, "how far back windows count for a verdict (default 24h)")
	f.DurationVar(&cfg.Drift.Block, "drift-block", 0, "length of one confidence sequence of accuracy (default 1h)")
	f.DurationVar(&cfg.Drift.Bucket, "drift-bucket", 0, "resolution of the charts (default 1m)")
	f.DurationVar(&cfg.EvaluateEvery, "drift-every", controlplane.DefaultEvaluate, "how often drift is scored")
	f.Uint32Var(&trackingGiB, "tracking-max-gib", tracking.DefaultMaxBytes>>30, "most that is kept of runs and models, artifacts not counted; beyond it nothing more is logged")
	f.StringVar(&level, "log", "info", "log level: debug, info, warn, error")
	cmd.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	return cmd
}

func repair() *cobra.Command {
	var cfg controlplane.Config
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Mend a stopped control plane that refuses to start",
		Long: `Mends a control plane that says its checkpoints do not fit the uplink stream, as
after a backup of which a part is missing, or that a message of it cannot be
read. Restore a whole backup if there is one: what devices reported and counted
before the oldest message that is left, or up to the newest that cannot be read,
is given up. Models, rollouts, devices and their certificates stay as they are.
A damaged ledger or bucket cannot be mended: only a backup helps.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(cfg.Data); err != nil {
				return fmt.Errorf("find the control plane's data: %w", err)
			}
			done, err := controlplane.Repair(cmd.Context(), cfg)
			for _, r := range done {
				fmt.Fprintf(cmd.OutOrStdout(), "%s begins anew: %s\n", r.Fold, r.Reason)
			}
			if err == nil && len(done) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "there is nothing to repair")
			}
			return err
		},
	}
	cmd.Flags().StringVar(&cfg.Data, "data", "vedette-data", "directory for everything the server keeps")
	return cmd
}

func logger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: choose debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// runServer runs until ctx ends or the server cannot go on.
func runServer(ctx context.Context, cfg controlplane.Config, out io.Writer) error {
	server, err := controlplane.New(cfg)
	if err != nil {
		return err
	}
	if err := server.Start(ctx); err != nil {
		return errors.Join(err, stopServer(server))
	}
	at := server.Addr()
	scheme := "http"
	if cfg.TLSCert != "" {
		scheme = "https"
	}
	fmt.Fprintf(out, "dashboard and API  %s://%s\ndevices            https://%s, mqtt %s\nadmin token        %s\n",
		scheme, at.HTTP, at.Devices, at.MQTT, filepath.Join(cfg.Data, access.AdminTokenFile))
	select {
	case <-ctx.Done():
		return stopServer(server)
	case err := <-server.Failed():
		return errors.Join(err, stopServer(server))
	}
}

func stopServer(server *controlplane.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	return server.Stop(ctx)
}
