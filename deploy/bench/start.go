package main

import (
	"context"
	"fmt"
	"time"
)

// starting stops the agent and times it from its start to its first answer.
func (b *bench) starting(ctx context.Context) error {
	p, err := b.standing(ctx)
	if err != nil {
		return err
	}
	var took []float64
	for range b.rounds(15) {
		if err := p.agent.stop(); err != nil {
			return err
		}
		start := time.Now()
		if p.agent, err = b.start("vedette-agent", "run", "--config", b.path("agent.yaml")); err != nil {
			return err
		}
		if err := p.firstAnswer(ctx); err != nil {
			return err
		}
		took = append(took, time.Since(start).Seconds()*1e3)
	}
	b.atMost(Figure{
		Part: "start", What: "start of the process to its first prediction, median", Value: median(took), Unit: "ms",
		Detail: fmt.Sprintf("%.0f to %.0f ms over %d starts; an absolute time", quantile(took, 0), quantile(took, 1), len(took)),
	}, 150)
	return nil
}

// firstAnswer asks every millisecond until the model answers.
func (p *plant) firstAnswer(ctx context.Context) error {
	body, path := inferRequest([][]float32{image()}), "/v2/models/"+model+"/infer"
	deadline := time.Now().Add(patience)
	for {
		c, err := dial(ctx, p.listen, path, body)
		if err == nil {
			err = c.ask()
			_ = c.conn.Close() // only read from
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("wait for the first answer: %w", err)
		}
		time.Sleep(time.Millisecond)
	}
}
