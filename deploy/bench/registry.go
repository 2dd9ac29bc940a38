package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// registryParts are what the registry and the tracking of runs are measured by.
func registryParts() []part {
	return []part{
		{"runs", "100,000 runs over the MLflow API: loading, searching, memory, restart", (*bench).trackedRuns},
		{"telemetry", "bytes and CPU of a day of 10 million predictions by a thousand devices", (*bench).telemetry},
	}
}

// Bars of the tracking of runs, for 100,000 runs of 10 metrics on 2 cores.
const (
	barLogBatch = 2000 // a second
	barSearch   = 50   // ms, p99
	barMemory   = 500  // MB resident
)

const (
	manyRuns   = 100_000
	quickRuns  = 2000
	runMetrics = 10
	loaders    = 32
	logFor     = 15 * time.Second
	searches   = 200
)

// tracker is a client of the MLflow API, and what it has logged.
type tracker struct {
	b          *bench
	plant      *plant
	http       *http.Client
	experiment string
	runs       []string
}

func (b *bench) trackedRuns(ctx context.Context) error {
	t := &tracker{b: b, http: &http.Client{
		Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * loaders},
	}}
	defer t.http.CloseIdleConnections()
	if b.plant == nil {
		b.plant = &plant{b: b}
		b.say("  starting a control plane")
		if err := b.plant.serve(ctx); err != nil {
			return err
		}
	}
	t.plant = b.plant
	for _, step := range []func(context.Context) error{t.load, t.logBatches, t.search, t.searchWhileLogging, t.memory, t.restart, t.disk} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// call makes one call of the API. Into may be nil.
func (t *tracker) call(ctx context.Context, path string, body, into any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+t.plant.http+"/api/2.0/mlflow/"+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+t.plant.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := t.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.200s", path, resp.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// each calls fn for numbers below n from many clients at once.
func each(ctx context.Context, n int, fn func(ctx context.Context, i int) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range loaders {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := fn(ctx, int(i)); err != nil {
					stop(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// load logs the runs as a client does: create, then one batch with what a
// training script has to say.
func (t *tracker) load(ctx context.Context) error {
	n := manyRuns
	if t.b.quick {
		n = quickRuns
	}
	n = cmp.Or(t.b.runs, n)
	var made struct {
		ID string `json:"experiment_id"`
	}
	if err := t.call(ctx, "experiments/create", map[string]any{"name": "bench-" + strconv.FormatInt(time.Now().UnixNano(), 36)}, &made); err != nil {
		return err
	}
	t.experiment, t.runs = made.ID, make([]string, n)
	t.b.say("  logging %d runs of %d metrics over HTTP", n, runMetrics)
	began := time.Now()
	err := each(ctx, n, func(ctx context.Context, i int) error {
		id, err := t.newRun(ctx, began, i)
		t.runs[i] = id
		return err
	})
	took := time.Since(began).Seconds()
	t.b.add(Figure{Part: "runs", What: "runs logged", Value: float64(n) / took, Unit: "runs/s", Detail: fmt.Sprintf("%d runs by %d clients; a run is 2 calls", n, loaders)})
	return err
}

func (t *tracker) newRun(ctx context.Context, began time.Time, i int) (string, error) {
	var made struct {
		Run struct {
			Info struct {
				ID string `json:"run_id"`
			} `json:"info"`
		} `json:"run"`
	}
	err := t.call(ctx, "runs/create", map[string]any{
		"experiment_id": t.experiment, "start_time": began.UnixMilli() + int64(i), "run_name": "train-" + strconv.Itoa(i),
		"tags": []any{
			pairOf("mlflow.user", "ada"), pairOf("mlflow.source.name", "train.py"), pairOf("mlflow.source.type", "LOCAL"),
			pairOf("mlflow.source.git.commit", fmt.Sprintf("%040x", i/50)),
		},
	}, &made)
	if err != nil {
		return "", err
	}
	batch := t.batch(made.Run.Info.ID, 0)
	batch["params"] = []any{
		pairOf("learning_rate", strconv.FormatFloat(float64(i%20)/100, 'g', -1, 64)), pairOf("depth", strconv.Itoa(i%13)),
		pairOf("optimizer", []string{"adam", "sgd"}[i%2]), pairOf("seed", strconv.Itoa(i)), pairOf("data", fmt.Sprintf("%064x", i/1000)),
	}
	return made.Run.Info.ID, t.call(ctx, "runs/log-batch", batch, nil)
}

func pairOf(key, value string) map[string]string {
	return map[string]string{"key": key, "value": value}
}

// batch is one step of a training, ten metrics.
func (*tracker) batch(run string, step int) map[string]any {
	values := make([]any, runMetrics)
	for k := range values {
		values[k] = map[string]any{
			"key": "metric_" + strconv.Itoa(k), "value": rand.Float64(), "timestamp": time.Now().UnixMilli(), "step": step, //nolint:gosec // keeps no secret
		}
	}
	return map[string]any{"run_id": run, "metrics": values}
}

// logBatches measures how fast steps of trainings are logged: each client waits
// for the answer, which comes when the batch is on disk.
func (t *tracker) logBatches(ctx context.Context) error {
	during := logFor
	if t.b.quick {
		during = time.Second
	}
	n, took, err := t.logDuring(ctx, during)
	t.b.atLeast(Figure{
		Part: "runs", What: "log-batch", Value: float64(len(n)) / took.Seconds(), Unit: "calls/s",
		Detail: fmt.Sprintf("%d clients, %d metrics a call, p99 %.0f ms; every answer after a sync of the disk; clients on the same cores", loaders, runMetrics, quantile(n, 0.99)),
	}, barLogBatch)
	return err
}

// logDuring logs from all clients for a time, and returns how many milliseconds
// each call took.
func (t *tracker) logDuring(ctx context.Context, during time.Duration) (ms []float64, took time.Duration, err error) {
	var mu sync.Mutex
	began := time.Now()
	err = each(ctx, loaders, func(ctx context.Context, client int) error {
		for step := 1; time.Since(began) < during; step++ {
			sent := time.Now()
			if err := t.call(ctx, "runs/log-batch", t.batch(t.runs[client*len(t.runs)/loaders], step), nil); err != nil {
				return err
			}
			mu.Lock()
			ms = append(ms, float64(time.Since(sent).Microseconds())/1000)
			mu.Unlock()
		}
		return nil
	})
	return ms, time.Since(began), err
}

// searchesOf are what people and their scripts ask for.
func searchesOf() []struct{ name, filter, order string } {
	return []struct{ name, filter, order string }{
		{"newest runs", "", "attributes.start_time DESC"},
		{"best by a metric", "", "metrics.metric_5 DESC"},
		{"metric filter and order", "metrics.metric_3 > 0.5", "metrics.metric_9 ASC"},
		{"params, tags and a metric", "params.optimizer = 'adam' and params.depth != '3' and tags.mlflow.user = 'ada' and metrics.metric_1 < 0.9", "params.learning_rate DESC"},
		{"name like", "attributes.run_name LIKE 'train-%99'", "attributes.start_time ASC"},
		{"one of all", "params.seed = '77'", ""},
	}
}

// search measures each query alone, one after the other.
func (t *tracker) search(ctx context.Context) error {
	server := watchProcess(t.plant.control.cmd.Process.Pid)
	defer server.close()
	for _, q := range searchesOf() {
		before, err := server.cpu()
		if err != nil {
			return err
		}
		ms, err := t.searchMany(ctx, q.filter, q.order)
		if err != nil {
			return fmt.Errorf("search %s: %w", q.name, err)
		}
		after, err := server.cpu()
		if err != nil {
			return err
		}
		t.b.atMost(Figure{
			Part: "runs", What: "search p99: " + q.name, Value: quantile(ms, 0.99), Unit: "ms",
			Detail: fmt.Sprintf("p50 %.1f ms, %.1f ms of processor time of the server; %d searches among %d runs, pages of 100",
				median(ms), (after-before).Seconds()*1000/float64(len(ms)), len(ms), len(t.runs)),
		}, barSearch)
	}
	return nil
}

func (t *tracker) searchMany(ctx context.Context, filter, order string) (ms []float64, err error) {
	ask := map[string]any{"experiment_ids": []string{t.experiment}, "filter": filter, "max_results": 100}
	if order != "" {
		ask["order_by"] = []string{order}
	}
	for range t.b.rounds(searches) {
		var answer struct {
			Runs []json.RawMessage `json:"runs"`
		}
		sent := time.Now()
		if err := t.call(ctx, "runs/search", ask, &answer); err != nil {
			return nil, err
		}
		ms = append(ms, float64(time.Since(sent).Microseconds())/1000)
		if len(answer.Runs) == 0 {
			return nil, errors.New("it found nothing")
		}
	}
	return ms, nil
}

// searchWhileLogging shows what searches and batches cost each other.
func (t *tracker) searchWhileLogging(ctx context.Context) error {
	during := 5 * time.Second
	if t.b.quick {
		during = 500 * time.Millisecond
	}
	var searched []float64
	searching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for searching.Err() == nil {
			sent := time.Now()
			if t.call(searching, "runs/search", map[string]any{
				"experiment_ids": []string{t.experiment}, "filter": "metrics.metric_3 > 0.5", "order_by": []string{"metrics.metric_9"}, "max_results": 100,
			}, nil) == nil {
				searched = append(searched, float64(time.Since(sent).Microseconds())/1000)
			}
		}
	}()
	ms, took, err := t.logDuring(ctx, during)
	stop()
	<-done
	t.b.add(Figure{
		Part: "runs", What: "log-batch while one searches", Value: float64(len(ms)) / took.Seconds(), Unit: "calls/s",
		Detail: fmt.Sprintf("p99 %.0f ms; %d searches meanwhile, p99 %.0f ms", quantile(ms, 0.99), len(searched), quantile(searched, 0.99)),
	})
	return err
}

func (t *tracker) memory(context.Context) error {
	w := watchProcess(t.plant.control.cmd.Process.Pid)
	defer w.close()
	now, err := w.resident()
	t.b.atMost(Figure{
		Part: "runs", What: "resident memory of the server", Value: now / 1e6, Unit: "MB", Detail: fmt.Sprintf("all of the control plane with %d runs, after all of the above", len(t.runs)),
	}, barMemory)
	return err
}

// restart stops the server in order and starts it on the same data.
func (t *tracker) restart(ctx context.Context) error {
	began := time.Now()
	if err := t.plant.control.stop(); err != nil {
		return err
	}
	stopped := time.Since(began)
	began = time.Now()
	if err := t.plant.serve(ctx); err != nil {
		return err
	}
	t.b.add(Figure{Part: "runs", What: "start of the server", Value: time.Since(began).Seconds(), Unit: "s", Detail: fmt.Sprintf("with %d runs from the checkpoint; its stop took %.1f s", len(t.runs), stopped.Seconds())})
	var found struct {
		Runs []json.RawMessage `json:"runs"`
	}
	if err := t.call(ctx, "runs/search", map[string]any{"experiment_ids": []string{t.experiment}, "max_results": 50_000}, &found); err != nil {
		return err
	}
	if want := min(50_000, len(t.runs)); len(found.Runs) != want {
		return fmt.Errorf("after the restart %d runs are found, not %d", len(found.Runs), want)
	}
	return nil
}

func (t *tracker) disk(context.Context) error {
	var size int64
	err := filepath.WalkDir(t.b.path("control"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	t.b.add(Figure{Part: "runs", What: "data on disk", Value: float64(size) / 1e6, Unit: "MB", Detail: "journal with all histories, and checkpoint"})
	return err
}
