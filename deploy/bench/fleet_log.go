package main

import (
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// log is what agents saw and when, on this machine's clock, which is the
// server's too.
type log struct {
	mu     sync.Mutex // guards all below
	orders []order
	homes  map[string]arrival           // newest report that names a release as active, by device
	failed map[release.Digest]time.Time // first report of a failed update
	ill    map[release.Digest]time.Time // first window with failed rows
}

// order is a desired state that asked a device for another release.
type order struct {
	device   string
	release  release.Digest
	decision uint64 // ledger sequence
	at       time.Time
}

// arrival is when a device first reported a release as active.
type arrival struct {
	release release.Digest
	at      time.Time
}

func newLog() *log {
	return &log{homes: map[string]arrival{}, failed: map[release.Digest]time.Time{}, ill: map[release.Digest]time.Time{}}
}

func (l *log) ordered(device string, to release.Digest, decision uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orders = append(l.orders, order{device, to, decision, at})
}

// reported takes in what a device is about to report.
func (l *log) reported(device string, u *update, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.homes[device].release != u.active {
		l.homes[device] = arrival{u.active, at}
	}
	if u.outcome.GetResult() == resultFailed {
		first(l.failed, release.Digest(u.outcome.GetRelease()), at)
	}
}

// sick takes in a window with failed rows.
func (l *log) sick(d release.Digest, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first(l.ill, d, at)
}

func first(of map[release.Digest]time.Time, d release.Digest, at time.Time) {
	if _, known := of[d]; !known {
		of[d] = at
	}
}

// offers are the orders for a release that came since a moment.
func (l *log) offers(d release.Digest, since time.Time) []order {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []order
	for _, o := range l.orders {
		if o.release == d && o.at.After(since) {
			out = append(out, o)
		}
	}
	return out
}

// facts are when a release was first reported as failed and first seen to fail
// rows; zero for never.
func (l *log) facts(d release.Digest) (failed, ill time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed[d], l.ill[d]
}

// on tells how many devices reported a release as active, and when the last of
// them did so first.
func (l *log) on(d release.Digest) (devices int, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.homes {
		if a.release != d {
			continue
		}
		devices++
		if a.at.After(last) {
			last = a.at
		}
	}
	return devices, last
}
