package agenttest

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
)

// ErrPowerCut is what every operation answers after the cut.
var ErrPowerCut = errors.New("the power is off")

// Loss says what a power cut does to writes that were never synced.
type Loss int

// What may happen to them.
const (
	Keep Loss = iota // they had all reached the disk
	Drop             // none had
	Tear             // some had: any of a folder's changes, some blocks of a file, and zeros for others
)

func (l Loss) String() string { return [...]string{"keep", "drop", "tear"}[l] }

// Cut is closed when the power goes. Reboot makes a new one.
func (m *MemFS) Cut() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gone
}

func (m *MemFS) powerOff() {
	if !m.off {
		m.off = true
		close(m.gone)
	}
}

// CutAt makes the power go at operation n from now, the first being 1. A write
// that is cut may still reach the disk, a sync does not happen.
func (m *MemFS) CutAt(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = m.ops + n
}

// Ops counts the operations so far that change or sync something.
func (m *MemFS) Ops() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// Off reports whether the power is off.
func (m *MemFS) Off() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.off
}

// CutNow takes the power away.
func (m *MemFS) CutNow() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.powerOff()
}

// Reboot gives the power back. What was not synced is kept, dropped or torn;
// rnd draws how, and is needed for Tear alone.
func (m *MemFS) Reboot(loss Loss, rnd *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.root.crash(loss, rnd, map[*node]bool{})
	m.off, m.cut, m.gone = false, 0, make(chan struct{})
}

func (n *node) crash(loss Loss, rnd *rand.Rand, seen map[*node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	if !n.dir {
		n.data = survivingData(n, loss, rnd)
		n.durable = n.data
		return
	}
	n.entries = maps.Clone(n.synced)
	for _, c := range n.pending {
		if loss == Keep || (loss == Tear && rnd.IntN(2) == 0) {
			c.apply(n.entries)
		}
	}
	n.synced, n.pending = maps.Clone(n.entries), nil
	for _, name := range slices.Sorted(maps.Keys(n.entries)) { // in order, so that a seed means one outcome
		n.entries[name].crash(loss, rnd, seen)
	}
}

func (c change) apply(entries map[string]*node) {
	if c.from != "" {
		delete(entries, c.from)
	}
	if c.to == nil {
		delete(entries, c.name)
		return
	}
	entries[c.name] = c.to
}

// block is the unit in which a file's bytes reach the disk. It is small, so that
// the records of a test have several.
const block = 16

// survivingData is what a file holds after the cut. Torn, it is one of what disks
// were seen to leave: nothing, zeros in full length, a part of what was written,
// or a mixture of new, old and zeroed blocks. What was appended to synced bytes
// leaves those alone.
func survivingData(n *node, loss Loss, rnd *rand.Rand) []byte {
	if loss == Keep || slices.Equal(n.data, n.durable) {
		return n.data
	}
	if loss == Drop {
		return n.durable
	}
	safe := 0 // bytes that nobody has written to since they were synced
	if len(n.durable) <= len(n.data) && slices.Equal(n.durable, n.data[:len(n.durable)]) {
		safe = len(n.durable)
	}
	torn := slices.Clone(n.data)
	switch rnd.IntN(5) {
	case 0:
		return torn[:safe]
	case 1:
		clear(torn[safe:])
		return torn
	case 2:
		return torn[:safe+rnd.IntN(len(torn)-safe+1)]
	case 3:
		return torn
	}
	mix(torn[safe:], n.durable[min(safe, len(n.durable)):], rnd)
	return torn[:safe+rnd.IntN(len(torn)-safe+1)]
}

// mix leaves each block of torn as it is, makes it zeros or what was there before.
func mix(torn, old []byte, rnd *rand.Rand) {
	for at := 0; at < len(torn); at += block {
		part := torn[at:min(at+block, len(torn))]
		switch rnd.IntN(3) {
		case 0:
			clear(part)
		case 1:
			copy(part, old[min(at, len(old)):])
		}
	}
}

// Fault makes fn decide before each operation that changes or syncs something
// whether it fails, and how; nil ends that. op is "create", "write", "sync",
// "mkdir", "link", "rename" or "remove". A write that fails has written half.
func (m *MemFS) Fault(fn func(op, name string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = fn
}

// entryBytes is what a file or folder takes beside its content.
const entryBytes = 64

// Room is what the disk holds in bytes from now on, 0 for no end; used is what it
// holds now. What does not fit fails with ENOSPC, a write after a part of it.
func (m *MemFS) Room(bytes int) (used int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.room = bytes
	return m.used()
}

func (m *MemFS) used() int {
	seen := map[*node]bool{}
	sum := 0
	var add func(n *node)
	add = func(n *node) {
		if seen[n] {
			return
		}
		seen[n] = true
		sum += entryBytes + len(n.data)
		for _, e := range n.entries {
			add(e)
		}
	}
	add(m.root)
	return sum
}

// free is how many of the wanted bytes there is room for.
func (m *MemFS) free(want int) int {
	if m.room == 0 {
		return want
	}
	return max(0, min(want, m.room-m.used()))
}

// begin counts an operation that changes something. With last, it is the one at
// which the power goes; what it does is then done, but its caller never learns.
func (m *MemFS) begin(op, name string) (last bool, err error) {
	if m.off {
		return false, ErrPowerCut
	}
	m.ops++
	if m.ops == m.cut {
		m.powerOff()
		return true, nil
	}
	if m.fault != nil {
		if err := m.fault(op, name); err != nil {
			return false, err
		}
	}
	if grows := op == "create" || op == "mkdir" || op == "link"; grows && m.free(entryBytes) < entryBytes {
		return false, syscall.ENOSPC
	}
	return false, nil
}

func done(last bool) error {
	if last {
		return ErrPowerCut
	}
	return nil
}
