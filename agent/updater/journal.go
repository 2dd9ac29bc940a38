package updater

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Folder is where the journal lies below the root of the file system: one
// record per model, one per challenger and one for the newest desired state.
const Folder = "journal"

const (
	desiredName = "desired"
	suffix      = ".json"

	primaryPrefix    = "model-"
	challengerPrefix = "challenger-"
	maxEntry         = 256 << 10               // bytes of one record; a real one has under 8,000
	maxDesired       = protocol.MaxPayload * 8 // JSON of a full payload
)

// entry is the journal of one model.
type entry struct {
	Machine update.Machine  `json:"machine"`
	Trial   json.RawMessage `json:"trial,omitempty"`
	At      json.RawMessage `json:"at,omitempty"`
}

// path keeps the records of lanes apart from each other and from the rest.
func (l lane) path() string {
	prefix := primaryPrefix
	if l.challenger {
		prefix = challengerPrefix
	}
	return path.Join(Folder, prefix+l.name+suffix)
}

// laneOf is the lane whose record has that file name.
func laneOf(file string) (l lane, ok bool) {
	name, ok := strings.CutSuffix(file, suffix)
	if !ok {
		return l, false
	}
	if l.name, ok = strings.CutPrefix(name, primaryPrefix); !ok {
		l.name, ok = strings.CutPrefix(name, challengerPrefix)
		l.challenger = ok
	}
	return l, ok && protocol.CheckName(l.name) == nil
}

func desiredPath() string { return path.Join(Folder, desiredName+suffix) }

// readJournal takes up all lanes. A disk that takes nothing does not keep a
// device from serving: only a folder that is not there does.
func (u *Updater) readJournal() error {
	made := errors.Join(u.cfg.FS.Mkdir(Folder), u.cfg.FS.Sync("."))
	entries, err := fs.ReadDir(u.cfg.FS, Folder)
	if err != nil {
		return errors.Join(err, made)
	}
	for _, e := range entries {
		if l, ok := laneOf(e.Name()); ok {
			u.readModel(l)
		}
	}
	for _, name := range u.cfg.Slots.Models() {
		u.model(lane{name: name})
	}
	for _, name := range u.cfg.Slots.Challengers().Models() {
		u.model(lane{name, true})
	}
	u.readDesired()
	return nil
}

// ended is the end of what never began.
var ended = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// model returns the model of that lane, new if it has to be.
func (u *Updater) model(l lane) *model {
	m := u.models[l]
	if m == nil {
		m = &model{lane: l, slots: u.slotsOf(l), machine: l.machine(), cancel: func() {}, done: ended, restored: ended}
		u.models[l] = m
	}
	return m
}

// readModel takes up a model where its journal left it. A record that cannot be
// read is as good as none: the slots still say what is active, and the control
// plane will say again what it wants.
func (u *Updater) readModel(l lane) {
	m := u.model(l)
	raw, err := slots.ReadRecord(u.cfg.FS, l.path(), maxEntry)
	if err == nil {
		err = m.restore(raw)
	}
	if err != nil {
		u.cfg.Log.Warn("journal record unreadable", "model", l.String(), "error", err)
		u.emit("journal_damaged", l, release.Digest{}, err.Error())
		return
	}
	u.order.Store(max(u.order.Load(), m.machine.Order))
}

func (m *model) restore(raw []byte) error {
	var e entry
	if err := json.Unmarshal(raw, &e); err != nil {
		return err
	}
	if err := e.Machine.Check(); err != nil {
		return err
	}
	if e.Machine.Model != m.name || e.Machine.Challenger != m.challenger {
		return fmt.Errorf("journal is of model %q, challenger %t", e.Machine.Model, e.Machine.Challenger)
	}
	trial, at := &protocol.Trial{}, &protocol.Stamp{}
	if err := errors.Join(decode(e.Trial, trial), decode(e.At, at)); err != nil {
		return err
	}
	m.machine = e.Machine
	if e.Trial != nil {
		m.trial = trial
	}
	if e.At != nil {
		m.at = at
	}
	return nil
}

func decode(raw json.RawMessage, into proto.Message) error {
	if raw == nil {
		return nil
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, into)
}

func encode[M interface {
	comparable
	proto.Message
}](m M,
) (json.RawMessage, error) {
	var none M
	if m == none {
		return nil, nil
	}
	return protojson.Marshal(m)
}

// write makes a model's next step durable. What differs in its clocks alone is
// not worth a write to flash: checkpoint does that now and then.
func (u *Updater) write(m *model, next update.Machine, trial *protocol.Trial, at *protocol.Stamp) error {
	still := next
	still.Spent, still.Ran = 0, 0
	key, err := marshal(still, trial, at)
	if err != nil {
		return err
	}
	if bytes.Equal(key, m.written) {
		return nil
	}
	if err := u.writeEntry(m.lane, next, trial, at); err != nil {
		return err
	}
	m.written = key
	return nil
}

func (u *Updater) writeEntry(l lane, next update.Machine, trial *protocol.Trial, at *protocol.Stamp) error {
	raw, err := marshal(next, trial, at)
	if err != nil {
		return err
	}
	if err := slots.WriteRecord(u.cfg.FS, l.path(), raw); err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return nil
}

func marshal(m update.Machine, trial *protocol.Trial, at *protocol.Stamp) ([]byte, error) {
	t, err := encode(trial)
	if err != nil {
		return nil, fmt.Errorf("encode trial: %w", err)
	}
	a, err := encode(at)
	if err != nil {
		return nil, fmt.Errorf("encode stamp: %w", err)
	}
	raw, err := json.MarshalIndent(entry{Machine: m, Trial: t, At: a}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode journal: %w", err)
	}
	return append(raw, '\n'), nil
}

// checkpoint writes down the clocks of machines to which they matter, so that
// deadlines and crash windows go on after a power cut.
func (u *Updater) checkpoint(now time.Time) {
	_ = slots.KeepReserve(u.cfg.FS) // on a full disk there is none, and each record says so
	for _, m := range u.models {
		next := m.machine.At(now)
		if !next.Timed(u.cfg.Limits) {
			continue // a card that is written to every minute for nothing wears out
		}
		if err := u.writeEntry(m.lane, next, m.trial, m.at); err != nil {
			u.cfg.Log.Warn("journal not written", "model", m.String(), "error", err)
			continue
		}
		u.set(func() { m.machine = next })
	}
}

// forget drops the journal of a model that is neither wanted nor here.
func (u *Updater) forget(m *model) {
	_ = u.cfg.FS.RemoveAll(m.path()) // a machine that says idle would do no harm
	u.mu.Lock()
	delete(u.models, m.lane)
	u.mu.Unlock()
}

// maxFailed bounds the models that are reported although they are neither wanted
// nor here, because none of their versions worked.
const maxFailed = 8

// leave ends the work on a model that is neither wanted nor here. How its last
// update failed is kept, or a device whose only version was taken back would have
// nothing to say; taken off while it worked, the model leaves nothing.
func (u *Updater) leave(m *model, old update.Machine) {
	if old.Removes() || m.challenger || !m.machine.Last.Failed() {
		u.forget(m)
		return
	}
	if failed := u.failed(); len(failed) > maxFailed {
		u.forget(failed[0])
	}
}

// failed lists the models kept for their outcome alone, the oldest one first.
func (u *Updater) failed() []*model {
	var list []*model
	for _, l := range u.lanes() {
		if m := u.models[l]; !l.challenger && m.machine.Gone() && m.machine.Last.Failed() {
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(a, b *model) int {
		return cmp.Compare(a.machine.Last.Generation, b.machine.Last.Generation)
	})
	return list
}

// set changes what States reads.
func (u *Updater) set(change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change()
}

// readDesired takes up the newest desired state. One that cannot be read, damaged
// or of an agent that knew more, will be said again.
func (u *Updater) readDesired() {
	d := &protocol.Desired{}
	raw, err := slots.ReadRecord(u.cfg.FS, desiredPath(), maxDesired)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = decode(raw, d)
	}
	var list map[string]wish
	if err == nil {
		list, err = wants(d)
	}
	if err != nil {
		u.cfg.Log.Warn("desired state unreadable", "error", err)
		return
	}
	u.held, u.wishes = d, list
}

// hold makes a desired state the newest, also for the next start.
func (u *Updater) hold(d *protocol.Desired) error {
	raw, err := encode(d)
	if err != nil {
		return fmt.Errorf("encode desired state: %w", err)
	}
	if err := slots.WriteRecord(u.cfg.FS, desiredPath(), append(raw, '\n')); err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = d
	return nil
}
