package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// maxLabels bounds the labels of one request.
const maxLabels = 10_000

// Feedback is the body of POST /v2/models/{model}/feedback.
type Feedback struct {
	Labels []Label `json:"labels"`
}

// feedbackForm is what a body looks like, for those who sent another one.
const feedbackForm = `{"labels":[{"id":"ID","label":"CLASS"}]}`

// Label is the truth about one prediction.
type Label struct {
	ID string `json:"id"` // of the prediction, with "/row" for a row of a batch
	// Label is a class name or the index of one, as a string or a number.
	Label json.RawMessage `json:"label"`
}

// FeedbackResult says what became of the labels. Unmatched ones belong to
// predictions that are not held any more, or never were.
type FeedbackResult struct {
	Matched   int `json:"matched"`
	Unmatched int `json:"unmatched"`
}

func (l Label) text() (string, error) {
	var s string
	if json.Unmarshal(l.Label, &s) == nil {
		return s, nil
	}
	var n int64
	if err := json.Unmarshal(l.Label, &n); err != nil {
		return "", fmt.Errorf("label %.40s is neither a class name nor an index", l.Label)
	}
	return strconv.FormatInt(n, 10), nil
}

func (s *Server) feedback(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Labels == nil {
		return &httpError{http.StatusNotImplemented, "this server takes no labels"}
	}
	model := r.PathValue("model")
	if _, _, err := s.engine.Manifest(model); err != nil {
		return err
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFeedback))
	if err != nil {
		return fmt.Errorf("read labels: %w", err)
	}
	fb, err := decodeFeedback(raw)
	if err != nil {
		return err
	}
	var result FeedbackResult
	for i, l := range fb.Labels {
		text, err := l.text()
		if err != nil {
			return &httpError{http.StatusBadRequest, fmt.Sprintf("labels[%d]: %v; %d before it were taken", i, err, i)}
		}
		matched, err := s.cfg.Labels.Feedback(r.Context(), model, l.ID, text)
		if err != nil {
			return &httpError{http.StatusBadRequest, fmt.Sprintf("labels[%d]: %v; %d before it were taken", i, err, i)}
		}
		if matched {
			result.Matched++
		} else {
			result.Unmatched++
		}
	}
	s.metrics.labels(result)
	writeJSON(w, http.StatusOK, result)
	return nil
}

func decodeFeedback(raw []byte) (*Feedback, error) {
	fb := &Feedback{}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(fb); err != nil {
		return nil, &httpError{http.StatusBadRequest, "labels: " + err.Error() + "; send " + feedbackForm}
	}
	if n := len(fb.Labels); n == 0 || n > maxLabels {
		return nil, &httpError{http.StatusBadRequest, fmt.Sprintf("%d labels, 1 to %d are taken; send %s", n, maxLabels, feedbackForm)}
	}
	for i, l := range fb.Labels {
		if l.ID == "" || len(l.Label) == 0 {
			return nil, &httpError{http.StatusBadRequest, fmt.Sprintf("labels[%d] needs an id and a label", i)}
		}
	}
	return fb, nil
}
