package incident

// Told is what a receiver knows of an incident.
type Told struct {
	Phase  Phase  `json:"phase"`
	AtMS   int64  `json:"at_ms"`  // when the message was made
	Notice string `json:"notice"` // its id
}

// Phase is what a message says of an incident.
type Phase string

// Phases.
const (
	PhaseOpen     Phase = "open"
	PhaseReminder Phase = "reminder" // it still stands
	PhaseResolved Phase = "resolved"
)
