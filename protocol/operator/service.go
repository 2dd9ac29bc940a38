package operator

import (
	"context"
	"io"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Reader is the whole read side of the API: what pages and lists are made from.
type Reader interface {
	DeviceReader
	ModelReader
	ChallengeReader
	RolloutReader
	DriftReader
	TrendReader
	RetrainReader
	IncidentReader
	ValidationReader
	PromotionReader
	LineageReader
	RunReader
	LedgerReader
	TruthReader
	SampleReader
	TokenReader
	ServerReader
	Follower
}

// Commander is the whole command side of the API.
type Commander interface {
	DeviceCommander
	ModelCommander
	ChallengeCommander
	RolloutCommander
	RetrainCommander
	TruthCommander
	IncidentCommander
	ValidationCommander
	PromotionCommander
	EnrolCommander
	TokenCommander
	SettingsCommander
}

// DeviceReader reads the fleet.
type DeviceReader interface {
	Devices(ctx context.Context, q DeviceQuery) (*Page[Device], error)
	Device(ctx context.Context, id string) (*DeviceDetail, error)
	Totals(ctx context.Context, q TotalQuery) (*Totals, error)
}

// DeviceCommander changes operator-owned facts of devices.
type DeviceCommander interface {
	SetLabels(ctx context.Context, id string, c LabelChange) (*Device, error)
	RevokeDevice(ctx context.Context, id string, c Reasoned) error
}

// ModelReader reads the registry. A version is named by its name or by the hex
// of its release digest.
type ModelReader interface {
	Models(ctx context.Context) ([]Model, error)
	Model(ctx context.Context, name string) (*ModelDetail, error)
	Version(ctx context.Context, model, version string) (*VersionDetail, error)
}

// ModelCommander changes the registry without signatures.
type ModelCommander interface {
	SetStage(ctx context.Context, model, version string, c StageChange) (*Version, error)
}

// ChallengeReader reads which versions run beside the primary ones. Challenges
// lists those that go on; Challenge is a model's newest, ended or not.
type ChallengeReader interface {
	Challenges(ctx context.Context) ([]Challenge, error)
	Challenge(ctx context.Context, model string) (*ChallengeDetail, error)
}

// ChallengeCommander puts versions beside the primary ones.
type ChallengeCommander interface {
	SetChallenge(ctx context.Context, model string, c ChallengeCreate) (*Challenge, error)
	EndChallenge(ctx context.Context, model string, r Reasoned) (*Challenge, error)
}

// BlobStore takes uploads. A chunk starts at the offset held; the last one
// makes the blob complete, when its content is what the digest says.
type BlobStore interface {
	BlobStatus(ctx context.Context, d release.Digest) (*Upload, error)
	UploadChunk(ctx context.Context, d release.Digest, size, offset int64, chunk io.Reader) (*Upload, error)
}

// TrustStore is the server's TUF repository as publishers see it.
type TrustStore interface {
	Trust(ctx context.Context) (*Trust, error)
	TrustMetadata(ctx context.Context, name string) ([]byte, error) // "root", "root.3", "targets", "snapshot", "timestamp"
	InstallRoot(ctx context.Context, u RootUpload) (*Trust, error)
	Publish(ctx context.Context, u TargetsUpload) (*Published, error)
}

// RolloutReader reads rollouts. Decisions are those of its ledger chain, newest
// first.
type RolloutReader interface {
	Rollouts(ctx context.Context, q RolloutQuery) (*Page[RolloutSummary], error)
	Rollout(ctx context.Context, id string) (*Rollout, error)
	RolloutDevices(ctx context.Context, id string, q RolloutDeviceQuery) (*Page[WaveDevice], error)
	RolloutDevice(ctx context.Context, id, device string) (*WaveDevice, error)
	RolloutDecisions(ctx context.Context, id string, p Paging) (*Page[Decision], error)
	ExplainRollout(ctx context.Context, id string) (*Explanation, error)
	PlanRollout(ctx context.Context, s RolloutSpec) (*Plan, error)
}

// RolloutCommander makes and drives rollouts.
type RolloutCommander interface {
	CreateRollout(ctx context.Context, c RolloutCreate) (*Rollout, error)
	ActOnRollout(ctx context.Context, id string, a RolloutAction) (*Rollout, error)
}

// DriftReader reads what the fleet observes.
type DriftReader interface {
	LevelReader

	Drift(ctx context.Context, model string) (*Drift, error)
	Alarms(ctx context.Context, q AlarmQuery) (*Page[Alarm], error)
	Quality(ctx context.Context, q QualityQuery) (*Quality, error)
}

// LedgerReader reads the ledger. ExportLedger writes it as JSON lines, the form
// that can be verified offline.
type LedgerReader interface {
	Ledger(ctx context.Context, q LedgerQuery) (*Page[LedgerRecord], error)
	ExportLedger(ctx context.Context, w io.Writer) error
}

// EnrolCommander makes and revokes enrolment tokens.
type EnrolCommander interface {
	CreateEnrolToken(ctx context.Context, c EnrolTokenCreate) (*EnrolSecret, error)
	RevokeEnrolToken(ctx context.Context, id string) error
}

// TokenReader lists tokens, without secrets.
type TokenReader interface {
	EnrolTokens(ctx context.Context) ([]EnrolToken, error)
	Tokens(ctx context.Context) ([]Token, error)
}

// TokenCommander makes and revokes operator tokens.
type TokenCommander interface {
	CreateToken(ctx context.Context, c TokenCreate) (*TokenSecret, error)
	RevokeToken(ctx context.Context, id string) error
}

// SettingsCommander changes what is asked of all devices.
type SettingsCommander interface {
	SetSettings(ctx context.Context, s Settings) (*Settings, error)
}

// ServerReader reads the control plane itself and the fleet at a glance.
type ServerReader interface {
	Server(ctx context.Context) (*ServerInfo, error)
	Overview(ctx context.Context) (*Overview, error)
	Settings(ctx context.Context) (*Settings, error)
}

// Follower tells changes as they happen, until ctx ends or fn returns an
// error. Kinds selects kinds of events, none selects all; after continues
// behind that event where the server still knows it, and otherwise starts
// with one event per kind whose subject is empty: read all again.
type Follower interface {
	Follow(ctx context.Context, kinds []string, after uint64, fn func(Event) error) error
	Tap(ctx context.Context, device string, fn func(TapMessage) error) error
}
