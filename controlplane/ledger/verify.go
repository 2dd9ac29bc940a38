package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// maxLine bounds one line of an export: a body, and room for the other fields
// and for escaping.
const maxLine = 4 * MaxBody

// ErrTampered says that an export is not the ledger as it was written.
var ErrTampered = errors.New("the ledger does not verify")

// Summary is what a verified export holds.
type Summary struct {
	Records  uint64 // all
	Chains   int
	Anchors  uint64 // records of the anchor chain
	Anchored uint64 // highest sequence an anchor vouches for; the ends of chains after it could be cut unseen
	// Loose counts the records above Anchored that are not anchors themselves.
	Loose uint64
	// AnchoredAt is when the last record was written, if that is an anchor, as in
	// every export that has its end; otherwise zero.
	AnchoredAt time.Time
	Blobs      uint64 // records whose body is a blob: its digest is verified, its content is not in the export
}

// Verify reads an export and returns an error that names the first record that
// does not fit, or nil.
func Verify(r io.Reader) error {
	_, err := Audit(r)
	return err
}

// Audit is Verify that also says what it saw.
func Audit(r io.Reader) (Summary, error) {
	a := audit{chains: map[string][]link{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for n := 1; lines.Scan(); n++ {
		if err := a.line(lines.Bytes()); err != nil {
			return a.Summary, fmt.Errorf("%w: line %d: %w", ErrTampered, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return a.Summary, fmt.Errorf("read ledger export after record %d: %w", a.Records, err)
	}
	a.Chains = len(a.chains)
	a.Loose = a.loose()
	return a.Summary, nil
}

func (a *audit) loose() (n uint64) {
	for name, chain := range a.chains {
		for _, l := range chain {
			if l.seq > a.Anchored && name != ChainAnchor {
				n++
			}
		}
	}
	return n
}

// link is what later records and anchors refer to.
type link struct {
	seq  uint64
	hash string
}

type audit struct {
	Summary
	chains map[string][]link
	open   []string // hashes of the records after the last anchor's Through
}

func (a *audit) line(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var raw Record
	if err := dec.Decode(&raw); err != nil {
		return fmt.Errorf("not a ledger record: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("not a ledger record: something follows it")
	}
	rec, err := decode(data, raw.Seq)
	if err != nil {
		return err
	}
	if err := a.record(&rec); err != nil {
		return fmt.Errorf("record %d (chain %s, index %d, %s): %w", rec.Seq, rec.Chain, rec.Index, rec.Kind, err)
	}
	return nil
}

func (a *audit) record(rec *Record) error {
	chain := a.chains[rec.Chain]
	var prev link
	if len(chain) > 0 {
		prev = chain[len(chain)-1]
	}
	switch {
	case checkChain(rec.Chain) != nil:
		return checkChain(rec.Chain)
	case rec.Seq != a.Records+1:
		return fmt.Errorf("expected record %d here: records are missing or out of order", a.Records+1)
	case rec.Index != uint64(len(chain))+1:
		return fmt.Errorf("expected index %d of its chain: records are missing", len(chain)+1)
	case rec.Prev != prev.hash:
		return errors.New("it does not follow the record before it in its chain")
	case rec.Blob != "" && len(rec.Body) > 0:
		return errors.New("it has both a body and a blob")
	case rec.Hash != hashOf(rec):
		return errors.New("its content does not have the hash it was given")
	}
	a.chains[rec.Chain] = append(chain, link{seq: rec.Seq, hash: rec.Hash})
	a.open = append(a.open, rec.Hash)
	a.Records++
	if rec.Blob != "" {
		a.Blobs++
	}
	a.AnchoredAt = time.Time{}
	if rec.Chain == ChainAnchor {
		return a.anchor(rec)
	}
	return nil
}

func (a *audit) anchor(rec *Record) error {
	var body Anchor
	if err := rec.Decode(&body); err != nil {
		return err
	}
	for _, h := range body.Heads {
		chain := a.chains[h.Chain]
		if h.Index == 0 || h.Index > uint64(len(chain)) {
			return fmt.Errorf("it saw %d records of chain %s, there are %d: the end was cut off", h.Index, h.Chain, len(chain))
		}
		if got := chain[h.Index-1]; got.hash != h.Hash || got.seq != h.Seq {
			return fmt.Errorf("it saw another record %d of chain %s", h.Index, h.Chain)
		}
	}
	covered := body.Through - a.Anchored
	if body.Through < a.Anchored || covered > uint64(len(a.open)) {
		return fmt.Errorf("it covers records through %d, which do not come before it", body.Through)
	}
	if sum([]byte(strings.Join(a.open[:covered], ""))) != body.Order {
		return fmt.Errorf("it saw records %d to %d in another order", a.Anchored+1, body.Through)
	}
	a.open = a.open[covered:]
	a.Anchors++
	a.Anchored = body.Through
	a.AnchoredAt = rec.At
	return nil
}
