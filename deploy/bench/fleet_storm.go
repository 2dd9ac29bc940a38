package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// stormAllowance is what the bar of a storm allows beyond its jitter: an agent
// that draws the longest wait still has to connect.
const stormAllowance = time.Second

// storm drops all connections at one moment, as a router or a load balancer
// does, and waits until every agent is back and the server holds all that they
// counted.
func (b *bench) storm(ctx context.Context) error {
	f, before, err := b.fleetAndGauge(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	cut, err := cutAll(f.brokers[0][len("mqtts://"):])
	if err != nil {
		return err
	}
	b.say("  %d connections dropped", cut)
	if err := f.until(ctx, 10*f.size.jitter+time.Minute, "all agents to come back", func() error { return f.connected(began) }); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := f.gauge(ctx)
	if err != nil {
		return err
	}
	b.atMost(Figure{
		Part: "storm", What: "all dropped to the last agent subscribed again", Value: took.Seconds(), Unit: "s",
		Detail: fmt.Sprintf("%d connections; agents wait up to %v; server at %.0f %% of a core", cut, f.size.jitter, after.core(before)),
	}, (f.size.jitter + stormAllowance).Seconds())
	b.atMost(Figure{Part: "storm", What: "peak resident memory of the server", Value: f.server.peaked() / (1 << 30), Unit: "GiB"}, maxResident)
	return f.nothingLost(ctx)
}

// cutAll shuts every connection of this process to an address, without a word
// to whoever uses it.
func cutAll(address string) (cut int, err error) {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return 0, fmt.Errorf("read the broker's address: %w", err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("read the broker's address: %w", err)
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, fmt.Errorf("list connections: %w", err)
	}
	for _, file := range files {
		fd, err := strconv.Atoi(file.Name())
		if err != nil {
			continue
		}
		peer, err := syscall.Getpeername(fd) // fails for what is no connection
		if to, ok := peer.(*syscall.SockaddrInet4); err == nil && ok && to.Port == port && syscall.Shutdown(fd, syscall.SHUT_RDWR) == nil {
			cut++
		}
	}
	return cut, nil
}

// nothingLost waits until every record has its receipt, and compares what the
// agents counted with what the server did.
func (f *fleet) nothingLost(ctx context.Context) error {
	var sent, held, lost uint64
	began := time.Now()
	err := f.until(ctx, 2*time.Minute+f.size.report, "the server to hold what was counted", func() (err error) {
		if !pause(ctx, min(time.Second, f.size.report/5)) {
			return ctx.Err()
		}
		// Agents go on counting: the server is asked between two looks at them.
		before, waiting := f.counted()
		if held, lost, err = f.held(ctx); err != nil {
			return err
		}
		sent, _ = f.counted()
		if held < before || held > sent || waiting > 0 {
			return fmt.Errorf("agents counted %d rows, the server holds %d, %d records wait for a receipt", before, held, waiting)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if refused := f.refused(); refused != "" {
		return fmt.Errorf("the server refused a record: %s", refused)
	}
	f.b.atMost(Figure{
		Part: "storm", What: "rows lost", Value: float64(lost), Unit: "rows",
		Detail: fmt.Sprintf("%d counted by agents, %d held by the server, every record receipted, %.0f s after the last came back", sent, held, time.Since(began).Seconds()),
	}, 0)
	return nil
}

// counted is what all agents counted in this run, and how many records have no
// receipt.
func (f *fleet) counted() (rows uint64, waiting int) {
	for _, a := range f.devices {
		n, w, _ := a.box.sizes()
		rows += n
		waiting += w
	}
	return rows, waiting
}

func (f *fleet) refused() string {
	for _, a := range f.devices {
		if _, _, why := a.box.sizes(); why != "" {
			return a.id + ": " + why
		}
	}
	return ""
}

// held is what the server counted in this run, and what it says is lost.
func (f *fleet) held(ctx context.Context) (rows, lost uint64, err error) {
	totals, err := f.client.Totals(ctx, operator.TotalQuery{})
	if err != nil {
		return 0, 0, err
	}
	for _, t := range totals.Items {
		rows += t.Rows + t.FailedRows
	}
	for _, l := range totals.Lost {
		lost += l.Rows
	}
	return rows - f.heldBefore, lost, nil
}
