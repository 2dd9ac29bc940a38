package e2e

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// A second version beside the first, with the real programs and models: as a
// shadow it agrees as often as the two agree offline on the same rows; with a
// share it answers the calls whose keys are in it; promoted it is there already.
// Throughout, the server counts what the client was answered.
func TestChallenger(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.settings()
	v1, v2 := p.published("1"), p.published("2")
	c := p.enrolled("cam-c1", p.path("cam-c1"), "--label", "site=c")
	c.boot()
	first := p.rollOut("1")
	c.serves(40*time.Second, v1)
	p.ends(first, operator.RolloutCompleted)
	d := &duel{camera: c, offline: map[string][]string{"1": p.scored("1"), "2": p.scored("2")}, answered: map[string]uint64{"1": c.rows}}
	d.images = p.images()[1:]

	p.vedette("model", "challenge", "digits", "2", "--shadow", "-l", "site=c", "--reason", "is it better").ok()
	d.runs("shadow", 1000)
	d.shadow(v1)
	p.vedette("model", "challenge", "digits", "2", "--share", "30%", "--reason", "three in ten").ok()
	d.runs("share", 300)
	d.share()
	d.counted(v1, v2)

	p.rollOut("2")
	c.serves(40*time.Second, v2)
	p.eventually(20*time.Second, "the challenger to be gone", func() error {
		detail, err := p.client.Challenge(t.Context(), "digits")
		if err != nil || detail.Devices == 0 && detail.Running == 0 {
			return err
		}
		return fmt.Errorf("%d of %d devices run it", detail.Running, detail.Devices)
	})
	p.vedette("model", "challenge", "end", "digits", "--reason", "it won").ok()
	if list := p.vedette("model", "challenge", "list").ok(); !strings.Contains(list, "no version runs") {
		t.Errorf("after the end:\n%s", list)
	}
	p.vedette("ledger", "verify").ok()
}

// duel is a device with two versions, and what its client saw.
type duel struct {
	*camera

	images   [][]string
	offline  map[string][]string // predicted class of each image, by version
	answered map[string]uint64   // rows, by version
}

// images are the rows of the comparison: what version 1 was trained on and,
// blurred, what it was not, so that the two versions do not always agree.
const images = 640

func (p *plant) images() (rows [][]string) {
	p.t.Helper()
	table := readTable(p.t, filepath.Join(models(p.t), "digits-2.train.csv"))
	for _, row := range table[len(table)-images:] {
		rows = append(rows, row[:64])
	}
	return append([][]string{table[0][:64]}, rows...)
}

// scored is the class that a version gives each image of the test, offline.
func (p *plant) scored(version string) (classes []string) {
	p.t.Helper()
	var lines []string
	for _, row := range p.images() {
		lines = append(lines, strings.Join(row, ","))
	}
	rows := p.write([]byte(strings.Join(lines, "\n")+"\n"), "rows-"+version+".csv")
	to := p.path("scored-" + version + ".csv")
	p.run("vedette-agent", "score", rows, "--graph", p.path("digits-"+version, "digits.onnx"),
		"--schema", p.path("digits-"+version, "schema.json"), "--to", to, "-q").ok()
	table := readTable(p.t, to)
	at := slices.Index(table[0], "class")
	if at < 0 || len(table) != images+1 {
		p.t.Fatalf("%d scores with columns %q, want %d with a class", len(table)-1, table[0], images)
	}
	for _, row := range table[1:] {
		classes = append(classes, row[at])
	}
	return classes
}

func readTable(t *testing.T, path string) [][]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// runs waits until the challenger is in its role on the device, and its calls
// are counted apart from those before.
func (d *duel) runs(role string, share int) {
	d.t.Helper()
	d.eventually(40*time.Second, "the challenger to be a "+role, func() error {
		st, err := d.status()
		if err != nil {
			return errors.Join(err, d.agent.died())
		}
		if len(st.Challengers) != 1 || st.Challengers[0].Role != role || st.Challengers[0].Share != share {
			return fmt.Errorf("challengers are %+v, updates %+v", st.Challengers, st.Agent.Updates)
		}
		detail, err := d.client.Challenge(d.t.Context(), "digits")
		if err == nil && detail.Running != 1 {
			err = fmt.Errorf("the control plane knows of %+v", detail.List)
		}
		return err
	})
}

// ask has images read under an id and a key, and returns the version and classes.
func (d *duel) ask(id, key string, images ...[]string) (version string, classes []int64) {
	d.t.Helper()
	var data []string
	for _, i := range images {
		data = append(data, i...)
	}
	body := fmt.Sprintf(`{"id":%q,"parameters":{"key":%q},"inputs":[{"name":"X","datatype":"FP32","shape":[%d,64],"data":[%s]}],"outputs":[{"name":"label"}]}`,
		id, key, len(images), strings.Join(data, ","))
	var answer struct {
		Version string `json:"model_version"`
		Outputs []struct {
			Data []int64 `json:"data"`
		} `json:"outputs"`
	}
	d.post("infer", body, &answer)
	d.answered[answer.Version] += uint64(len(images))
	return answer.Version, answer.Outputs[0].Data
}

func (d *duel) post(what, body string, answer any) {
	d.t.Helper()
	res, err := http.Post("http://"+d.listen+"/v2/models/digits/"+what, "application/json", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil || res.StatusCode != http.StatusOK {
		d.t.Fatalf("%s: %s: %v %+v", what, res.Status, err, answer)
	}
}

// shadow sends the images in calls of 32 and compares what the control plane
// says with what both versions say offline. The truths it tells are what
// version 2 predicts, so the shadow is always right and the primary where both agree.
func (d *duel) shadow(v1 release.Digest) {
	d.t.Helper()
	const size = 32
	agreed := 0
	for i, class := range d.offline["1"] {
		if class == d.offline["2"][i] {
			agreed++
		}
	}
	if agreed == len(d.images) || agreed < len(d.images)/2 {
		d.t.Fatalf("the two versions agree on %d of %d images: too many or too few to tell anything", agreed, len(d.images))
	}
	for from := 0; from < len(d.images); from += size {
		id := "shadow-" + strconv.Itoa(from)
		version, classes := d.ask(id, id, d.images[from:from+size]...)
		for i, class := range classes {
			if want := d.offline["1"][from+i]; version != "1" || strconv.FormatInt(class, 10) != want {
				d.t.Fatalf("image %d: version %s says %d, offline version 1 says %s", from+i, version, class, want)
			}
		}
		calls := uint64(from/size + 1)
		d.eventually(20*time.Second, "the shadow to come after", func() error {
			st, err := d.status()
			if err == nil && st.Challengers[0].Calls != calls {
				err = fmt.Errorf("it has computed %d calls, want %d", st.Challengers[0].Calls, calls)
			}
			return err
		})
		d.truths(id, from, size)
	}
	d.eventually(30*time.Second, "the comparison to be complete", func() error {
		detail, err := d.client.Challenge(d.t.Context(), "digits")
		if err != nil {
			return err
		}
		e := detail.Evidence
		n := uint64(len(d.images))
		switch {
		case e.Compared < n || e.Labels < n || e.PrimaryLabels < n:
			return fmt.Errorf("%d rows compared, %d and %d labels", e.Compared, e.Labels, e.PrimaryLabels)
		case e.Compared != n || e.Agreed != uint64(agreed) || e.Skipped != 0 || e.FailedRows != 0:
			return stop{fmt.Errorf("compared %d rows, agreed on %d, skipped %d, want %d, %d, 0", e.Compared, e.Agreed, e.Skipped, n, agreed)}
		case e.Accuracy.Share != 1 || math.Abs(e.PrimaryAccuracy.Share-float64(agreed)/float64(n)) > 1e-9:
			return stop{fmt.Errorf("accuracy is %+v beside %+v, want 1 beside %d of %d", e.Accuracy, e.PrimaryAccuracy, agreed, n)}
		case e.P50US == 0 || e.PrimaryP50US == 0 || e.Agreement.Lower >= e.Agreement.Share || e.Agreement.Share >= e.Agreement.Upper:
			return stop{fmt.Errorf("evidence is %+v", e)}
		case detail.List[0].Primary.Release != v1:
			return stop{fmt.Errorf("it runs beside %v", detail.List[0].Primary)}
		}
		return nil
	})
	if text := d.vedette("model", "challenge", "show", "digits").ok(); !strings.Contains(text, fmt.Sprintf("of %d rows", len(d.images))) {
		d.t.Errorf("shown as\n%s", text)
	}
	if text := d.vedette("device", "show", d.id).ok(); !strings.Contains(text, "digits: 2 beside it, shadow of all") {
		d.t.Errorf("the device is shown as\n%s", text)
	}
}

// truths tells the device what version 2 predicts for the images of a call.
func (d *duel) truths(id string, from, size int) {
	d.t.Helper()
	var labels []string
	for i := range size {
		labels = append(labels, fmt.Sprintf(`{"id":"%s/%d","label":%s}`, id, i, d.offline["2"][from+i]))
	}
	var result struct{ Matched int }
	d.post("feedback", `{"labels":[`+strings.Join(labels, ",")+`]}`, &result)
	if result.Matched != size {
		d.t.Fatalf("%d of %d labels matched", result.Matched, size)
	}
}

// share asks with a thousand keys, each twice: a key has one version, that of
// its place, and 30% of them have the second, within five standard deviations.
func (d *duel) share() {
	d.t.Helper()
	const keys = 1000
	second := 0
	for k := range keys {
		image := k % len(d.images)
		key := "machine-" + strconv.Itoa(k)
		want := "1"
		if infer.Key("digits", key) < 300 {
			want = "2"
			second++
		}
		for try := range 2 {
			version, classes := d.ask(fmt.Sprintf("share-%d-%d", k, try), key, d.images[image])
			if version != want || strconv.FormatInt(classes[0], 10) != d.offline[version][image] {
				d.t.Fatalf("key %s is answered by version %s with %d, want version %s with %s", key, version, classes[0], want, d.offline[want][image])
			}
		}
	}
	if sigma := math.Sqrt(keys * 0.3 * 0.7); math.Abs(float64(second)-0.3*keys) > 5*sigma {
		d.t.Errorf("%d of %d keys have version 2", second, keys)
	}
}

// counted waits until the server holds what the client was answered, release by
// release, nothing of the shadow's in it.
func (d *duel) counted(v1, v2 release.Digest) {
	d.t.Helper()
	want := map[release.Digest]uint64{v1: d.answered["1"], v2: d.answered["2"]}
	d.eventually(30*time.Second, "the server to count what the client saw", func() error {
		totals, err := d.client.Totals(d.t.Context(), operator.TotalQuery{Device: d.id})
		if err != nil {
			return err
		}
		got := map[release.Digest]uint64{}
		for _, x := range totals.Items {
			got[x.Release] += x.Rows
			if x.FailedRows > 0 {
				return stop{fmt.Errorf("%d rows failed", x.FailedRows)}
			}
		}
		for r, n := range want {
			if got[r] > n {
				return stop{fmt.Errorf("%s answered %d rows, the server counts %d", r.Short(), n, got[r])}
			} else if got[r] < n {
				return fmt.Errorf("%s answered %d rows, the server counts %d", r.Short(), n, got[r])
			}
		}
		return nil
	})
}
