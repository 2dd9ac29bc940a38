package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// pack is the cells of some devices, or of cohorts.
type pack map[string]cell

// size is about how many bytes a pack takes.
func (p pack) size() (n int) {
	for name, c := range p {
		n += len(name) + len(c.window) + len(c.labels) + 8
	}
	return n
}

// merge merges in what other windows of the same devices and hour counted.
func (p pack) merge(o pack) error {
	for name, c := range o {
		t := newTally()
		for _, x := range []cell{p[name], c} {
			if err := t.after(x); err != nil {
				return err
			}
		}
		sum, err := t.cell()
		if err != nil {
			return err
		}
		p[name] = sum
	}
	return nil
}

// value is what one key of the archive holds.
type value struct {
	cells pack
	// taken is, by hour, the number of the sealed part that was moved in last. The
	// same one is not moved in again.
	taken map[int64]uint64
}

func newValue() *value { return &value{cells: pack{}, taken: map[int64]uint64{}} }

// packFormat is the first byte of every value. History:
//
//	1  2026-11-23  first
const packFormat = 1

// errPack says that bytes are no value of the archive.
var errPack = errors.New("value of the history is not well formed")

// Names and confusion tables repeat; the rest is packed already. Both are safe
// for concurrent use in the ways they are used here.
var (
	packer, _   = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(1<<20))
	unpacker, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
)

func (v *value) encode() []byte {
	out := binary.AppendUvarint(nil, uint64(len(v.taken)))
	for _, hour := range slices.Sorted(maps.Keys(v.taken)) {
		out = binary.AppendUvarint(binary.AppendVarint(out, hour), v.taken[hour])
	}
	return packer.EncodeAll(v.cells.append(out), []byte{packFormat})
}

// unpack opens what packer made.
func unpack(data []byte) (*reader, error) {
	if len(data) == 0 || data[0] != packFormat {
		return nil, fmt.Errorf("%w: unknown format", errPack)
	}
	raw, err := unpacker.DecodeAll(data[1:], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPack, err)
	}
	return &reader{in: raw}, nil
}

func decodeValue(data []byte) (*value, error) {
	r, err := unpack(data)
	if err != nil {
		return nil, err
	}
	v := newValue()
	for range r.count() {
		hour := r.varint()
		v.taken[hour] = r.uvarint()
	}
	v.cells = r.pack()
	return v, r.end()
}

func (p pack) append(out []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(p)))
	for _, name := range slices.Sorted(maps.Keys(p)) {
		c := p[name]
		out = appendBytes(out, []byte(name))
		out = binary.AppendUvarint(out, c.devices)
		out = appendBytes(appendBytes(out, c.window), c.labels)
	}
	return out
}

func appendBytes(out, b []byte) []byte {
	return append(binary.AppendUvarint(out, uint64(len(b))), b...)
}

// encode writes a part of the checkpoint.
func (p *part) encode() []byte {
	out := binary.AppendUvarint(nil, p.seq)
	out = binary.AppendUvarint(out, p.sealedSeq)
	out = p.sealed.append(p.open.append(out))
	return packer.EncodeAll(out, []byte{packFormat})
}

func decodePart(data []byte) (*part, error) {
	r, err := unpack(data)
	if err != nil {
		return nil, err
	}
	p := &part{seq: r.uvarint(), sealedSeq: r.uvarint()}
	p.open, p.sealed = r.pack(), r.pack()
	if len(p.sealed) > 0 {
		p.stage = durable
	}
	return p, r.end()
}

// reader reads what append wrote. After a failure everything is zero.
type reader struct {
	in     []byte
	failed bool
}

func (r *reader) uvarint() uint64 {
	n, used := binary.Uvarint(r.in)
	return r.took(n, used)
}

func (r *reader) varint() int64 {
	n, used := binary.Varint(r.in)
	return int64(r.took(uint64(n), used)) //nolint:gosec // there and back
}

func (r *reader) took(n uint64, used int) uint64 {
	if r.failed = r.failed || used <= 0; r.failed {
		return 0
	}
	r.in = r.in[used:]
	return n
}

// count reads how many follow, which take a byte each at least.
func (r *reader) count() uint64 {
	n := r.uvarint()
	if r.failed = r.failed || n > uint64(len(r.in)); r.failed {
		return 0
	}
	return n
}

func (r *reader) bytes() []byte {
	n := r.count()
	b := r.in[:n:n]
	r.in = r.in[n:]
	return b
}

func (r *reader) pack() pack {
	p := pack{}
	for range r.count() {
		name := string(r.bytes())
		p[name] = cell{devices: r.uvarint(), window: r.bytes(), labels: r.bytes()}
	}
	return p
}

func (r *reader) end() error {
	if r.failed || len(r.in) > 0 {
		return errPack
	}
	return nil
}
