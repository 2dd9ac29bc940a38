package deviceapi_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// deltas is a Deltas.
type deltas struct {
	mu     sync.Mutex                             // guards all
	asked  []release.Digest                       // in the last question: from, then to
	offers map[release.Digest]protocol.DeltaOffer // by to
}

func (d *deltas) Offer(to release.Digest, from []release.Digest) (protocol.DeltaOffer, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(slices.Clone(from), to)
	o, ok := d.offers[to]
	return o, ok
}

func question(to release.Digest, from ...release.Digest) string {
	names := make([]string, len(from))
	for i, f := range from {
		names[i] = f.String()
	}
	return protocol.BlobPath + to.String() + protocol.DeltaSuffix + "?from=" + strings.Join(names, ",")
}

func TestDeltaIsOffered(t *testing.T) {
	b := newBench(t)
	d := b.enrolled("cam-1")
	to, one, two := release.DigestOf(b.blob), release.DigestOf([]byte("1")), release.DigestOf([]byte("2"))
	if res, body := d.do(http.MethodGet, question(to, one), nil); res.StatusCode != http.StatusNoContent || len(body) > 0 {
		t.Errorf("without a delta: %d, %q", res.StatusCode, body)
	}
	want := protocol.DeltaOffer{From: two.String(), Delta: one.String(), Size: 77}
	b.deltas.offers = map[release.Digest]protocol.DeltaOffer{to: want}
	res, body := d.do(http.MethodGet, question(to, one, two), nil)
	var got protocol.DeltaOffer
	if err := json.Unmarshal(body, &got); err != nil || res.StatusCode != http.StatusOK || got != want {
		t.Errorf("got %d, %+v, %v; want %+v", res.StatusCode, got, err, want)
	}
	if want := []release.Digest{one, two, to}; !slices.Equal(b.deltas.asked, want) {
		t.Errorf("asked for %v, want %v", b.deltas.asked, want)
	}
}

func TestDeltaQuestionsAreRefused(t *testing.T) {
	b := newBench(t)
	d, stranger := b.enrolled("cam-1"), b.device()
	to := release.DigestOf(b.blob)
	eight := slices.Repeat([]release.Digest{to}, protocol.MaxDeltaFrom)
	for name, c := range map[string]struct {
		device *device
		path   string
		status int
		code   string
	}{
		"no certificate": {stranger, question(to, to), http.StatusForbidden, protocol.CodeCertificate},
		"no digest":      {d, protocol.BlobPath + "x" + protocol.DeltaSuffix + "?from=" + to.String(), http.StatusNotFound, protocol.CodeNotFound},
		"from nothing":   {d, question(to), http.StatusBadRequest, protocol.CodeInvalid},
		"from no digest": {d, question(to) + "x", http.StatusBadRequest, protocol.CodeInvalid},
		"from too many":  {d, question(to, append(eight, to)...), http.StatusBadRequest, protocol.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := c.device.do(http.MethodGet, c.path, nil)
			refused(t, res, body, c.status, c.code)
		})
	}
	if b.deltas.asked != nil {
		t.Errorf("asked for %v", b.deltas.asked)
	}
	if res, _ := d.do(http.MethodGet, question(to, eight...), nil); res.StatusCode != http.StatusNoContent {
		t.Errorf("from as many as allowed: %d", res.StatusCode)
	}
}
