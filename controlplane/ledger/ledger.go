// Package ledger is the append-only record of every decision and every
// operator's action.
//
// Records belong to chains ("operator", "rollout.r-7"). Each one names the
// hash of the one before it in its chain, so nothing can be changed, removed or
// slipped in between without a trace; an hourly record in the chain "anchor"
// names the newest hash of every chain that grew, so that a chain cannot lose
// its end unseen either. An append states which record it follows and is
// refused with ErrConflict when another one was faster: the append itself is
// the commit of a decision.
//
// The broker keeps the records in one stream and syncs each before it answers.
// Verify needs no broker: it reads an export.
package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Limits of a record.
const (
	// MaxBody bounds a body in bytes that is kept in the record itself; a
	// larger one becomes a blob and the record keeps its digest.
	MaxBody = 256 << 10
	// MaxBlobBody bounds a body in bytes that is kept as a blob: it is read
	// into memory whole, by the server and by who verifies an export. The first
	// decision of a rollout states all its facts, some 700 bytes a device: this
	// is room for more than a million.
	MaxBlobBody = 1 << 30
	// MaxPacked bounds what a body has in bytes as it is stored, compressed.
	MaxPacked = 128 << 20
	// MaxChain bounds the name of a chain in bytes.
	MaxChain = 200
)

// What an append or a reader may be told.
var (
	// ErrConflict says that the chain has grown since the caller read it: read
	// it again and decide again.
	ErrConflict = errors.New("the ledger chain has grown since it was read")
	// ErrNotFound says that the chain has no records.
	ErrNotFound = errors.New("no such chain in the ledger")
	// ErrChain says that the name of a chain is not well formed.
	ErrChain = errors.New("chain must be tokens of a-z A-Z 0-9 _ and -, joined by dots")
	// ErrTooLarge says that a body is over MaxBlobBody or MaxPacked, or over
	// MaxBody and there is no blob store.
	ErrTooLarge = errors.New("ledger body is too large")
	// ErrGap says that the ledger does not reach to the sequence asked for: it is
	// not the ledger it was.
	ErrGap = errors.New("the ledger does not continue at that sequence")
)

// Any as the expected sequence appends after whatever is last: for notes that
// depend on nothing before them.
const Any = ^uint64(0)

// Chains with a meaning of their own.
const (
	ChainOperator = "operator" // what operators did
	ChainAnchor   = "anchor"   // the newest hash of each chain
)

// Record is one entry.
type Record struct {
	Chain string          `json:"chain"`
	Index uint64          `json:"index"`          // in its chain, first is 1
	Seq   uint64          `json:"seq"`            // in the whole ledger; given at append, not part of the hash
	At    time.Time       `json:"at"`             // server's clock, UTC, milliseconds
	Actor string          `json:"actor"`          // operator name, or the part of the control plane that decided
	Kind  string          `json:"kind"`           // what Body is, for example "rollout.step"
	Body  json.RawMessage `json:"body,omitempty"` // JSON; when Blob is set it may be absent
	Blob  string          `json:"blob,omitempty"` // SHA-256 of a body that the ledger keeps as a blob, hex
	Prev  string          `json:"prev"`           // Hash of the record before it in the chain, "" for none
	Hash  string          `json:"hash"`           // SHA-256 over the canonical bytes, hex

	packed string // SHA-256 of the blob that holds the body compressed, hex; "" where the blob is the body itself
}

// Decode fills v from the body.
func (r *Record) Decode(v any) error {
	if err := json.Unmarshal(r.Body, v); err != nil {
		return fmt.Errorf("read ledger record %d (%s): %w", r.Seq, r.Kind, err)
	}
	return nil
}

// Blobs keeps bodies over MaxBody.
type Blobs interface {
	// PutBytes stores data, of MaxPacked bytes at most, durably under its SHA-256.
	PutBytes(ctx context.Context, data []byte) error
	// GetBytes returns what was stored under a SHA-256 in hex.
	GetBytes(ctx context.Context, sha256hex string) ([]byte, error)
}

// canonical are the bytes that the hash is over: a domain, then every field but
// Seq and Hash, each with its length before it, so that no two records share
// them. Body is in compact form: white space has no meaning.
func canonical(r *Record) []byte {
	var index [8]byte
	binary.BigEndian.PutUint64(index[:], r.Index)
	body := []byte(r.Body)
	if r.Blob != "" {
		body = nil
	}
	out := []byte("vedette ledger v1\n")
	for _, field := range [][]byte{
		[]byte(r.Chain), index[:], []byte(stamp(r.At)), []byte(r.Actor), []byte(r.Kind),
		body, []byte(r.Blob), []byte(r.Prev),
	} {
		out = binary.BigEndian.AppendUint64(out, uint64(len(field)))
		out = append(out, field...)
	}
	return out
}

func hashOf(r *Record) string { return sum(canonical(r)) }

// sum is the SHA-256 of data in hex.
func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

var chainName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

func checkChain(chain string) error {
	if len(chain) > MaxChain || !chainName.MatchString(chain) {
		return fmt.Errorf("%w: %.80q", ErrChain, chain)
	}
	return nil
}
