package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Options of a run.
type Options struct {
	// Bin holds the programs vedette, vedette-agent and vedette-control.
	Bin string
	// Dir takes everything the run makes: keys, data, logs. It is emptied first.
	Dir string
	// HTTP is where the dashboard listens, "host:port"; empty for a free port.
	HTTP string
	// Pace of the story; TwoMinutes() when zero.
	Pace Pace
	// Kill adds power cuts: agents and the control plane are killed on the way
	// and started again.
	Kill bool
	// Chaos, when not zero, seeds power cuts at random moments of the whole
	// story, of any device and of the control plane.
	Chaos uint64
	// Stay keeps everything running after the last step, until the context ends.
	Stay bool
	// Log takes what a person should see as it happens.
	Log io.Writer
}

// Pace is how fast the story goes.
type Pace struct {
	Batch      int           // images in one request
	Every      time.Duration // between two requests of a camera
	LabelDelay time.Duration // until the truth about an image is known

	Window, Snapshot, Report time.Duration // asked of the devices
	Score                    time.Duration // how often drift is scored
	MaxAge                   time.Duration // how far back windows count for a verdict
	Soak                     time.Duration // of a wave
	Cut                      time.Duration // how long a site's link is down
}

// TwoMinutes tells the story in about two minutes on two cores: every camera has
// shown all 540 images once after nine seconds.
func TwoMinutes() Pace {
	return Pace{
		Batch: 10, Every: 160 * time.Millisecond, LabelDelay: 2 * time.Second,
		Window: 4 * time.Second, Snapshot: 2 * time.Second, Report: 2 * time.Second,
		Score: 2 * time.Second, MaxAge: 24 * time.Second, Soak: 5 * time.Second, Cut: 10 * time.Second,
	}
}

// Result is what a run showed.
type Result struct {
	OK      bool         `json:"ok"`
	Seconds float64      `json:"seconds"`
	Steps   []StepResult `json:"steps"`
	// Kills counts the power cuts by program.
	Kills map[string]int `json:"kills,omitempty"`
}

// StepResult is one numbered step with the numbers it was judged by.
type StepResult struct {
	Step    int            `json:"step"`
	Name    string         `json:"name"`
	OK      bool           `json:"ok"`
	Seconds float64        `json:"seconds"`
	Numbers map[string]any `json:"numbers,omitempty"`
	Error   string         `json:"error,omitempty"`
}

// ErrFailed says that a step did not hold; the result says which.
var ErrFailed = errors.New("the demo did not go as it should")

// Run tells the story. The result is complete up to the step that failed.
func Run(ctx context.Context, opts Options) (*Result, error) {
	if opts.Pace == (Pace{}) {
		opts.Pace = TwoMinutes()
	}
	if opts.Log == nil {
		opts.Log = io.Discard
	}
	leave, err := claim(ctx, opts.Dir, opts.HTTP)
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	p, err := newPlant(opts)
	if err != nil {
		cancel()
		return nil, err
	}
	defer p.close()
	defer cancel() // cameras first
	result := tell(ctx, p)
	result.Kills = p.killed()
	if !result.OK && ctx.Err() == nil {
		return result, ErrFailed
	}
	if opts.Stay && ctx.Err() == nil {
		fmt.Fprintf(opts.Log, "\nThe story is told; the fleet goes on. %s\nCtrl-C ends it.\n", p.whereToLook())
		p.resumeAll()
		<-ctx.Done()
		return result, nil // Ctrl-C is how this one is meant to end
	}
	return result, ctx.Err()
}

// tell goes through the steps and stops at the first that does not hold.
func tell(ctx context.Context, p *plant) *Result {
	began := time.Now()
	result := &Result{OK: true}
	defer p.calm()
	for i, s := range story() {
		at := time.Now()
		fmt.Fprintf(p.opts.Log, "%d/8  %s\n", i+1, s.name)
		numbers, err := s.do(p, ctx)
		err = errors.Join(err, p.anyDied())
		r := StepResult{Step: i + 1, Name: s.name, OK: err == nil, Seconds: seconds(time.Since(at)), Numbers: numbers}
		if err != nil {
			r.Error, result.OK = err.Error(), false
		}
		result.Steps = append(result.Steps, r)
		p.note(r)
		if err != nil {
			break
		}
	}
	result.Seconds = seconds(time.Since(began))
	return result
}

// note prints what a step showed.
func (p *plant) note(r StepResult) {
	if r.Error != "" {
		fmt.Fprintf(p.opts.Log, "     FAILED: %s\n     logs: %s\n", r.Error, p.opts.Dir)
		return
	}
	numbers, err := json.Marshal(r.Numbers)
	if err != nil {
		numbers = []byte(err.Error())
	}
	fmt.Fprintf(p.opts.Log, "     ok in %.1f s  %s\n", r.Seconds, numbers)
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
