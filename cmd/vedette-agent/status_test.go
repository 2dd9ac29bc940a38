package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/serve"
	"github.com/vedette-edge/vedette/protocol/release"
)

// nothing is an engine that serves one model and answers nobody.
type nothing struct{}

func (nothing) InferInto(context.Context, *infer.Request, *infer.Response) error {
	return infer.ErrClosed
}

func (nothing) Manifest(string) (*release.Manifest, release.Digest, error) {
	return nil, release.Digest{}, infer.ErrUnknownModel
}

func (nothing) Status() []infer.Status {
	return []infer.Status{{Model: "digits", Version: "v2", Provider: "CPUExecutionProvider", Calls: 7, Rows: 9, Failed: 1}}
}

func TestStatus(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	s := serve.New(nothing{}, serve.Config{
		Listen: "127.0.0.1:0", Socket: socket, Version: "1.2.3", Runtime: infer.RuntimeInfo{Name: "onnxruntime", Version: "1.30.0"},
		Challengers: func() []infer.Status {
			return []infer.Status{{Model: "digits", Version: "v3", Role: infer.RoleShadow, Share: 125, Rows: 70, Skipped: 4}}
		},
		Agent: func() *serve.Agent {
			return &serve.Agent{
				Device: "cam-a1", BootCount: 3, Unclean: true, Metered: "yes", Power: "battery", Battery: 71, TimeZone: "Europe/Berlin",
				Uplink:  serve.Uplink{Error: "connection refused", Since: time.Now()},
				Outbox:  serve.Outbox{Pending: 12, Sent: 2, Bytes: 3 << 20, Error: "free some space"},
				Updates: []serve.Update{{Model: "digits", State: "downloading", Result: "failed", Code: "golden_mismatch", Message: "row 3", Waiting: "not enough room"}},
			}
		},
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Stop(context.Background())
	for _, where := range [][]string{{"--listen", s.Addr().String()}, {"--socket", socket}} {
		var out, errOut bytes.Buffer
		if code := run(append([]string{"status"}, where...), nil, &out, &errOut); code != exitOK {
			t.Fatalf("%v: %d %s", where, code, errOut.String())
		}
		for _, want := range []string{
			"agent          1.2.3", "onnxruntime 1.30.0", "cam-a1, start 3; the one before ended without a clean stop",
			"not connected since", "connection refused", "12 records to be numbered, 2 to be acknowledged, 3.0 MiB", "disk           free some space",
			"shadow of 12.5%", "link           metered\n", "power          battery, charged to 71%\n", "time zone      Europe/Berlin\n",
			"digits  v2", "failed (golden_mismatch): row 3", "\ndigits waits: not enough room\n",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%v: status lacks %q:\n%s", where, want, out.String())
			}
		}
	}
	var out bytes.Buffer
	if code := run([]string{"status", "--listen", s.Addr().String(), "-o", "json"}, nil, &out, &out); code != exitOK {
		t.Fatal(out.String())
	}
	var st serve.Status
	if err := json.Unmarshal(out.Bytes(), &st); err != nil || st.Agent.Device != "cam-a1" || st.Models[0].Rows != 9 {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestClockIsDoubted(t *testing.T) {
	if c := checkClock(time.Unix(0, 0), nil); c.Result != checkWarning || c.Next == "" {
		t.Errorf("1970: %+v", c)
	}
	if c := checkClock(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), nil); c.Result != checkOK {
		t.Errorf("2026: %+v", c)
	}
}
