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

// maxLine bounds one line of an export in bytes: a body, and room for the other
// fields and for white space.
const maxLine = MaxBlobBody + 4*MaxBody

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
	Blobs      uint64 // records whose body is a blob
	Absent     uint64 // of them, those whose body is not in the export: its digest is verified, its content is not
}

// Verify reads an export and returns an error that names the first record that
// does not fit, or nil.
func Verify(r io.Reader) error {
	_, err := Audit(r)
	return err
}

// Audit is Verify that also says what it saw.
func Audit(r io.Reader) (Summary, error) {
	return AuditEach(r, func(*Record, Place) {})
}

// AuditEach is Audit that also tells of each record that fits, and where it is.
// The record is see's for the time of the call.
func AuditEach(r io.Reader, see func(rec *Record, at Place)) (Summary, error) {
	a := audit{chains: map[string][]link{}}
	err := eachLine(r, maxLine, func(line []byte, at Place) error {
		rec, err := ParseLine(line)
		if err == nil {
			err = a.record(&rec)
		}
		if err != nil {
			return fmt.Errorf("%w: line %d: %w", ErrTampered, a.Records+1, err)
		}
		see(&rec, at)
		return nil
	})
	if err != nil && !errors.Is(err, ErrTampered) {
		return a.Summary, fmt.Errorf("read ledger export after record %d: %w", a.Records, err)
	}
	a.Chains = len(a.chains)
	a.Loose = a.loose()
	return a.Summary, err
}

// Place is where one line of an export lies, in bytes.
type Place struct {
	Offset int64
	Length int
}

// eachLine calls fn for every line, until it returns an error or a line has
// more than most bytes: bufio.ErrTooLong. The line is fn's for the time of the
// call.
func eachLine(r io.Reader, most int, fn func(line []byte, at Place) error) error {
	lines, next := bufio.NewScanner(r), int64(0)
	lines.Buffer(make([]byte, 0, min(64<<10, most)), most)
	lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		advance, line, err := bufio.ScanLines(data, atEOF)
		next += int64(advance)
		return advance, line, err
	})
	for offset := int64(0); lines.Scan(); offset = next {
		if err := fn(lines.Bytes(), Place{Offset: offset, Length: len(lines.Bytes())}); err != nil {
			return err
		}
	}
	return lines.Err()
}

// ParseLine reads one line of an export. It checks its form alone.
func ParseLine(line []byte) (Record, error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	var rec Record
	if err := dec.Decode(&rec); err != nil {
		return Record{}, fmt.Errorf("not a ledger record: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Record{}, errors.New("not a ledger record: something follows it")
	}
	return rec, rec.compact()
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

// record takes a record in, or says why it does not fit.
func (a *audit) record(rec *Record) error {
	if err := a.fits(rec); err != nil {
		return fmt.Errorf("record %d (chain %s, index %d, %s): %w", rec.Seq, rec.Chain, rec.Index, rec.Kind, err)
	}
	a.chains[rec.Chain] = append(a.chains[rec.Chain], link{seq: rec.Seq, hash: rec.Hash})
	a.open = append(a.open, rec.Hash)
	a.Records++
	if rec.Blob != "" {
		a.Blobs++
		if len(rec.Body) == 0 {
			a.Absent++
		}
	}
	a.AnchoredAt = time.Time{}
	if rec.Chain == ChainAnchor {
		if err := a.anchor(rec); err != nil {
			return fmt.Errorf("record %d (chain %s, index %d, %s): %w", rec.Seq, rec.Chain, rec.Index, rec.Kind, err)
		}
	}
	return nil
}

// fits checks that a record follows those before it and is what its hash says.
func (a *audit) fits(rec *Record) error {
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
	case rec.Blob != "" && len(rec.Body) > 0 && sum(rec.Body) != rec.Blob:
		return errors.New("its body does not have the digest that it states")
	case rec.Hash != hashOf(rec):
		return errors.New("its content does not have the hash it was given")
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
