package main

import (
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// Times of a device's session, those of package uplink.
const (
	helloEvery = 5 * time.Minute
	backOff    = 2 * time.Second // before the second try to connect, doubled by each further one
	mostOff    = 5 * time.Minute
)

// link is a device's session with the server over a network that loses,
// repeats, delays and reorders what it is given.
type link struct {
	d     *device
	open  bool
	n     int // sessions so far: what belongs to an earlier one is gone
	tries int // to connect since the last session
}

// up opens a session, now or as soon as there is a network and a server.
func (l *link) up() {
	d := l.d
	n := l.n
	l.d.w.after(d.w.between(50*time.Millisecond, 2*time.Second), func() {
		if l.open || l.n != n || !d.on || d.gone() {
			return
		}
		if !d.site.open || !d.w.server.up {
			l.tries++
			l.drop(d.w.between(time.Second, min(backOff<<min(l.tries, 10), mostOff)))
			return
		}
		l.open, l.tries = true, 0
		d.hello()
		d.sendRecords()
		d.report()
	})
}

// drop ends the session. The next one is tried after a while, or never when that
// is negative.
func (l *link) drop(again time.Duration) {
	l.open = false
	l.n++
	if again < 0 {
		return
	}
	n := l.n
	l.d.w.after(again, func() {
		if l.n == n && l.d.on {
			l.up()
		}
	})
}

// send gives the network a message for the server.
func (l *link) send(m *protocol.Up) {
	if !l.open {
		return
	}
	d := l.d
	m.Sent = d.stamp()
	l.carry(func() { d.w.server.receive(d, m) })
}

// down gives the network a message for the device.
func (l *link) down(m *protocol.Down) {
	if l.open {
		l.carry(func() { l.d.hears(m) })
	}
}

// carry delivers something never, once or twice, after a while each time.
func (l *link) carry(deliver func()) {
	w := l.d.w
	if w.often(w.trouble.loss) {
		w.count("message lost")
		return
	}
	w.after(l.delay(), deliver)
	if w.often(w.trouble.repeat) {
		w.count("message repeated")
		w.after(l.delay(), deliver)
	}
}

// delay is how long a message takes: as a rule a moment, sometimes days.
func (l *link) delay() time.Duration {
	w := l.d.w
	if !w.often(w.trouble.late) {
		return w.between(10*time.Millisecond, 400*time.Millisecond)
	}
	w.count("message delayed")
	return w.between(time.Second, []time.Duration{time.Minute, time.Hour, days(2)}[w.rnd.IntN(3)])
}
