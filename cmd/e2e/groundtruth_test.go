package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Truths go the whole way round, with the real programs: rows that the manifest
// lets out are decrypted at the publisher's as they were sent to the device,
// and what people say about them is counted by the device that predicted, once,
// also when it was switched off meanwhile.
func TestGroundTruth(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.settings()
	recipient := strings.TrimSpace(p.vedette("key", "sample-init", "-q").ok())
	p.vedette("key", "sample-init").refused("is there already")
	p.vedette("model", "push", p.profiled("1", "digits-1"), "--model", "digits", "--version", "1",
		"--sample-to", recipient, "--sample-rate", "1", "--sample-rows", "64").ok()
	v, err := p.client.Version(t.Context(), "digits", "1")
	if err != nil {
		t.Fatal(err)
	}
	c := p.enrolled("cam-g", p.path("cam-g"))
	c.boot()
	p.rollOut("1")
	c.serves(40*time.Second, v.Release)
	l := &labelling{camera: c}
	id, classes := l.predict(20)
	later, laterClasses := l.predict(3)

	made := l.sampled(id, 20) // before anybody says what is right
	sheet := l.sheet("labels.csv", id, classes, 15)
	first := l.push(sheet, "--wait", "20s")
	if u := first.Upload; u.Matched != 20 || u.Unmatched != 1 || u.Rejected != 1 || u.Waiting != 0 {
		t.Errorf("truths came to %+v, want 20 matched, 1 unmatched, 1 rejected", u.TruthCounts)
	}
	if len(first.Rejects) != 1 || first.Rejects[0].Line != 23 || !strings.Contains(first.Rejects[0].Reason, "no device is known") {
		t.Errorf("rejected rows are %+v, want line 23", first.Rejects)
	}
	if again := l.push(sheet); again.Upload.TruthCounts != first.Upload.TruthCounts {
		t.Errorf("the same file again came to %+v, want nothing new", again.Upload.TruthCounts)
	}
	l.accuracy(20, 15)

	// A device that is switched off gets its truths when it is back, under an
	// agent that gives other ids.
	c.agent.stop()
	off := l.push(l.sheet("late.csv", later, laterClasses, 3))
	if u := off.Upload; u.Waiting != 4 || u.Matched != 0 || len(u.Behind) != 1 || u.Behind[0] != "cam-g" {
		t.Errorf("while the device is off truths came to %+v behind %v", u.TruthCounts, u.Behind)
	}
	c.boot()
	l.accuracy(23, 18)
	if out := p.vedette("truth", "show", "digits").ok(); !strings.Contains(out, "late.csv") {
		t.Errorf("truth show: %s", out)
	}
	if made != 20 {
		t.Errorf("%d of 20 rows were sampled at a rate of 1", made)
	}
}

// labelling is a device and who labels what it saw.
type labelling struct{ *camera }

// upload is what truth push prints.
type upload struct {
	Upload   operator.TruthUpload
	Repeated int `json:"chunks_taken_before"`
	Rejects  []operator.TruthReject
}

// predict has the first images read, and returns the id that the agent gave and
// the classes.
func (l *labelling) predict(n int) (id string, classes []int64) {
	l.t.Helper()
	var data []string
	for _, row := range l.images()[1 : n+1] {
		data = append(data, row...)
	}
	body := fmt.Sprintf(`{"inputs":[{"name":"X","datatype":"FP32","shape":[%d,64],"data":[%s]}],"outputs":[{"name":"label"}]}`, n, strings.Join(data, ","))
	var answer struct {
		ID      string
		Outputs []struct {
			Data []int64
		}
	}
	(&duel{camera: l.camera}).post("infer", body, &answer)
	return answer.ID, answer.Outputs[0].Data
}

// sheet writes truths of which the first so many say that the prediction was
// right, one for a row that there was not, and one for a device nobody knows.
func (l *labelling) sheet(name, id string, classes []int64, right int) string {
	var b strings.Builder
	b.WriteString("id,label\n")
	for i, class := range classes {
		if i >= right {
			class = (class + 1) % 10
		}
		fmt.Fprintf(&b, "%s/%d,%d\n", id, i, class)
	}
	fmt.Fprintf(&b, "%s/999,1\naaaaaaaaaaaaaaaa-1,1\n", id)
	return l.write([]byte(b.String()), name)
}

func (l *labelling) push(sheet string, flags ...string) (out upload) {
	l.t.Helper()
	args := append([]string{"truth", "push", sheet, "--model", "digits", "--reason", "read by hand", "-o", "json"}, flags...)
	if err := json.Unmarshal([]byte(l.vedette(args...).ok()), &out); err != nil {
		l.t.Fatal(err)
	}
	return out
}

// accuracy waits until the control plane counts so many labels, so many of them
// correct.
func (l *labelling) accuracy(labels, correct uint64) {
	l.t.Helper()
	l.eventually(20*time.Second, "the labels to be counted", func() error {
		totals, err := l.client.Totals(l.t.Context(), operator.TotalQuery{Device: l.id})
		if err != nil {
			return err
		}
		var got [2]uint64
		for _, t := range totals.Items {
			got[0] += t.Matched
			got[1] += t.Correct
		}
		switch {
		case got == [2]uint64{labels, correct}:
			return nil
		case got[0] > labels || got[1] > correct:
			return stop{fmt.Errorf("%d labels, %d correct are counted: twice?", got[0], got[1])}
		}
		return fmt.Errorf("%d labels, %d correct", got[0], got[1])
	})
}

// sampled pulls until the rows of a call are there, and compares them with what
// was sent to the device.
func (l *labelling) sampled(id string, rows int) (found int) {
	l.t.Helper()
	sent := l.images()[1:]
	l.eventually(20*time.Second, "the rows to be sampled", func() error {
		file := l.path("rows.jsonl")
		l.vedette("sample", "pull", "digits", "--to", file).ok()
		found = 0
		for lines := bufio.NewScanner(strings.NewReader(l.read("rows.jsonl"))); lines.Scan(); {
			var row struct {
				ID, Label, Prediction, Device string
				Inputs                        struct{ X []float64 }
			}
			if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
				return stop{err}
			}
			n, ok := strings.CutPrefix(row.ID, id+"/")
			if !ok {
				continue
			}
			at, err := strconv.Atoi(n)
			if err != nil || at >= rows || row.Label != "" || row.Device != l.id || row.Prediction == "" {
				return stop{fmt.Errorf("row is %+v", row)}
			}
			for i, v := range row.Inputs.X {
				if text := strconv.FormatFloat(v, 'g', -1, 64); !sameNumber(text, sent[at][i]) {
					return stop{fmt.Errorf("value %d of row %d is %s, %s was sent", i, at, text, sent[at][i])}
				}
			}
			found++
		}
		if found == 0 {
			return fmt.Errorf("none of call %s", id)
		}
		return nil
	})
	return found
}

func sameNumber(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 32)
	y, errY := strconv.ParseFloat(b, 32)
	return errX == nil && errY == nil && float32(x) == float32(y)
}
