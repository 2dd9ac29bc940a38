package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// model is the name under which the demo publishes its digit reader.
const model = "digits"

// camera feeds one device: it cycles through all held-out images, asks the
// device's local inference API what they show, and tells it the truth later.
// It counts what was answered, so that the fleet's totals can be checked
// against somebody who was there.
type camera struct {
	device string
	url    string // of the agent's local API
	images []image
	batch  int           // images per request
	every  time.Duration // between requests
	delay  time.Duration // until the truth is known
	http   *http.Client

	mu      sync.Mutex // guards the fields below
	lens    lens
	running bool
	resumed chan struct{} // closed to wake a paused camera
	idle    chan struct{} // closed when a pause has taken effect
	counts  tally
	cuts    int       // power cuts of the device so far
	dark    bool      // the device has not answered since the last of them
	version string    // that answered last
	changed time.Time // from the version before it; zero for the first
}

// tally is what a camera counted, by model version.
type tally struct {
	Rows    map[string]uint64 `json:"rows"`    // images answered
	Correct map[string]uint64 `json:"correct"` // of them, read right
	Labels  uint64            `json:"labels"`  // truths the device took
	Failed  uint64            `json:"failed"`  // requests without an answer, of a device that had power
	Last    string            `json:"last_error,omitempty"`
}

func newCamera(device, url string, images []image, p Pace) *camera {
	return &camera{
		device: device, url: url, images: images,
		batch: p.Batch, every: p.Every, delay: p.LabelDelay,
		http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4}},
		lens: unclouded, resumed: make(chan struct{}),
		counts: tally{Rows: map[string]uint64{}, Correct: map[string]uint64{}},
	}
}

// run takes pictures until the context ends, then hands in the labels still due.
func (c *camera) run(ctx context.Context) {
	var labels sync.WaitGroup
	defer labels.Wait()
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for at := 0; ; at += c.batch {
		if !c.awaitGo(ctx) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		batch := c.take(at)
		id := c.device + "-" + strconv.Itoa(at)
		if !c.ask(ctx, id, batch) {
			continue
		}
		labels.Go(func() {
			select {
			case <-ctx.Done():
			case <-time.After(c.delay):
				c.tell(ctx, id, batch)
			}
		})
	}
}

// awaitGo blocks while the camera is paused. It returns false when ctx ends.
func (c *camera) awaitGo(ctx context.Context) bool {
	c.mu.Lock()
	running, resumed := c.running, c.resumed
	if !running && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
	c.mu.Unlock()
	if running {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-resumed:
		return true
	}
}

func (c *camera) take(at int) []image {
	c.mu.Lock()
	through := c.lens
	c.mu.Unlock()
	batch := make([]image, c.batch)
	for i := range batch {
		batch[i] = through(c.images[(at+i)%len(c.images)])
	}
	return batch
}

// The messages of the Open Inference Protocol the camera needs.
type (
	inferRequest struct {
		ID     string        `json:"id"`
		Inputs []inferTensor `json:"inputs"`
	}
	inferTensor struct {
		Name     string    `json:"name"`
		Datatype string    `json:"datatype"`
		Shape    []int     `json:"shape"`
		Data     []float32 `json:"data"`
	}
	inferResponse struct {
		Version string        `json:"model_version"`
		Outputs []inferTensor `json:"outputs"`
	}
	feedback struct {
		Labels []label `json:"labels"`
	}
	label struct {
		ID    string `json:"id"`
		Label int    `json:"label"`
	}
)

// ask has one batch read and counts the answers.
func (c *camera) ask(ctx context.Context, id string, batch []image) bool {
	input := inferTensor{Name: "X", Datatype: "FP32", Shape: []int{len(batch), side * side}}
	for _, img := range batch {
		input.Data = append(input.Data, img.pixels[:]...)
	}
	cuts := c.powerCuts()
	var answer inferResponse
	err := c.post(ctx, "/infer", inferRequest{ID: id, Inputs: []inferTensor{input}}, &answer)
	if ctx.Err() != nil {
		return false
	}
	read, err := readLabels(answer, len(batch), err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if !c.dark && cuts == c.cuts {
			c.counts.Failed++
			c.counts.Last = err.Error()
		}
		return false
	}
	c.dark = c.dark && cuts != c.cuts // this answer may be from before the cut
	if answer.Version != c.version {
		if c.version != "" {
			c.changed = time.Now()
		}
		c.version = answer.Version
	}
	c.counts.Rows[answer.Version] += uint64(len(batch))
	for i, img := range batch {
		if int(read[i]) == img.digit {
			c.counts.Correct[answer.Version]++
		}
	}
	return true
}

func readLabels(answer inferResponse, rows int, err error) ([]float32, error) {
	if err != nil {
		return nil, err
	}
	for _, out := range answer.Outputs {
		if out.Name == "label" && len(out.Data) == rows {
			return out.Data, nil
		}
	}
	return nil, fmt.Errorf("the answer holds no label for each of %d images", rows)
}

// tell hands in what the images really showed.
func (c *camera) tell(ctx context.Context, id string, batch []image) {
	var f feedback
	for i, img := range batch {
		f.Labels = append(f.Labels, label{ID: id + "/" + strconv.Itoa(i), Label: img.digit})
	}
	err := c.post(ctx, "/feedback", f, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.counts.Labels += uint64(len(batch))
	} else if ctx.Err() == nil {
		c.counts.Last = err.Error()
	}
}

func (c *camera) post(ctx context.Context, path string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/v2/models/"+model+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, bytes.TrimSpace(got))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(got, answer)
}

// powerCut tells the camera that its device loses power now. Until the device
// answers again, requests without an answer are not the device's fault.
func (c *camera) powerCut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cuts++
	c.dark = true
}

func (c *camera) powerCuts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts
}

// versionChanged is when the version that answers now took over from another;
// zero when there was no other.
func (c *camera) versionChanged() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// through changes the lens from the next picture on.
func (c *camera) through(l lens) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lens = l
}

// start and pause let the camera take pictures or not. pause returns when the
// last request has been answered.
func (c *camera) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running {
		c.running = true
		close(c.resumed)
	}
}

func (c *camera) pause(ctx context.Context) {
	c.mu.Lock()
	if !c.running {
		c.mu.Unlock()
		return
	}
	idle := make(chan struct{})
	c.running, c.resumed, c.idle = false, make(chan struct{}), idle
	c.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-idle:
	}
}

func (c *camera) tally() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.counts
	t.Rows, t.Correct = maps.Clone(t.Rows), maps.Clone(t.Correct)
	return t
}
