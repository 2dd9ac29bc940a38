package mlflow_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the answers of the transcripts anew from what the server says")

// Transcripts are what the Python client sends for the calls named in their
// comments, with the answers it gets. A request is a line "> METHOD PATH" and
// its body; lines "= NAME PATH" name a value of the answer, which later requests
// use as {{NAME}}; then comes the answer, "< STATUS" and its body. Moments that
// the server took are {{time}}.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			was, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r := &replay{world: newWorld(t), names: map[string]string{}}
			for _, part := range parseTranscript(string(was)) {
				r.play(part)
			}
			if *update {
				if err := os.WriteFile(file, r.now.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			differ(t, string(was), r.now.String())
		})
	}
}

// exchange is one request as it stands in a transcript.
type exchange struct {
	comments, names []string
	method, path    string
	body            string
}

func parseTranscript(text string) (list []exchange) {
	var e *exchange
	var comments []string
	inAnswer := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "#"):
			comments = append(comments, line)
		case strings.HasPrefix(line, "> "):
			method, path, _ := strings.Cut(strings.TrimSpace(line[2:]), " ")
			list = append(list, exchange{comments: comments, method: method, path: path})
			e, comments, inAnswer = &list[len(list)-1], nil, false
		case strings.HasPrefix(line, "= "):
			e.names = append(e.names, line)
		case strings.HasPrefix(line, "< "):
			inAnswer = true
		case e != nil && !inAnswer:
			e.body += line
		}
	}
	return list
}

// replay plays a transcript and writes what happened as a new one.
type replay struct {
	*world

	names map[string]string // value by name
	now   bytes.Buffer
}

func (r *replay) play(e exchange) {
	r.Helper()
	if len(e.comments) > 0 && r.now.Len() > 0 {
		r.now.WriteString("\n")
	}
	fmt.Fprintf(&r.now, "%s> %s %s\n%s", strings.Join(e.comments, ""), e.method, e.path, e.body)
	status, _, answer := r.do(e.method, r.fill(e.path), r.fill(strings.TrimSuffix(e.body, "\n")))
	var v any
	dec := json.NewDecoder(strings.NewReader(answer))
	dec.UseNumber()
	raw := dec.Decode(&v) != nil
	for _, line := range e.names {
		name, path, _ := strings.Cut(strings.TrimSpace(line[2:]), " ")
		r.names[name] = r.text(v, path)
		r.now.WriteString(line)
	}
	fmt.Fprintf(&r.now, "< %d\n", status)
	if raw {
		r.now.WriteString(strings.TrimSuffix(answer, "\n") + "\n")
		return
	}
	text, err := json.Marshal(r.normal(v, e.body))
	if err != nil {
		r.Fatal(err)
	}
	r.now.Write(append(wrap(text), '\n'))
}

// fill puts values in the place of their names.
func (r *replay) fill(text string) string {
	for name, value := range r.names {
		text = strings.ReplaceAll(text, "{{"+name+"}}", value)
	}
	return text
}

// normal puts names in the place of values, and of moments that were not sent.
func (r *replay) normal(v any, request string) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = r.normal(x[k], request)
		}
	case []any:
		for i := range x {
			x[i] = r.normal(x[i], request)
		}
	case string:
		for name, value := range r.names {
			x = strings.ReplaceAll(x, value, "{{"+name+"}}")
		}
		return x
	case json.Number:
		if len(x) == 13 && !strings.HasPrefix(string(x), "17000") { // milliseconds of today; the requests' are of 2023
			return "{{time}}"
		}
	}
	return v
}

// wrap breaks an answer into lines that can be read: one for each member of the
// outermost two levels.
func wrap(text []byte) []byte {
	if len(text) < 120 {
		return text
	}
	var out bytes.Buffer
	depth, quoted := 0, false
	for i, c := range text {
		switch {
		case c == '"' && text[i-1] != '\\':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		out.WriteByte(c)
		if !quoted && c == ',' && depth <= 3 {
			out.WriteString("\n" + strings.Repeat(" ", depth))
		}
	}
	return out.Bytes()
}

func differ(t *testing.T, want, got string) {
	t.Helper()
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	if slices.Equal(a, b) {
		return
	}
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("line %d\n got %s\nwant %s\n(go test ./controlplane/mlflow -run Transcripts -update writes the answers anew)",
				i+1, strings.Join(b[min(i, len(b)):min(i+3, len(b))], "\n"), strings.Join(a[min(i, len(a)):min(i+3, len(a))], "\n"))
		}
	}
}
