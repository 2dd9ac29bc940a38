package evaluation

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

func header() Header {
	return Header{
		Format: Format, Task: Classification, Model: "credit", Version: "2", Graph: release.DigestOf([]byte("graph")), Rows: release.DigestOf([]byte("rows")),
		RowsName: "heldout.csv", Truth: "repaid", Protect: []string{"sex", "age, in years"}, Classes: []string{"no", "yes"}, Runtime: "onnxruntime 1.30.0",
		Created: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Golden: &Golden{Rows: 64, Worst: 1e-7},
	}
}

func file(t *testing.T, h Header, outputs []string, rows string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteHeader(&b, h, outputs); err != nil {
		t.Fatal(err)
	}
	b.WriteString(rows)
	return b.Bytes()
}

var classified = []string{PredictionColumn, OutputPrefix + "label", ScorePrefix + "no", ScorePrefix + "yes"}

// What is written comes back, with names that need quotes and a truth that is no
// class of the model.
func TestReadWhatWasWritten(t *testing.T) {
	h := header()
	got, err := Read(bytes.NewReader(file(t, h, classified, "1,yes,f,\"30, about\",yes,1,0.1,0.9\n3,no,m,40,yes,1,0.4,0.6\n4,perhaps,f,40,no,0,0.8,0.2\n")))
	if err != nil {
		t.Fatal(err)
	}
	if got.Len() != 3 || fmt.Sprint(got.Rows, got.Truth, got.Predicted) != "[1 3 4] [1 0 2] [1 1 0]" || fmt.Sprint(got.Labels) != "[no yes perhaps]" {
		t.Errorf("got rows %v, truth %v, predicted %v of %q", got.Rows, got.Truth, got.Predicted, got.Labels)
	}
	if fmt.Sprint(got.Scores) != "[0.1 0.9 0.4 0.6 0.8 0.2]" {
		t.Errorf("scores %v", got.Scores)
	}
	g := got.Group("age, in years")
	if g == nil || fmt.Sprintf("%q %v", g.Values, g.Of) != `["30, about" "40"] [0 1 1]` || got.Group("height") != nil {
		t.Errorf("group %+v", g)
	}
	if got.Header.Golden == nil || got.Header.Golden.Rows != 64 || !got.Header.Created.Equal(h.Created) {
		t.Errorf("header %+v", got.Header)
	}
}

// Without a predicted class the one with the highest score is meant.
func TestScoresPredict(t *testing.T) {
	h := header()
	h.Protect = nil
	got, err := Read(bytes.NewReader(file(t, h, classified[2:], "1,yes,0.1,0.9\n2,yes,0.7,0.3\n")))
	if err != nil || fmt.Sprint(got.Predicted) != "[1 0]" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReadNumbers(t *testing.T) {
	h := header()
	h.Task, h.Classes, h.Protect = Regression, nil, nil
	got, err := Read(bytes.NewReader(file(t, h, []string{PredictionColumn}, "1,2.5,2\n2,-1e3,-999\n")))
	if err != nil || fmt.Sprint(got.Want, got.Got) != "[2.5 -1000] [2 -999]" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Files that would make metrics of something else are refused, and say why.
func TestReadRefuses(t *testing.T) {
	h := header()
	h.Protect = nil
	good := string(file(t, h, classified, "1,yes,yes,1,0.1,0.9\n"))
	for name, c := range map[string]struct{ text, says string }{
		"nothing":                 {"", "first line"},
		"predictions of score":    {"row,class\n1,yes\n", "vedette-agent evaluate"},
		"another format":          {strings.Replace(good, `"format":1`, `"format":2`, 1), "format 2"},
		"an unknown field":        {strings.Replace(good, `"format":1`, `"format":1,"best":true`, 1), "best"},
		"another task":            {strings.Replace(good, `"classification"`, `"ranking"`, 1), "ranking"},
		"no rows":                 {strings.TrimSuffix(good, "1,yes,yes,1,0.1,0.9\n"), "no rows"},
		"a truth that is missing": {good + "2,,yes,1,0.1,0.9\n", "row 2"},
		"a row twice":             {good + "1,yes,yes,1,0.1,0.9\n", "row number"},
		"rows out of order":       {strings.Replace(good, "\n1,", "\n7,", 1) + "2,yes,yes,1,0.1,0.9\n", "row number"},
		"a score that is NaN":     {good + "2,yes,yes,1,NaN,0.9\n", "score of no"},
		"a field too many":        {good + "2,yes,yes,1,0.1,0.9,5\n", "wrong number of fields"},
		"another truth column":    {strings.Replace(good, "\n1,yes", "\n1,7", 1), "is column \"repaid\" the one"},
		"no prediction":           {string(file(t, h, []string{OutputPrefix + "label"}, "1,yes,1\n")), "no column"},
		"columns shifted":         {strings.Replace(good, "row,truth", "truth,row", 1), "columns begin with"},
	} {
		_, err := Read(strings.NewReader(c.text))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
	many := header()
	for i := range MaxColumn + 1 {
		many.Protect = append(many.Protect, strconv.Itoa(i))
	}
	if err := WriteHeader(&bytes.Buffer{}, many, classified); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many protected columns: %v", err)
	}
	h.Protect = []string{"id"}
	var rows strings.Builder
	for i := range MaxGroups + 1 {
		fmt.Fprintf(&rows, "%d,yes,%d,yes,1,0.1,0.9\n", i+1, i)
	}
	if _, err := Read(bytes.NewReader(file(t, h, classified, rows.String()))); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "protected column id") {
		t.Errorf("a protected column that names people: %v", err)
	}
}

// Whatever is uploaded, reading ends with a table that holds together or an error.
func FuzzRead(f *testing.F) {
	h := header()
	h.Protect = []string{"sex"}
	var b bytes.Buffer
	if err := WriteHeader(&b, h, classified); err != nil {
		f.Fatal(err)
	}
	f.Add(b.String() + "1,yes,f,yes,1,0.1,0.9\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Read(strings.NewReader(text))
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v is no ErrInvalid", err)
			}
			return
		}
		n := got.Len()
		if got.Header.Task == Classification && (len(got.Truth) != n || len(got.Predicted) != n) || got.Header.Task == Regression && len(got.Want) != n {
			t.Errorf("%d rows: %d truths, %d predictions, %d numbers", n, len(got.Truth), len(got.Predicted), len(got.Want))
		}
		for _, g := range got.Groups {
			if len(g.Of) != n {
				t.Errorf("group %s has %d of %d rows", g.Name, len(g.Of), n)
			}
		}
	})
}
