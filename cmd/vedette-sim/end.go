package main

import (
	"bytes"
	"fmt"

	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/runner"
)

// atRest says whether nothing is left to happen.
func (c *checker) atRest() bool { return c.restless() == "" }

// restless names the first thing that has not come to an end.
func (c *checker) restless() string {
	for _, id := range c.ids() {
		if h := c.rollouts[id].state.Header; !h.Status.Final() {
			return fmt.Sprintf("%s is %s", id, h.Status)
		}
	}
	for _, d := range c.w.devices {
		if why := c.unlike(d); why != "" {
			return d.id + " " + why
		}
	}
	return ""
}

// unlike says in what a device that can be reached is not yet as the server
// wants it and has not said why.
func (c *checker) unlike(d *device) string {
	if !d.enrolled {
		return "was never enrolled"
	}
	if entry, _ := c.w.server.fleet.Device(d.id); d.gone() || entry.Revoked != nil {
		return ""
	}
	wi := c.wish(d.id)
	want := wi.releases[model].Release
	held := d.disk.held
	switch {
	case !d.on || !d.link.open:
		return "is not connected"
	case held.GetGeneration() != wi.generation:
		return fmt.Sprintf("holds generation %d of %d", held.GetGeneration(), wi.generation)
	case held != nil && contentOf(held) != wi.content() && d.orphan == held.GetGeneration():
		// A ledger put back to a backup has given this number out again, and a
		// hello does not say of which ledger a generation is. The next change ends it.
		c.w.count("orphaned generation")
		return ""
	case held != nil && contentOf(held) != wi.content():
		return fmt.Sprintf("holds %q, is to hold %q", contentOf(held), wi.content())
	case d.machine.State != update.Idle:
		return "is " + string(d.machine.State)
	case d.beside.machine.State != update.Idle:
		return "has a shadow that is " + string(d.beside.machine.State)
	case !d.beside.machine.Active.IsZero() && d.beside.machine.Active != d.shadow().Release:
		return "runs a shadow that nobody asked for"
	case d.serving != d.slots.active:
		return "serves another release than it has active"
	case d.slots.active != want && !explained(d, wi):
		return fmt.Sprintf("runs %s, is to run %s and does not say why not", c.w.version(d.slots.active), c.w.version(want))
	case d.book.Pending()+d.book.Held() > 0:
		return "has records to send"
	}
	return ""
}

// explained says whether a device has said why it does not run what it is to run.
func explained(d *device, wi *wish) bool {
	want := update.Want{Release: wi.releases[model].Release, Decision: wi.decision}
	last := d.machine.Last
	return refusedBefore(&d.machine, want) || last.Failed() && last.Release == want.Release && last.Decision == want.Decision ||
		wi.releases[model].Model == "" // nobody ever said what it is to run
}

// atTheEnd checks what must hold when all is over: the ledger is whole, every
// decision follows from its facts, and the counts of every device that has sent
// all are exact.
func (c *checker) atTheEnd() {
	c.restarted()
	var export bytes.Buffer
	if err := c.w.server.ledger.Export(c.w.ctx, &export); err != nil {
		c.w.fail("export: %w", err)
	}
	if _, err := ledger.Audit(&export); err != nil {
		c.w.fail("audit: %w", err)
	}
	for _, id := range c.ids() {
		records, err := c.w.server.ledger.Read(c.w.ctx, desired.RolloutChain(id))
		if err == nil {
			err = runner.Verify(records)
		}
		if err != nil {
			c.w.fail("replay of %s: %w", id, err)
		}
	}
	for _, d := range c.w.devices {
		c.exact(d)
	}
}

// exact compares what the server counts of a device with what it has generated.
func (c *checker) exact(d *device) {
	entry, _ := c.w.server.fleet.Device(d.id)
	t := c.totals[d.id]
	if d.gone() || entry.Revoked != nil || t == nil {
		return
	}
	if sum := plusSum(t.held, t.lost); sum != d.generated {
		c.w.fail("%s has generated %+v, the server holds %+v and counts %+v as lost", d.id, d.generated, t.held, t.lost)
	}
	c.settings(d)
}

// settings compares the labels that a device was told with the ledger's.
func (c *checker) settings(d *device) {
	if s := d.disk.held.GetSettings(); s != nil && d.orphan != d.disk.held.GetGeneration() && fmt.Sprint(s.GetLabels()) != fmt.Sprint(c.wish(d.id).labels) {
		c.w.fail("%s was told labels %v", d.id, s.GetLabels())
	}
}
