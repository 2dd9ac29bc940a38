package demo

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// gatesFile is what every version has to show before it goes to devices.
const gatesFile = `gates:
  - name: smoke
    kind: smoke
    min_rows: 500
  - name: accuracy
    kind: metric
    metric: accuracy
    at_least: 0.9
  - name: champion
    kind: champion
    metric: accuracy
    margin: 0.05
  - name: fairness
    kind: fairness
    column: condition
    positive: "8"
    tpr_gap: 0.2
`

// promotionFile is what becomes of a version that a retrain request brought.
const promotionFile = `on: retrain
gates: required
approval: none
stage: production
rollout:
  control: 0.25
  waves:
    - {name: canary, count: 1, soak: %[1]s, quorum: 1}
    - {name: half, percent: 50, soak: %[1]s, quorum: 1}
    - {name: all, percent: 100, soak: %[1]s, quorum: 1}
  gates:
    # Eight devices share two cores here: their latency says little.
    - {kind: latency, limit: 10, inconclusive: pass}
    # At a site where the old version misreads, the new one is meant to predict
    # other classes.
    - {kind: drift, off: true}
`

// secret signs retrain requests; the pipeline's end knows it too.
const secret = "the demo's own" //nolint:gosec // it guards nothing beyond a demo

// closeLoop sets up what happens by itself from now on: who is asked to retrain,
// who may sign what comes back, what it must show, and how it goes out.
func (p *plant) closeLoop(ctx context.Context) error {
	var key struct {
		Public string `json:"public"`
	}
	if err := p.vedette(ctx, &key, "--keys", p.path("ci"), "key", "new", "ci"); err != nil {
		return err
	}
	if err := errors.Join(
		write(p.path("gates.yaml"), []byte(gatesFile)),
		write(p.path("promotion.yaml"), fmt.Appendf(nil, promotionFile, p.opts.Pace.Soak)),
	); err != nil {
		return err
	}
	for what, args := range map[string][]string{
		"the CI's right to sign": {"key", "delegate", model, "--key", key.Public, "--reason", "demo"},
		"the gates":              {"model", "gates", "set", model, p.path("gates.yaml"), "--reason", "demo"},
		"the promotion policy":   {"model", "promotion", "set", model, p.path("promotion.yaml"), "--reason", "demo"},
	} {
		if err := p.persist(ctx, what, func() error { return p.vedette(ctx, nil, args...) }); err != nil {
			return err
		}
	}
	return nil
}

// asking is whom the retrain policy asks, and when.
func (p *plant) asking() operator.RetrainPolicy {
	return operator.RetrainPolicy{
		Model: model, OnDrift: true, Cooldown: release.Duration(time.Hour),
		Webhooks: []string{p.hook.URL()}, Secret: secret, Reason: "demo",
	}
}

// labelled pulls the rows that devices were allowed to send and writes down what
// they really showed. In the field people look at them; here the order in which a
// camera shows its images is known.
func (p *plant) labelled(ctx context.Context) (file string, rows int, err error) {
	pulled := p.path("sample.csv")
	if err := p.persist(ctx, "the sampled rows", func() error {
		if err := os.Remove(pulled); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return p.vedette(ctx, nil, "sample", "pull", model, "--to", pulled)
	}); err != nil {
		return "", 0, err
	}
	f, err := os.Open(pulled)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	table, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return "", 0, fmt.Errorf("read sampled rows: %w", err)
	}
	id := slices.Index(table[0], "id")
	first := slices.Index(table[0], "p00")
	if id < 0 || first < 0 || len(table[0]) < first+side*side {
		return "", 0, fmt.Errorf("sampled rows have the columns %v", table[0])
	}
	out := [][]string{append(slices.Clone(table[0][first:first+side*side]), "digit")}
	for _, row := range table[1:] {
		digit, err := p.shown(row[id])
		if err != nil {
			return "", 0, err
		}
		out = append(out, append(slices.Clone(row[first:first+side*side]), strconv.Itoa(digit)))
	}
	file = p.path("labelled.csv")
	return file, len(out) - 1, writeCSV(file, out)
}

// shown is the digit of a prediction: its id is the camera's, the image's number
// and the row.
func (p *plant) shown(id string) (int, error) {
	request, row, ok := strings.Cut(id, "/")
	cut := strings.LastIndexByte(request, '-')
	if !ok || cut < 0 {
		return 0, fmt.Errorf("prediction %q is of no camera", id)
	}
	at, err := strconv.Atoi(request[cut+1:])
	i, errRow := strconv.Atoi(row)
	if err := errors.Join(err, errRow); err != nil {
		return 0, fmt.Errorf("prediction %q is of no camera: %w", id, err)
	}
	return p.images[(at+i)%len(p.images)].digit, nil
}

func writeCSV(path string, rows [][]string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(csv.NewWriter(f).WriteAll(rows), f.Close())
}

// profileYAML says how the rows of the handover are to be read.
const profileYAML = "truth: digit\nprotect: [condition]\n"

// handOver puts the images that no model was trained on, clean and faded, beside a
// trained model: what the gates are judged on.
func (p *plant) handOver(t training) error {
	var header []string
	for at := range side * side {
		header = append(header, fmt.Sprintf("p%d%d", at/side, at%side))
	}
	rows := [][]string{append(header, "digit", "condition")}
	for condition, through := range map[string]lens{"clean": unclouded, "faded": faded} {
		for _, img := range p.images {
			var row []string
			for _, v := range through(img).pixels {
				row = append(row, strconv.FormatFloat(float64(v), 'f', -1, 32))
			}
			rows = append(rows, append(row, strconv.Itoa(img.digit), condition))
		}
	}
	folder := filepath.Join(t.folder, "model", "vedette")
	return errors.Join(write(filepath.Join(folder, "profile.yaml"), []byte(profileYAML)), writeCSV(filepath.Join(folder, "evaluation.csv"), rows))
}

// pipeline is what a training pipeline does with a retrain request: train,
// register with MLflow, have the CI publish and show what the gates ask for.
func (p *plant) pipeline(ctx context.Context, event cloudEvent) (numbers, error) {
	sample, rows, err := p.labelled(ctx)
	if err != nil {
		return nil, err
	}
	t, by, err := p.train(ctx, event, sample)
	if err != nil {
		return nil, err
	}
	if err := p.handOver(t); err != nil {
		return nil, err
	}
	out := numbers{"trained_by": by, "labelled_rows": rows}
	token, err := os.ReadFile(p.path("control", "admin-token"))
	if err != nil {
		return out, err
	}
	s := &scientist{server: "http://" + p.where.HTTP, token: strings.TrimSpace(string(token))}
	var r registered
	if err := p.persist(ctx, "the training to be registered", func() error {
		r, err = s.register(ctx, t, model, map[string]string{"vedette.retrain": event.ID, "vedette.version": "2"})
		return err
	}); err != nil {
		return out, err
	}
	out["run"], out["mlflow_version"] = r.Run, r.Version
	return out, p.publish(ctx)
}

// publish has the CI publish what is registered for it, with the evidence.
func (p *plant) publish(ctx context.Context) error {
	root, err := os.ReadFile(p.path("publisher", "root.json")) // and none of the keys beside it
	if err != nil {
		return err
	}
	if err := write(p.path("ci", "root.json"), root); err != nil {
		return err
	}
	return p.persist(ctx, "version 2 to be published", func() error {
		return p.vedette(ctx, nil, "publish", "--watch", "--once", "--model", model,
			"--keys", p.path("ci"), "--key", p.path("ci", "ci.key"), "--work", p.path("work"))
	})
}

// promoted waits for the rollout that the promotion policy starts.
func (p *plant) promoted(ctx context.Context) (ro *operator.Rollout, err error) {
	err = until(ctx, time.Minute, "version 2 to be promoted", func() error {
		if ro, err = p.begunRollout(ctx, "2"); err != nil {
			return err
		}
		return expect(ro != nil, "there is no rollout of version 2 yet")
	})
	return ro, err
}
