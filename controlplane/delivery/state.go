package delivery

import (
	"errors"
	"time"
)

// A delivery takes at most MaxAttempts attempts. With FirstWait doubling up to
// LongestWait that is five to nine hours: a night's outage of the receiver.
const (
	MaxAttempts = 20
	FirstWait   = time.Second
	LongestWait = time.Hour
)

// State is how one delivery stands. It is dead when it is neither done nor to be
// tried again.
type State struct {
	Attempts int    `json:"attempts"`
	LastMS   int64  `json:"last_ms"`
	NextMS   int64  `json:"next_ms,omitempty"` // next attempt, 0 when there is none
	Done     bool   `json:"done"`
	Error    string `json:"error,omitempty"` // of the last attempt
}

// Dead tells whether the delivery was given up.
func (s *State) Dead() bool { return !s.Done && s.NextMS == 0 }

// Due tells whether it is to be tried by now.
func (s *State) Due(now time.Time) bool {
	return !s.Done && s.NextMS != 0 && s.NextMS <= now.UnixMilli()
}

// Again lets a delivery that was given up begin anew.
func (s *State) Again(now time.Time) { *s = State{NextMS: now.UnixMilli(), LastMS: s.LastMS} }

// Tried takes in how an attempt ended. The jitter is drawn from 0 to 1.
func (s *State) Tried(now time.Time, err error, jitter float64) {
	s.Attempts++
	s.LastMS, s.NextMS, s.Done, s.Error = now.UnixMilli(), 0, err == nil, ""
	if err == nil {
		return
	}
	s.Error = err.Error()
	if wait, again := Backoff(s.Attempts, err, jitter); again {
		s.NextMS = now.Add(wait).UnixMilli()
	}
}

// Backoff says how long to wait after attempts, if another one is to be made:
// doubling with jitter from 0 to 1, and never shorter than the receiver asks for.
func Backoff(attempts int, err error, jitter float64) (wait time.Duration, again bool) {
	r, refused := errors.AsType[*Refusal](err)
	if refused && !r.Retryable() || attempts >= MaxAttempts {
		return 0, false
	}
	wait = LongestWait
	if attempts < 13 { // 2^12 s is beyond the longest
		wait = min(FirstWait<<(attempts-1), LongestWait)
	}
	wait = wait/2 + time.Duration(jitter*float64(wait/2))
	if refused {
		wait = max(wait, min(r.Wait, LongestWait))
	}
	return wait, true
}
