// Package trust decides which releases a device may run. It is The Update
// Framework (TUF 1.0.31, through go-tuf v2) with one kind of target: the
// manifest of a release. The files of a release follow from its manifest by
// digest and need no signature of their own.
//
// # Parties
//
//   - Publishers hold the root and targets keys, offline, m of n. They say which
//     releases exist and from which sequence on a model may run (the floor).
//   - A CI system may hold the keys of one model's delegated role. It says which
//     releases of that model exist beside those of the targets, and nothing else.
//   - The control plane holds the snapshot and timestamp keys, online. It says
//     which of the publishers' statements is the newest, and nothing else.
//   - A device holds no key. It holds the SHA-256 of one root.json, which came
//     with its enrolment token from the operator's own copy: not from the server.
//   - The network between them is nobody's.
//
// # What signs what
//
//	root (m of n, offline)      → the keys and thresholds of all roles; the next root
//	                              is signed by the old threshold and by its own
//	targets (m of n, offline)   → manifest path, length, SHA-256, {model, version,
//	                              sequence}; the floor of each model; for some models
//	                              the keys and threshold of a delegated role
//	model-NAME (m of n, in CI)  → the same about releases of the model NAME; no floor,
//	                              no other model, no delegation of its own
//	snapshot (online)           → version, length and SHA-256 of targets and of every
//	                              delegated role
//	timestamp (online, short)   → version, length and SHA-256 of snapshot
//
// # What follows
//
// Whoever takes over the control plane can move devices among releases that
// publishers signed and that are not below the floor, and can withhold news
// until the timestamp expires. It cannot bring an unsigned release, one that
// publishers removed, or one below the floor, and cannot go back to older
// metadata. Whoever holds fewer than m targets keys can do nothing. Whoever holds
// the keys of a delegated role can bring releases of its one model, not below the
// floor, until publishers take the role away; what the role lists then counts no
// longer, except what targets list themselves. Trouble with one role's file (it
// expired, is damaged, is withheld) touches new releases of its model only.
//
// A device refuses: metadata older than it has seen, expired metadata, a wrong
// length, hash, key or signature, a root that does not lead back to its pin, a
// release that is not listed or below the highest floor it has seen. A release
// that was once accepted stays usable offline, also when metadata has expired,
// unless publishers remove it or raise the floor above it.
package trust

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Reasons to refuse. Each error wraps exactly one of them.
var (
	// ErrUnknownRelease says that no signed targets list the release.
	ErrUnknownRelease = errors.New("release is not signed by the publishers")
	// ErrBelowFloor says that publishers withdrew all releases of the model up to
	// one that is newer.
	ErrBelowFloor = errors.New("release is below the floor that the publishers signed")
	// ErrExpired says that metadata is too old to be believed: either the server
	// withholds news, or nobody has signed for too long, or the clock is wrong.
	ErrExpired = errors.New("metadata has expired")
	// ErrRollback says that the server offers older metadata than was seen before.
	ErrRollback = errors.New("metadata is older than what was seen before")
	// ErrSignature says that too few of the right keys signed.
	ErrSignature = errors.New("metadata is not signed by enough of the right keys")
	// ErrRoot says that the server has no root that leads back to the pinned one.
	ErrRoot = errors.New("root metadata does not match the pinned digest")
	// ErrTampered says that length or hash differ from what was signed.
	ErrTampered = errors.New("content differs from what was signed")
	// ErrMalformed says that bytes are not TUF metadata of the expected kind.
	ErrMalformed = errors.New("not readable as metadata")
	// ErrNotDelegated says that a role states what is not its to state, or that
	// the targets delegate nothing to it.
	ErrNotDelegated = errors.New("not delegated to this role")
	// ErrUnavailable says that metadata could not be fetched; worth a retry.
	ErrUnavailable = errors.New("metadata is not available")
	// ErrUnchecked says that the release is new to this device and metadata has
	// not been refreshed since it started; worth a retry.
	ErrUnchecked = errors.New("release was never accepted here and metadata was not refreshed since the start")
	// ErrNotFound is what a Fetcher answers when the server has no such metadata.
	ErrNotFound = errors.New("no such metadata")
)

// Limits of what is read, in bytes. A targets entry is about 400 bytes, so there
// is room for some 2,500 releases; a value of this size still fits a message.
const (
	MaxRoot      = 64 << 10
	MaxOnline    = 32 << 10 // timestamp, snapshot
	MaxTargets   = 1 << 20
	MaxDelegated = 256 << 10 // one model's role
	maxNewRoots  = 256       // in one refresh
)

// floorsField is the signed field of targets metadata that states the floors.
// TUF lets a repository add fields; a client that does not know them keeps them.
const floorsField = "vedette_floors"

// Fetcher reads metadata from the server. Names are "root.N", "timestamp",
// "snapshot.N", "targets.N" and "model-NAME.N", with N the version: a server keeps a few old
// versions, so a device that is in the middle of a refresh is not disturbed. It
// returns at most limit bytes, and an error that wraps ErrNotFound when the
// server has no such metadata.
type Fetcher interface {
	Metadata(ctx context.Context, name string, limit int64) ([]byte, error)
}

// Target is one release as signed by the publishers.
type Target struct {
	Model    string         `json:"model"`
	Version  string         `json:"version"`
	Sequence uint64         `json:"sequence"`
	Digest   release.Digest `json:"digest"`
	Length   int64          `json:"length"` // of the manifest in bytes
}

// Path is the target's path.
func (t Target) Path() string { return TargetPath(t.Model, t.Digest) }

// TargetPath is the path of a manifest among the targets.
func TargetPath(model string, d release.Digest) string { return model + "/" + d.String() + ".json" }

// TargetOf is the target that a manifest makes.
func TargetOf(m *release.Manifest) (Target, error) {
	b, err := m.Encode()
	if err != nil {
		return Target{}, err
	}
	return Target{Model: m.Model, Version: m.Version, Sequence: m.Sequence, Digest: release.DigestOf(b), Length: int64(len(b))}, nil
}

// Targets is what a targets file states. It is as trustworthy as the bytes it
// was read from.
type Targets struct {
	Model       string // of a delegated role; empty for the targets role itself
	Version     int64
	Expires     time.Time
	Floors      map[string]uint64 // by model: lowest sequence that may run
	Delegations []Delegation      // by model
	Releases    []Target          // by model, then sequence
}

// ReadTargets reads a targets file, or that of a delegated role, without
// verifying its signatures. Every entry must be a release; versions and
// sequences must be unique per model.
func ReadTargets(b []byte) (*Targets, error) {
	m, err := parse[metadata.TargetsType](b, MaxTargets)
	if err != nil {
		return nil, err
	}
	return readTargets(m)
}

func readTargets(m *metadata.Metadata[metadata.TargetsType]) (*Targets, error) {
	t, odd, err := listTargets(m)
	if err != nil {
		return nil, err
	}
	if len(odd) > 0 {
		return nil, odd[0]
	}
	return t, checkUnique(t.Releases)
}

// checkUnique refuses two releases of one model with the same version name or
// the same sequence.
func checkUnique(releases []Target) error {
	names, sequences := map[string]bool{}, map[string]bool{}
	for _, r := range releases {
		name, seq := r.Model+" "+r.Version, fmt.Sprintf("%s %d", r.Model, r.Sequence)
		if names[name] || sequences[seq] {
			return fmt.Errorf("%w: targets list %s %s (sequence %d) twice", ErrMalformed, r.Model, r.Version, r.Sequence)
		}
		names[name], sequences[seq] = true, true
	}
	return nil
}

// listTargets reads what this program understands and returns the rest as odd:
// a device skips entries of a kind that it does not know yet.
func listTargets(m *metadata.Metadata[metadata.TargetsType]) (t *Targets, odd []error, err error) {
	t = &Targets{Version: m.Signed.Version, Expires: m.Signed.Expires}
	if t.Model, err = roleModel(m.Signed.UnrecognizedFields[roleField]); err != nil {
		return nil, nil, err
	}
	if t.Floors, err = readFloors(m.Signed.UnrecognizedFields[floorsField]); err != nil {
		return nil, nil, err
	}
	if t.Delegations, odd, err = readDelegations(m.Signed.Delegations); err != nil {
		return nil, nil, err
	}
	for _, path := range slices.Sorted(maps.Keys(m.Signed.Targets)) {
		r, err := readTarget(path, m.Signed.Targets[path])
		if err != nil {
			odd = append(odd, err)
			continue
		}
		t.Releases = append(t.Releases, r)
	}
	slices.SortFunc(t.Releases, compareTargets)
	return t, odd, t.checkScope(m.Signed.Delegations != nil)
}

func compareTargets(a, b Target) int {
	if c := strings.Compare(a.Model, b.Model); c != 0 {
		return c
	}
	if a.Sequence != b.Sequence {
		return map[bool]int{true: -1, false: 1}[a.Sequence < b.Sequence]
	}
	return slices.Compare(a.Digest[:], b.Digest[:])
}

// custom is what publishers sign about a release beside its path.
type custom struct {
	Model    string `json:"model"`
	Version  string `json:"version"`
	Sequence uint64 `json:"sequence"`
}

func readTarget(path string, f *metadata.TargetFiles) (Target, error) {
	if f == nil || f.Custom == nil {
		return Target{}, fmt.Errorf("%w: target %q states no model", ErrMalformed, path)
	}
	var c custom
	if err := json.Unmarshal(*f.Custom, &c); err != nil {
		return Target{}, fmt.Errorf("%w: target %q: %w", ErrMalformed, path, err)
	}
	d, err := release.DigestFromBytes(f.Hashes["sha256"])
	if err != nil {
		return Target{}, fmt.Errorf("%w: target %q: %w", ErrMalformed, path, err)
	}
	if err := errors.Join(protocol.CheckName(c.Model), protocol.CheckName(c.Version)); err != nil {
		return Target{}, fmt.Errorf("%w: target %q: %w", ErrMalformed, path, err)
	}
	t := Target{Model: c.Model, Version: c.Version, Sequence: c.Sequence, Digest: d, Length: f.Length}
	if path != t.Path() || t.Sequence < 1 || t.Sequence > release.MaxSequence || t.Length < 1 || t.Length > release.MaxManifest {
		return Target{}, fmt.Errorf("%w: target %q does not fit what it states about itself", ErrMalformed, path)
	}
	return t, nil
}

func readFloors(field any) (map[string]uint64, error) {
	floors := map[string]uint64{}
	if field == nil {
		return floors, nil
	}
	b, err := json.Marshal(field)
	if err != nil {
		return nil, fmt.Errorf("%w: floors: %w", ErrMalformed, err)
	}
	if err := json.Unmarshal(b, &floors); err != nil {
		return nil, fmt.Errorf("%w: floors: %w", ErrMalformed, err)
	}
	for model, seq := range floors {
		if err := protocol.CheckName(model); err != nil || seq > release.MaxSequence {
			return nil, fmt.Errorf("%w: floor of %q is %d", ErrMalformed, model, seq)
		}
	}
	return floors, nil
}
