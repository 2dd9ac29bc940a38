package infer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/vedette-edge/vedette/protocol"
)

// MaxShare is all of the calls: shares are parts per thousand.
const MaxShare = protocol.MaxShare

// Key places a call among the parts per thousand [P-8.2]: calls of one model with one
// key always get the same place, on every device and for every challenger, so
// that a machine or a customer stays with the release it has. It is
// XXH64(model ‖ 0 ‖ key) mod 1000.
func Key(model, key string) int {
	var h xxhash.Digest
	h.Reset()
	_, _ = h.WriteString(model) // never fails
	_, _ = h.WriteString("\x00")
	_, _ = h.WriteString(key)
	return int(h.Sum64() % MaxShare)
}

// challenger is the second release of a model. It has its own runners and its
// own wait group: no primary call waits for it, and neither does a stop when one
// of its runs hangs.
type challenger struct {
	*served
	role   string
	share  atomic.Int64  // parts per thousand; MaxShare is all
	lane   *lane         // of a share
	shadow *shadow       // of a shadow
	gone   chan struct{} // closed when all of it has ended

	fallbacks atomic.Uint64 // calls that the primary answered after all
}

// takes says whether the call with that key is the challenger's part.
func (c *challenger) takes(model, key string) bool {
	share := c.share.Load()
	return share >= MaxShare || int64(Key(model, key)) < share
}

// setShare takes what an assignment says: none is all of the calls for a shadow.
func (c *challenger) setShare(r Release) {
	share := r.Share
	if share == 0 && r.Role == RoleShadow {
		share = MaxShare
	}
	c.share.Store(int64(share))
}

// installChallenger lets s run beside the primary release. The caller holds mu.
func (e *Engine) installChallenger(s *served) {
	l := e.makeLane(s.manifest.Model)
	c := &challenger{served: s, role: s.release.Role, gone: make(chan struct{})}
	c.setShare(s.release)
	wg := &sync.WaitGroup{} // runners or shadow, and the session
	wg.Add(1)
	s.onClose = func(s *served) {
		go func() {
			defer wg.Done()
			e.discard(s)
			close(s.done)
		}()
	}
	if c.role == RoleShadow {
		c.shadow = newShadow(e, c)
		wg.Go(c.shadow.loop)
	} else {
		c.lane = newLane(l.limits, wg)
		c.lane.current.Store(s)
	}
	go func() {
		wg.Wait()
		close(c.gone)
	}()
	if old := l.challenger.Swap(c); old != nil {
		old.stop()
	}
	e.cfg.Log.Info("challenger activated", "model", s.manifest.Model, "version", s.manifest.Version, "role", c.role,
		"release", s.digest.String(), "provider", s.session.Provider())
}

// stop ends the challenger once its last calls have ended. It does not wait.
func (c *challenger) stop() {
	if c.shadow != nil {
		c.shadow.stop()
		return
	}
	c.lane.close()
}

// Retire stops a model's challenger and waits until its session is closed or
// ctx ends. Where there is none it does nothing.
func (e *Engine) Retire(ctx context.Context, model string) error {
	e.mu.Lock()
	var c *challenger
	if l := e.lane(model); l != nil {
		c = l.challenger.Swap(nil)
	}
	e.mu.Unlock()
	if c == nil {
		return nil
	}
	c.stop()
	select {
	case <-c.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the last calls of the challenger of %s: %w", model, ctx.Err())
	}
}

// hungChallenger gives up a challenger with a run that does not end. Its thread
// is lost until the process is replaced; the primary goes on.
func (e *Engine) hungChallenger(c *challenger) {
	e.mu.Lock()
	l := e.lane(c.manifest.Model)
	first := l != nil && l.challenger.CompareAndSwap(c, nil)
	e.mu.Unlock()
	if !first {
		return
	}
	c.stop()
	e.cfg.Log.Error("challenger retired: a run missed its deadline", "model", c.manifest.Model, "release", c.digest.String(), "role", c.role)
	if e.cfg.ChallengerHung != nil {
		go e.cfg.ChallengerHung(c.manifest.Model, c.digest)
	}
}

// answer lets the challenger answer a call that is its part. done is false when
// the primary release has to: the call is not the challenger's, or it could not
// answer. held says that a run still reads the request's inputs.
func (c *challenger) answer(ctx context.Context, e *Engine, req *Request, id string, resp *Response) (done, held bool) {
	if c.role != RoleShare || req.Version != "" || !c.takes(req.Model, key(req, id)) {
		return false, false
	}
	s := c.lane.acquire()
	if s == nil {
		return false, false
	}
	call := newCall(req, s)
	call.ID, call.Role = id, RoleShare
	if call.Inputs, call.Rows, call.Err = s.check.request(req, call.ordered, c.lane.limits.MaxRows); call.Err != nil {
		s.refused.Add(1)
		s.unref()
		return false, false // if it is the caller's fault, the primary release says so
	}
	if len(call.Inputs) > 1 {
		call.ordered = call.Inputs
	}
	out := s.outputs(resp)
	owned := e.compute(ctx, c.lane, s, call, out, nil)
	if call.Err == nil {
		call.Outputs = out
	} else {
		c.fallbacks.Add(1)
	}
	e.served(s, call)
	s.respond(req, call, resp)
	done = call.Err == nil
	if !owned {
		e.hungChallenger(c)
		return false, true
	}
	s.unref()
	call.recycle()
	return done, false
}

// key is what a call is split by: its own key, or else its id.
func key(req *Request, id string) string {
	if req.Key != "" {
		return req.Key
	}
	return id
}

// challenges says whether s runs beside a primary release.
func (s *served) challenges() bool {
	return s.release.Role == RoleShadow || s.release.Role == RoleShare
}

// has says whether s serves already. A challenger that does gets its new share.
// The caller holds the engine's mu.
func (l *lane) has(s *served) bool {
	if !s.challenges() {
		old := l.current.Load()
		return old != nil && old.same(s)
	}
	c := l.challenger.Load()
	if c == nil || !c.same(s) || c.role != s.release.Role {
		return false
	}
	c.setShare(s.release)
	return true
}

// Challengers lists the releases that run beside the primary ones, by model.
func (e *Engine) Challengers() []Status {
	var list []Status
	for _, l := range *e.lanes.Load() {
		if c := l.challenger.Load(); c != nil && c.ref() {
			list = append(list, c.status())
			c.unref()
		}
	}
	sortStatus(list)
	return list
}

func (c *challenger) status() Status {
	road := c.lane
	if road == nil {
		road = &lane{} // a shadow computes on a thread of its own
	}
	st := c.served.status(road)
	st.Role, st.Share, st.Fallbacks = c.role, int(c.share.Load()), c.fallbacks.Load()
	if c.shadow != nil {
		st.Skipped, st.Waiting = c.shadow.lost.Load(), len(c.shadow.queue)
	}
	return st
}
