package api

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/sample"
	"github.com/vedette-edge/vedette/controlplane/truth"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// everywhere is a truth.Devices of one device.
type everywhere struct{}

func (everywhere) Has(device, _ string) (known, has bool) { return device == "cam-a1", true }

// shelf is a Samples of as many samples of version 1 as it says, one a minute.
type shelf int

func (n shelf) List(model string, since time.Time) (out []sample.Sample) {
	for i := range int(n) {
		s := sample.Sample{
			Key: fmt.Sprintf("k%03d", i), Model: model, Release: first, Device: "cam-a1", Size: 100,
			To: now.Add(time.Duration(i-int(n)) * time.Minute), Expires: now.Add(time.Hour),
			Strata: []sample.Stratum{{Name: "seven", Seen: 50, Rows: 2}, {Name: "zero", Seen: 10, Rows: 1}},
		}
		if !s.To.Before(since) {
			out = append(out, s)
		}
	}
	return out
}

func (n shelf) Sealed(_ context.Context, key string) ([]byte, error) {
	if key == "k001" {
		return nil, sample.ErrNotFound // it expires just now
	}
	return []byte("sealed " + key), nil
}

func groundTruth(t *testing.T, samples int) (*world, *Service) {
	t.Helper()
	w := newWorld()
	w.versions[1].Manifest = &release.Manifest{Sampling: &release.Sampling{Rows: 12, Rate: 0.02}}
	s := w.service()
	truths, err := truth.Open(t.Context(), kvstore.NewMemory(), everywhere{}, truth.Config{Tell: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	s.d.Truths, s.d.Samples = truths, shelf(samples)
	return w, s
}

func TestTruthsAreUploaded(t *testing.T) {
	w, s := groundTruth(t, 0)
	begin := operator.TruthBegin{ID: "0123456789abcdef", Name: "f.csv", Reason: "read by hand"}
	for role, want := range map[operator.Role]operator.Code{operator.Viewer: operator.Forbidden, operator.Scientist: ""} {
		if _, err := s.BeginTruths(as(t, role), "digits", begin); operator.CodeOf(err) != want {
			t.Errorf("%s begins: %v, want code %q", role, err, want)
		}
	}
	ctx := as(t, operator.Scientist)
	if _, err := s.BeginTruths(ctx, "digits", begin); err != nil {
		t.Errorf("once more: %v", err)
	}
	if n := len(w.notes); n != 1 || w.notes[0].Kind != kindTruths || w.notes[0].Actor != "ann" {
		t.Errorf("the ledger holds %+v, want one upload by ann", w.notes)
	}
	chunk := operator.TruthChunk{Rows: []operator.TruthRow{{Line: 2, ID: "x", Label: "7", Device: "cam-a1"}, {Line: 3, ID: "x", Label: "7", Device: "cam-z"}}}
	name := strings.Repeat("1", 16)
	if _, err := s.PushTruths(as(t, operator.Viewer), "digits", begin.ID, name, chunk); operator.CodeOf(err) != operator.Forbidden {
		t.Errorf("a viewer pushes: %v", err)
	}
	done, err := s.PushTruths(ctx, "digits", begin.ID, name, chunk)
	if err != nil || done.Queued != 1 || done.Rejected != 1 || done.Rejects[0].Line != 3 {
		t.Errorf("got %+v, %v", done, err)
	}
	all, err := s.Truths(ctx, "digits")
	if err != nil || len(all.Uploads) != 1 || all.Waiting != 1 || all.Rejected != 1 || all.Uploads[0].Behind[0] != "cam-a1" {
		t.Errorf("got %+v, %v", all, err)
	}
	for what, got := range map[string]struct {
		err  error
		want operator.Code
	}{
		"no reason":      {failed(s.BeginTruths(ctx, "digits", operator.TruthBegin{ID: "0123456789abcdef"})), operator.ReasonRequired},
		"no id":          {failed(s.BeginTruths(ctx, "digits", operator.TruthBegin{Reason: "x"})), operator.Invalid},
		"no model":       {failed(s.BeginTruths(ctx, "beer", begin)), operator.NotFound},
		"control in it":  {failed(s.BeginTruths(ctx, "digits", operator.TruthBegin{ID: "0123456789abcdef", Name: "\x1b[2J", Reason: "x"})), operator.Invalid},
		"no upload":      {failed(s.TruthUpload(ctx, "digits", "ffffffffffffffff")), operator.NotFound},
		"empty chunk":    {failed(s.PushTruths(ctx, "digits", begin.ID, name, operator.TruthChunk{})), operator.Invalid},
		"truths of none": {failed(s.Truths(ctx, "beer")), operator.NotFound},
	} {
		if operator.CodeOf(got.err) != got.want {
			t.Errorf("%s: %v, want code %q", what, got.err, got.want)
		}
	}
}

func failed[T any](_ T, err error) error { return err }

func TestSamplesAreSummedUp(t *testing.T) {
	_, s := groundTruth(t, 5)
	got, err := s.Samples(as(t, operator.Viewer), "digits", operator.SampleQuery{Since: now.Add(-4 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	want := []operator.SampledPart{{Version: "1", Stratum: "seven", Rows: 8, Seen: 200, Devices: 1}, {Version: "1", Stratum: "zero", Rows: 4, Seen: 40, Devices: 1}}
	if got.Samples != 4 || got.Rows != 12 || got.Bytes != 400 || len(got.Strata) != 2 || got.Strata[0] != want[0] || got.Strata[1] != want[1] {
		t.Errorf("got %+v, want 4 samples of %+v", got, want)
	}
	if len(got.Plans) != 1 || got.Plans[0].Version != "1" || got.Plans[0].Rate != 0.02 {
		t.Errorf("plans are %+v", got.Plans)
	}
	if none, err := s.Samples(as(t, operator.Viewer), "digits", operator.SampleQuery{Version: "2"}); err != nil || none.Samples != 0 {
		t.Errorf("of version 2: %+v, %v", none, err)
	}
	if _, err := s.Samples(as(t, operator.Viewer), "beer", operator.SampleQuery{}); operator.CodeOf(err) != operator.NotFound {
		t.Errorf("of no model: %v", err)
	}
}

func TestSealedSamplesComeInPages(t *testing.T) {
	const samples = 2*operator.MaxSamplePage + 10
	_, s := groundTruth(t, samples)
	if _, err := s.SealedSamples(as(t, operator.Viewer), "digits", operator.SampleQuery{}); operator.CodeOf(err) != operator.Forbidden {
		t.Errorf("a viewer reads sealed rows: %v", err)
	}
	q, seen, pages := operator.SampleQuery{Paging: operator.Paging{Limit: 500}}, map[string]bool{}, 0
	for {
		page, err := s.SealedSamples(as(t, operator.Scientist), "digits", q)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range page.Items {
			if string(one.Sealed) != "sealed "+one.ID || one.Version != "1" || one.Device != "cam-a1" || len(one.Strata) != 2 {
				t.Errorf("got %+v", one)
			}
			seen[one.ID] = true
		}
		if pages++; page.Next == "" {
			break
		}
		q.Cursor = page.Next
	}
	if len(seen) != samples-1 || seen["k001"] || pages != 3 {
		t.Errorf("%d samples in %d pages, want all of %d but the one that expired, in 3", len(seen), pages, samples)
	}
}
