package e2e

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/controlplane/ingest"
	"github.com/vedette-edge/vedette/protocol"
)

// world is one state of the accounting model check: a device (and perhaps its
// clone), the server, and what is on its way between them. Deciding is done by
// the real code: outbox.Book and outbox.Recover on one side, ingest.Accept and
// ingest.AcceptHello on the other. The world adds disks, faults and the link.
// It is a value: next states share what did not change.
type world struct {
	devices   []device
	server    server
	backup    *server
	up        []message // copies that may arrive late, or again
	down      []message
	generated outbox.Sum // taken over by an outbox that said so
	made      int        // generate steps
	faults    int
	reinstall int
	doubtful  bool             // a fault after which exactness cannot be proven
	lossy     bool             // a fault after which something may be lost
	copied    bool             // the device was cloned
	gone      []outbox.EpochID // of outboxes that were thrown away
}

// device is an outbox: what it knows and what its disk holds.
type device struct {
	book  *outbox.Book
	disk  []write
	fresh bool // the last write has had no effect outside yet
	boot  byte
}

// write is one synced frame, with what it took over that was new.
type write struct {
	frame outbox.Frame
	more  outbox.Sum
}

// server is what the stream and its folds hold.
type server struct {
	cursor    ingest.Cursor
	held      outbox.Sum // rows and labels stored
	lost      outbox.Sum // reported lost
	uncertain bool       // more may be missing than can be proven
}

// message is a record or hello going up, or an ack coming down.
type message struct {
	device int
	record *protocol.Record
	hello  *protocol.Hello
	ack    *protocol.Ack
}

// step is one thing that may happen, with the state it leads to.
type step struct {
	name string
	to   *world
}

// mutation is a planted bug: the check has to find every one of them.
type mutation string

const (
	sound            mutation = ""
	ackWithoutStore  mutation = "acknowledge, keep the cursor, do not store"
	forgetSent       mutation = "give numbers out again after a kill"
	neverSkip        mutation = "send no skips"
	skipWithoutTotal mutation = "take a skip without counting what it skips"
	freeOnPublish    mutation = "take the broker's PUBACK for a receipt"
	resendUnasked    mutation = "go on in the old epoch after a damaged tail"
	takeWhenClosed   mutation = "take bodies in a closed epoch"
	forgetMoved      mutation = "recover pending records that have left"
	storeGaps        mutation = "store a record whose predecessor is missing"
)

const (
	maxMade   = 3
	maxFaults = 2
	maxFlight = 2
)

func newWorld() *world {
	d := device{book: outbox.NewBook(outbox.EpochID{0: 1}), boot: 1}
	d.disk = image(&d.book)
	return &world{devices: []device{d}}
}

// image writes the whole book as a fresh file.
func image(b **outbox.Book) []write {
	next, frames := (*b).Image()
	*b = next
	var out []write
	for f := range frames {
		out = append(out, write{frame: *f})
	}
	return out
}

func (w *world) copy() *world {
	next := *w
	next.devices = slices.Clone(w.devices)
	return &next
}

func body(boot byte, b *protocol.Body) outbox.Entry {
	id := make([]byte, protocol.BootSize)
	id[0] = boot
	b.At = &protocol.Stamp{Boot: id}
	e, err := outbox.NewEntry(b)
	if err != nil {
		panic(err)
	}
	return e
}

var digest = make([]byte, protocol.DigestSize)

func windowOf(boot byte, rows uint64) outbox.Entry {
	w := &protocol.Window{Model: "m", Release: digest, Rows: rows}
	return body(boot, &protocol.Body{Kind: &protocol.Body_Window{Window: w}})
}

func labelsOf(boot byte, n uint64) outbox.Entry {
	l := &protocol.Labels{Model: "m", Release: digest, Matched: n}
	return body(boot, &protocol.Body{Kind: &protocol.Body_Labels{Labels: l}})
}

// apply carries a change out on a device.
func (w *world) apply(i int, c outbox.Change, more outbox.Sum) {
	d := &w.devices[i]
	d.book = c.After
	if c.Rewrite {
		d.disk = image(&d.book)
		d.fresh = false
		return
	}
	d.disk = append(slices.Clip(d.disk), write{frame: c.Frame, more: more})
	d.fresh = true
	w.generated = add(w.generated, more)
}

// steps lists everything that may happen next.
func (w *world) steps(m mutation) []step {
	var out []step
	add := func(name string, to *world) { out = append(out, step{name, to}) }
	for i := range w.devices {
		w.deviceSteps(i, m, add)
	}
	for i := range w.up {
		next := w.copy()
		next.arrive(w.up[i], m)
		add("late "+w.up[i].String(), next)
	}
	for i := range w.down {
		next := w.copy()
		next.hear(w.down[i])
		add(w.down[i].String(), next)
	}
	w.serverFaults(add)
	return out
}

func (w *world) deviceSteps(i int, m mutation, add func(string, *world)) {
	d := w.devices[i]
	name := func(s string) string { return fmt.Sprintf("device %d: %s", i, s) }
	if w.made < maxMade {
		w.generate(i, func(s string, to *world) { add(name(s), to) })
	}
	for _, c := range d.book.Merge(func(*outbox.Item) bool { return true }, 1) { // one pair
		next := w.copy()
		next.apply(i, c, outbox.Sum{})
		add(name("merge"), next)
	}
	for _, n := range []int{1, protocol.MaxSent} {
		if c, ok := d.book.Send(n); ok && (n == 1 || d.book.Pending() > 1) {
			next := w.copy()
			next.apply(i, c, outbox.Sum{})
			add(name(fmt.Sprintf("number %d", n)), next)
		}
	}
	w.publish(i, m, add)
	if w.faults < maxFaults {
		w.deviceFaults(i, m, func(s string, to *world) { to.faults++; add(name(s), to) })
	}
}

// generate is traffic: a window, labels, or an open window that grows and closes.
func (w *world) generate(i int, add func(string, *world)) {
	d := w.devices[i]
	put := func(name string, c outbox.Change, more outbox.Sum) {
		next := w.copy()
		next.apply(i, c, more)
		next.made++
		add(name, next)
	}
	put("window", d.book.Append(windowOf(d.boot, 1)), outbox.Sum{Rows: 1})
	put("labels", d.book.Append(labelsOf(d.boot, 1)), outbox.Sum{Labels: 1})
	put("open window grows", d.book.PutOpen("m", windowOf(d.boot, 2)), openGrowth(d.book, 2))
	if d.book.Open() > 0 {
		put("open window closes", d.book.CloseOpen("m", windowOf(d.boot, 3)), openGrowth(d.book, 3))
	}
}

// openGrowth is what the open window counts more than before at rows.
func openGrowth(b *outbox.Book, rows uint64) outbox.Sum {
	before := b.Head().Waiting
	after := b.PutOpen("m", windowOf(1, rows)).After.Head().Waiting
	return outbox.Sum{Rows: after.Rows - before.Rows}
}

// publish sends any record of the outbox, or a hello, so a record may be lost
// while later ones arrive. Each may arrive at once or be kept for later.
func (w *world) publish(i int, m mutation, add func(string, *world)) {
	d := w.devices[i]
	messages := []message{{device: i, hello: &protocol.Hello{Epochs: d.book.Epochs()}}}
	for _, r := range d.book.Records() {
		messages = append(messages, message{device: i, record: r})
	}
	for _, msg := range messages {
		if m == neverSkip && msg.record.GetSkip() != nil {
			continue
		}
		next := w.copy()
		next.devices[i].fresh = false
		next.arrive(msg, m)
		next.published(msg, m)
		add(msg.String(), next)
		if len(w.up) < maxFlight && !msg.in(w.up) && msg.record != nil {
			late := w.copy()
			late.devices[i].fresh = false
			late.up = append(slices.Clone(w.up), msg)
			late.published(msg, m)
			add(msg.String()+" is delayed", late)
		}
	}
}

// published is where the planted bug takes PUBACK for a receipt.
func (w *world) published(msg message, m mutation) {
	if m == freeOnPublish && msg.record != nil {
		w.hear(message{device: msg.device, ack: &protocol.Ack{Epoch: msg.record.GetEpoch(), Seq: msg.record.GetSeq()}})
	}
}

func (w *world) deviceFaults(i int, m mutation, add func(string, *world)) {
	d := w.devices[i]
	kill := w.copy()
	kill.restart(i, d.disk, outbox.Whole, m)
	add("kill", kill)
	for hole := range len(d.disk) - 1 {
		next := w.copy()
		next.lossy = true
		next.restart(i, slices.Delete(slices.Clone(d.disk), hole, hole+1), outbox.Whole, m)
		add(fmt.Sprintf("salvage with hole %d", hole), next)
	}
	if n := len(d.disk); d.fresh {
		cut := w.copy()
		cut.generated.Rows -= d.disk[n-1].more.Rows // nobody was told that they were taken
		cut.generated.Labels -= d.disk[n-1].more.Labels
		cut.restart(i, d.disk[:n-1], outbox.Cut, m)
		add("power cut in a write", cut)
	}
	for n := range len(d.disk) {
		next := w.copy()
		next.doubtful, next.lossy = true, true
		next.restart(i, d.disk[:n], outbox.Damaged, m)
		add(fmt.Sprintf("counter lost after %d of %d writes", n, len(d.disk)), next)
	}
	again := w.copy()
	again.anew(i)
	again.doubtful = true
	add("reinstall", again)
	if !w.copied && d.book.Open() == 0 {
		clone := w.copy()
		clone.copied = true
		copied := d
		copied.boot, copied.fresh, clone.devices[i].fresh = 7, false, false
		clone.devices = append(clone.devices, copied)
		add("clone", clone)
	}
}

// restart is what outbox.Open does: recover, report, write anew, close what is left.
func (w *world) restart(i int, disk []write, tail outbox.Tail, m mutation) {
	if m == resendUnasked {
		tail = outbox.Whole
	}
	book, s := outbox.Recover(framesOf(disk, m), tail)
	if book == nil {
		w.anew(i)
		d := &w.devices[i]
		d.book = d.book.Doubt() // a file was there, nothing in it can be read
		d.disk = image(&d.book)
		return
	}
	d := &w.devices[i]
	d.book, d.disk, d.boot = book, disk, d.boot+1
	if e, ok := s.Report(); ok {
		d.book = d.book.Append(e).After
	}
	if tail != outbox.Whole || len(disk) < len(w.devices[i].disk) || s.SentHoles > 0 || s.LostRecords > 0 {
		d.disk = image(&d.book)
	}
	for {
		c, ok := d.book.CloseLeft()
		if !ok {
			break
		}
		w.apply(i, c, outbox.Sum{})
	}
	d.fresh = false
}

// framesOf is what is read from the disk, or what a planted bug makes of it.
func framesOf(disk []write, m mutation) []*outbox.Frame {
	var frames []*outbox.Frame
	for _, d := range disk {
		f := d.frame
		switch {
		case m == forgetMoved:
			f.Head.Moved = 0
		case m == forgetSent && f.Kind == 's':
			continue
		case m == forgetSent:
			f.Head.Sent = f.Head.Acked
		}
		frames = append(frames, &f)
	}
	return frames
}

// anew is a device with a new outbox.
func (w *world) anew(i int) {
	w.reinstall++
	d := &w.devices[i]
	w.gone = append(slices.Clone(w.gone), d.book.Head().Epoch)
	d.book = outbox.NewBook(outbox.EpochID{0: 2, 1: byte(w.reinstall), 2: byte(i)})
	d.disk = image(&d.book)
	d.boot++
	d.fresh = false
}

func (w *world) serverFaults(add func(string, *world)) {
	if w.backup == nil {
		next := w.copy()
		kept := w.server
		next.backup = &kept
		add("server is backed up", next)
		return
	}
	if w.faults < maxFaults {
		next := w.copy()
		next.server = *w.backup
		next.up, next.down = nil, nil
		next.faults++
		next.lossy = true
		add("server is restored from its backup", next)
	}
}

// arrive is the server taking a message; the answer is on its way.
func (w *world) arrive(msg message, m mutation) {
	var v ingest.Verdict
	var after ingest.Cursor
	var err error
	if msg.hello != nil {
		after, v, err = ingest.AcceptHello(w.server.cursor, msg.hello)
	} else {
		after, v, err = accept(w.server.cursor, msg.record, m)
	}
	if err != nil {
		panic(err) // a device never sends what is malformed
	}
	w.server.cursor = after
	w.server.store(v.Accepted, m)
	for _, a := range v.Acks {
		w.answer(message{device: msg.device, ack: a})
	}
}

// answer puts an ack on its way; the oldest one is lost where there are too many.
func (w *world) answer(msg message) {
	if msg.in(w.down) {
		return
	}
	w.down = append(slices.Clone(w.down), msg)
	if len(w.down) > maxFlight {
		w.down = w.down[1:]
	}
}

// hear is a device taking an ack. It stays on its way: it may come again.
func (w *world) hear(msg message) {
	d := &w.devices[msg.device]
	after, c, write := d.book.Ack(msg.ack)
	d.book = after
	d.fresh = false
	if write {
		w.apply(msg.device, c, outbox.Sum{})
		d.fresh = false
	}
}

// store is the fold of the stream.
func (s *server) store(a *protocol.Accepted, m mutation) {
	if a == nil || m == ackWithoutStore && a.GetRecord().GetSkip() == nil && a.GetRecord() != nil {
		return
	}
	s.uncertain = s.uncertain || len(a.GetAbandoned()) > 0
	for _, e := range a.GetHello().GetEpochs() {
		s.uncertain = s.uncertain || e.GetUncertain()
	}
	if m != skipWithoutTotal {
		s.lost = plus(s.lost, a.GetLost())
	}
	if a.GetRefused() != "" || len(a.GetRecord().GetBody()) == 0 {
		return
	}
	b := &protocol.Body{}
	if err := proto.Unmarshal(a.GetRecord().GetBody(), b); err != nil {
		panic(err)
	}
	if e := b.GetEvent(); e != nil {
		s.lost = plus(s.lost, e.GetLost())
		s.uncertain = s.uncertain || e.GetLostUnknown()
		return
	}
	s.held = plus(s.held, protocol.TallyOf(b))
}

func plus(s outbox.Sum, t *protocol.Tally) outbox.Sum {
	return outbox.Sum{Rows: s.Rows + t.GetRows(), Labels: s.Labels + t.GetLabels()}
}

func (m message) String() string {
	switch {
	case m.hello != nil:
		return fmt.Sprintf("device %d: hello", m.device)
	case m.ack != nil:
		return fmt.Sprintf("device %d hears ack %x/%d closed=%v cloned=%v", m.device, m.ack.GetEpoch()[:min(2, len(m.ack.GetEpoch()))],
			m.ack.GetSeq(), m.ack.GetClosed(), m.ack.GetCloned())
	case m.record.GetSkip() != nil:
		return fmt.Sprintf("device %d: skip %x/%d-%d", m.device, m.record.GetEpoch()[:2], m.record.GetPrev()+1, m.record.GetSeq())
	default:
		return fmt.Sprintf("device %d: record %x/%d", m.device, m.record.GetEpoch()[:2], m.record.GetSeq())
	}
}

func (m message) in(flight []message) bool {
	return slices.ContainsFunc(flight, func(o message) bool { return o.key() == m.key() })
}

func (m message) key() string {
	var p proto.Message
	switch {
	case m.hello != nil:
		p = m.hello
	case m.ack != nil:
		p = m.ack
	default:
		p = m.record
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		panic(err)
	}
	return string(byte(m.device)) + string(raw)
}

// hash is the state's identity. Counts of changes are left out: they differ
// between paths that lead to the same state.
func (w *world) hash() [16]byte {
	h := sha256.New()
	number := func(v ...uint64) {
		var buf [8]byte
		for _, n := range v {
			binary.LittleEndian.PutUint64(buf[:], n)
			h.Write(buf[:])
		}
	}
	flag := func(b bool) {
		if b {
			number(1)
		} else {
			number(0)
		}
	}
	for _, d := range w.devices {
		number(uint64(len(d.disk)), uint64(d.boot))
		for _, f := range d.disk {
			f.frame.Head.LSN -= d.disk[0].frame.Head.LSN
			h.Write([]byte(f.frame.Encode()))
		}
		_, frames := d.book.Image()
		for f := range frames {
			f.Head.LSN = 0
			h.Write([]byte(f.Encode()))
		}
		for _, r := range d.book.Records() {
			number(r.GetPrev(), r.GetSeq())
		}
		flag(d.fresh)
	}
	s := []server{w.server}
	if w.backup != nil {
		s = append(s, *w.backup)
	}
	for _, s := range s {
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.cursor.Proto())
		if err != nil {
			panic(err)
		}
		h.Write(raw)
		number(s.held.Rows, s.held.Labels, s.lost.Rows, s.lost.Labels)
		flag(s.uncertain)
	}
	for _, m := range w.up {
		h.Write([]byte(m.key()))
	}
	number(99)
	for _, m := range w.down {
		h.Write([]byte(m.key()))
	}
	number(w.generated.Rows, w.generated.Labels, uint64(w.made), uint64(w.faults))
	flag(w.copied)
	flag(w.lossy)
	flag(w.doubtful)
	return [16]byte(h.Sum(nil)[:16])
}
