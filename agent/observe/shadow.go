package observe

import (
	"path/filepath"

	"github.com/vedette-edge/vedette/agent/infer"
)

// shadowDir holds the ring of what shadows predicted.
const shadowDir = "shadow"

// openShadows makes sure that the ring of shadows is there.
func (o *Observer) openShadows() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.shadows.Load() == nil {
		o.shadows.Store(openRing(filepath.Join(o.dir, shadowDir), o.cfg.Predictions, o.cfg.Logger))
	}
}

// ringOf is where the predictions of a role are remembered, nil for nowhere.
func (o *Observer) ringOf(role string) *ring {
	if role == infer.RoleShadow {
		return o.shadows.Load()
	}
	return o.ring
}

// scoreShadow holds a truth against what a shadow made of the same row, if one
// did. Whatever is amiss there costs the shadow a label, and the caller nothing.
func (o *Observer) scoreShadow(model, id, truth string) {
	ring := o.shadows.Load()
	if ring == nil {
		return
	}
	p, err := ring.find(model, id)
	k, found := o.known.find(p.release)
	if err != nil || !found || o.expired(p) {
		return
	}
	class, err := classOf(k.Classes, truth)
	if err != nil {
		return
	}
	if first, err := ring.label(p); err != nil || !first {
		return
	}
	key := labelsKey{model: model, release: k.Release, former: o.former(p), role: infer.RoleShadow}
	o.labelsOf(key, len(k.Classes)).matched(p, class)
}
