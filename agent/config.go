// Package agent assembles the device side of Vedette: identity, update, serving,
// observation and uplink, joined by the small interfaces each stage states. It
// is the only place that knows them all, and decides nothing itself.
package agent

import (
	"errors"
	"log/slog"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/update"
)

// ErrRestart is returned by Run when the process has to be replaced: a call or a
// load in the runtime hangs and cannot be cancelled. What is to blame is journaled,
// so the next start serves the release before it. Exec yourself, or let the
// supervisor start you again.
var ErrRestart = errors.New("the agent has to be restarted: the runtime hangs")

// Config of an Agent. State and Runtime are required.
type Config struct {
	// State is the directory that holds everything the agent keeps. The device
	// must have enrolled into it.
	State string
	// Runtime computes the graphs.
	Runtime infer.Runtime
	// TrialArgs are the arguments with which this program runs a trial as a
	// child process.
	TrialArgs []string

	// Listen and Socket are where predictions are served: host:port (empty for
	// serve.DefaultListen, "-" for none) and the path of a Unix socket.
	Listen, Socket string
	// GRPC and GRPCSocket are where they are served over gRPC: host:port (empty or
	// "-" for none) and the path of a Unix socket.
	GRPC, GRPCSocket string
	// Calls bounds the calls of every model that Models does not name.
	Calls  infer.Limits
	Models map[string]infer.Limits
	// Traces is the URL of an OpenTelemetry collector, empty for none.
	Traces string
	// Profile names the firmware profile; empty matches one to the device. It says
	// what the agent takes of the device where the next two and Calls.Concurrency are zero, and which
	// execution providers are tried first.
	Profile string
	// Metered says whether the link is billed by volume: MeteredAuto (or empty),
	// protocol.MeteredYes or protocol.MeteredNo.
	Metered string
	// MemoryBudget bounds the bytes all models may take together.
	MemoryBudget uint64
	// OutboxBytes bounds what waits for the network.
	OutboxBytes int
	// Limits of updates, update.DefaultLimits when zero.
	Limits update.Limits
	// Serving is called once, when what was active before serves again and
	// predictions are answered; nil is told nothing.
	Serving func()
	// Version of the build.
	Version string
	// Logger takes what happens; nil discards.
	Logger *slog.Logger
}

// MeteredAuto leaves it to the kernel to know whether the link is metered.
const MeteredAuto = "auto"

// Names of what the agent keeps below Config.State.
const (
	identityDir = "identity"
	trustDir    = "trust"
	ringDir     = "predictions"
	outboxFile  = "outbox.db"
)

// IdentityDir is where a device's identity lies below its state directory.
const IdentityDir = identityDir

// LockFile is what a running agent holds locked (flock(2)) in its state directory.
const LockFile = outboxFile + ".lock"
