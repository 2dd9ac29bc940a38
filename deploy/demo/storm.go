package demo

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// storm cuts the power of random programs at random moments. The seed fixes the
// dice; what they hit depends on the machine's pace.
type storm struct {
	dice *rand.Rand
	stop context.CancelFunc
	over sync.WaitGroup
	err  error // guarded by plant.power: what could not be switched on again
}

// How the storm goes: a hit every three seconds or so, every fourth at the
// control plane.
const (
	calmAtLeast, calmAtMost = time.Second, 5 * time.Second
	controlShare            = 0.25
	// twiceShare of the hits at the control plane come twice, the second while
	// it starts, within startsFor.
	twiceShare = 0.4
	startsFor  = 800 * time.Millisecond
	// mostPerVersion power cuts hit a device while one version serves: one more
	// within ten minutes would be a crash loop to it, and it would rightly go back.
	mostPerVersion = 2
	// switching is how long a version may serve before its camera hears of it.
	switching = 2 * time.Second
)

// brew begins the storm, if there is to be one.
func (p *plant) brew() {
	if p.opts.Chaos == 0 {
		return
	}
	var ctx context.Context
	ctx, p.storm.stop = context.WithCancel(p.ctx)
	p.storm.dice = rand.New(rand.NewPCG(p.opts.Chaos, 0)) //nolint:gosec // repeatable dice are the point
	p.storm.over.Go(func() {
		for pass(ctx, p.storm.between(calmAtLeast, calmAtMost)) == nil {
			if err := p.strike(ctx); err != nil && ctx.Err() == nil {
				p.power.Lock()
				p.storm.err = err
				p.power.Unlock()
				return
			}
		}
	})
}

// calm ends the storm; everything has power when it returns.
func (p *plant) calm() {
	if p.storm.stop != nil {
		p.storm.stop()
	}
	p.storm.over.Wait()
}

func (s *storm) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.dice.Int64N(int64(most-least)))
}

// strike hits one program.
func (p *plant) strike(ctx context.Context) error {
	if p.storm.dice.Float64() < controlShare {
		return p.strikeControl(ctx)
	}
	targets := p.targets()
	if len(targets) == 0 {
		return nil
	}
	return p.crash(targets[p.storm.dice.IntN(len(targets))])
}

// strikeControl lets the control plane come up in any case: a storm that ends
// leaves a whole plant behind.
func (p *plant) strikeControl(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if p.storm.dice.Float64() >= twiceShare {
		return p.restartControl(ctx)
	}
	p.power.Lock()
	defer p.power.Unlock()
	p.killControl()
	if err := p.launchControl(); err != nil {
		return err
	}
	if err := pass(ctx, p.storm.between(0, startsFor)); err != nil {
		return err
	}
	p.killControl()
	if err := p.launchControl(); err != nil {
		return err
	}
	return p.awaitControl(ctx)
}

// targets are the devices that may lose power now, sorted.
func (p *plant) targets() []string {
	p.power.Lock()
	defer p.power.Unlock()
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(p.agents)) {
		a := p.agents[id]
		since := a.camera.versionChanged().Add(-switching)
		recent := 0
		for _, at := range a.kills {
			if at.After(since) {
				recent++
			}
		}
		if a.process != nil && recent < mostPerVersion {
			ids = append(ids, id)
		}
	}
	return ids
}

// persist does what a person does whose command a power cut came between: gives
// it again until it is answered. What is not the same when done twice, do has to
// look for first.
func (p *plant) persist(ctx context.Context, what string, do func() error) error {
	if p.opts.Chaos == 0 {
		return do()
	}
	return until(ctx, time.Minute, what, do)
}

// killed counts the power cuts by program; nil when there were none.
func (p *plant) killed() map[string]int {
	p.power.Lock()
	defer p.power.Unlock()
	kills := map[string]int{}
	if p.lostPower > 0 {
		kills["vedette-control"] = p.lostPower
	}
	for id, a := range p.agents {
		if len(a.kills) > 0 {
			kills[id] = len(a.kills)
		}
	}
	if len(kills) == 0 {
		return nil
	}
	return kills
}
