package serve

import (
	"net/http"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
)

// Status is the answer of GET /status.
type Status struct {
	Version string            `json:"version"` // of the agent
	Runtime infer.RuntimeInfo `json:"runtime"`
	Models  []infer.Status    `json:"models"`
	// Challengers run beside the models.
	Challengers []infer.Status `json:"challengers,omitempty"`
	Agent       *Agent         `json:"agent,omitempty"`
}

// Agent is what the status says beyond serving.
type Agent struct {
	Device     string   `json:"device"`
	BootCount  uint64   `json:"boot_count"`
	Unclean    bool     `json:"unclean"` // the boot before ended without a clean stop
	Generation uint64   `json:"generation"`
	Metered    string   `json:"metered,omitempty"`   // the link is billed by volume: yes, no; empty for not known
	Power      string   `json:"power,omitempty"`     // mains, battery; empty for not known
	Battery    int      `json:"battery,omitempty"`   // percent, 0 also when there is none
	TimeZone   string   `json:"time_zone,omitempty"` // IANA name, empty for not known
	Uplink     Uplink   `json:"uplink"`
	Outbox     Outbox   `json:"outbox"`
	Updates    []Update `json:"updates"`
	Fetch      Fetch    `json:"fetch"`
}

// Fetch is what did not have to be fetched since the start.
type Fetch struct {
	Copied       uint64 `json:"copied"`        // files that another release here has too
	Deltas       uint64 `json:"deltas"`        // files made by a delta
	DeltasFailed uint64 `json:"deltas_failed"` // deltas in whose place the whole file was fetched
	SavedBytes   uint64 `json:"saved_bytes"`
}

// Uplink is the connection to the control plane.
type Uplink struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"` // of the present state, zero when not known
	Error     string    `json:"error,omitempty"`
	Code      string    `json:"code,omitempty"` // names the error; stable
}

// Outbox is what waits to be sent.
type Outbox struct {
	Open    uint64 `json:"open"`    // windows that count still
	Pending uint64 `json:"pending"` // records without a number
	Sent    uint64 `json:"sent"`    // records waiting for their acknowledgement
	Bytes   uint64 `json:"bytes"`
	Limit   uint64 `json:"limit_bytes"`     // of Bytes; windows are merged before
	Merged  uint64 `json:"merged"`          // windows merged to save room, since the start
	Error   string `json:"error,omitempty"` // why the disk takes nothing more
}

// Update is the update machine of one model. Digests are hex, empty for none.
type Update struct {
	Model    string `json:"model"`
	State    string `json:"state"`
	ForMs    uint64 `json:"for_ms"`
	Active   string `json:"active,omitempty"`
	Previous string `json:"previous,omitempty"`
	Target   string `json:"target,omitempty"`
	Done     uint64 `json:"done_bytes,omitempty"`
	Total    uint64 `json:"total_bytes,omitempty"`
	Waiting  string `json:"waiting,omitempty"` // why the state does not move on
	Result   string `json:"result,omitempty"`  // of the last finished update
	Code     string `json:"code,omitempty"`
	Message  string `json:"message,omitempty"`
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) error {
	st := Status{Version: s.cfg.Version, Runtime: s.cfg.Runtime, Models: s.engine.Status()}
	if s.cfg.Challengers != nil {
		st.Challengers = s.cfg.Challengers()
	}
	if s.cfg.Agent != nil {
		st.Agent = s.cfg.Agent()
	}
	writeJSON(w, http.StatusOK, st)
	return nil
}
