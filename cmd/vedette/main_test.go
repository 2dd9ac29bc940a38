package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vedette-edge/vedette/controlplane"
	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vedette": main, "scripted-agent": scriptedAgent})
}

// Scripts run the program as people do, against a control plane of their own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"folder":     makeFolder,
			"evaluation": makeEvaluation,
			"enrol":      enrol,
			"log":        logVersion,
			"tag":        tagVersion,
			"promoted":   awaitPromotion,
		},
	})
}

// setup starts a control plane and points the program at it.
func setup(env *testscript.Env) error {
	data := filepath.Join(env.WorkDir, "server")
	server, err := controlplane.New(controlplane.Config{
		Data: data, HTTP: "127.0.0.1:0", Devices: "127.0.0.1:0", MQTT: "127.0.0.1:0", Hosts: []string{"127.0.0.1"},
	})
	if err != nil {
		return err
	}
	env.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			env.T().Log("stop:", err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := server.Start(ctx); err != nil {
		return err
	}
	env.Setenv("SERVER", "http://"+server.Addr().HTTP)
	env.Setenv("ADMIN", filepath.Join(data, access.AdminTokenFile))
	// Built with -race, a program sleeps a second before it ends, and these
	// scripts start about two hundred.
	env.Setenv("GORACE", "atexit_sleep_ms=0")
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
	return nil
}

// makeFolder writes what "vedette-agent profile" writes for the wine model:
// folder DIR.
func makeFolder(ts *testscript.TestScript, neg bool, given []string) {
	if neg || len(given) != 1 {
		ts.Fatalf("usage: folder DIR")
	}
	dir := ts.MkAbs(given[0])
	schema := wineSchema()
	ts.Check(os.MkdirAll(dir, 0o700))
	graph, err := os.ReadFile(filepath.Join(packageDir, "testdata", "wine_lr.onnx"))
	ts.Check(err)
	encoded, err := json.Marshal(schema)
	ts.Check(err)
	baseline, err := wineBaseline(&schema)
	ts.Check(err)
	golden, err := wineGolden()
	ts.Check(err)
	for name, content := range map[string][]byte{"wine.onnx": graph, schemaFile: encoded, baselineFile: baseline, goldenFile: golden} {
		ts.Check(os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
}

// packageDir is where the tests were started: scripts change the directory.
var packageDir, _ = os.Getwd()

func wineSchema() release.Schema {
	return release.Schema{
		Inputs: []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 13}}},
		Outputs: []release.Tensor{
			{Name: "label", Datatype: "INT64", Shape: []int64{-1}},
			{Name: "probabilities", Datatype: "FP32", Shape: []int64{-1, 3}},
		},
		Classes: []string{"a", "b", "c"}, Label: "label", Scores: "probabilities",
	}
}

func wineBaseline(schema *release.Schema) ([]byte, error) {
	builder, err := sketch.NewBuilder(schema)
	if err != nil {
		return nil, err
	}
	const rows = 100
	batch := &sketch.Batch{Rows: rows, Classes: 3, Scores: make([]float32, 3*rows), Class: make([]int64, rows)}
	x := sketch.Tensor{Name: "X", Shape: []int64{13}, Width: 13, Data: make([]float32, 13*rows)}
	for i := range x.Data {
		x.Data[i] = float32(i * 7919 % 1009)
	}
	for i := range batch.Class {
		batch.Class[i] = int64(i % 3)
		batch.Scores[3*i+i%3] = 1
	}
	batch.Inputs = []sketch.Tensor{x}
	if err := builder.Add(batch); err != nil {
		return nil, err
	}
	baseline, err := builder.Baseline()
	if err != nil {
		return nil, err
	}
	return baseline.Encode()
}

func wineGolden() ([]byte, error) {
	g := &release.Golden{
		Rows:   1,
		Inputs: []release.Values{{Name: "X", Shape: []int64{1, 13}, Data: make([]float64, 13)}},
		Outputs: []release.Expected{
			{Values: release.Values{Name: "label", Shape: []int64{1}, Data: []float64{0}}},
			{Values: release.Values{Name: "probabilities", Shape: []int64{1, 3}, Data: []float64{1, 0, 0}}, Abs: 1e-5},
		},
	}
	return g.Encode()
}

// enrol lets a device in as an agent does, with the token in a file: enrol
// TOKENFILE DEVICE ROOTFILE. It checks what the token promises.
func enrol(ts *testscript.TestScript, neg bool, given []string) {
	if len(given) != 3 {
		ts.Fatalf("usage: enrol TOKENFILE DEVICE ROOTFILE")
	}
	token, err := protocol.ParseToken(ts.ReadFile(given[0]))
	ts.Check(err)
	if pin := release.DigestOf([]byte(ts.ReadFile(given[2]))); release.Digest(token.Root) != pin {
		ts.Fatalf("the token pins root %x, want %s", token.Root, pin)
	}
	request, err := enrolRequest(token, given[1])
	ts.Check(err)
	status, err := postEnrol(token, request)
	ts.Check(err)
	if ok := status == http.StatusOK; ok == neg {
		ts.Fatalf("enrol %s: status %d", given[1], status)
	}
}

func enrolRequest(token *protocol.EnrolmentToken, device string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	return json.Marshal(protocol.EnrolRequest{
		Token: token.Secret, Device: device,
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	})
}

// postEnrol trusts no certificate here: agent/identity has the tests of that.
func postEnrol(token *protocol.EnrolmentToken, body []byte) (int, error) {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer c.CloseIdleConnections()
	res, err := c.Post(token.DeviceAPI+"/device/v1/enrol", "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	return res.StatusCode, nil
}

// What a script or CI sees of a failure: 2 for a command line that makes no
// sense, 1 for what was refused or did not work.
func TestExitCodes(t *testing.T) {
	t.Setenv("VEDETTE_CONFIG", filepath.Join(t.TempDir(), "config.json"))
	t.Setenv("VEDETTE_SERVER", "")
	for line, want := range map[string]int{
		"--version":                       exitOK,
		"":                                exitOK,
		"device":                          exitOK,
		"devcie":                          exitUsage,
		"device lst":                      exitUsage,
		"device show":                     exitUsage,
		"device list --nothing":           exitUsage,
		"device list -o yaml":             exitUsage,
		"device list":                     exitFailed,
		"device list --context other":     exitFailed,
		"rollout plan m 1 --wave x":       exitUsage,
		"rollout plan m 1 --wave 1,no":    exitUsage,
		"rollout plan m 1 --gate x=1":     exitUsage,
		"rollout plan m 1 --no-gate x":    exitUsage,
		"rollout plan m":                  exitUsage,
		"rollout plan m 1 --window 22h":   exitUsage,
		"rollout plan m 1 --max-rate x":   exitUsage,
		"rollout plan m 1 --start-at 22":  exitUsage,
		"rollout list --state broken":     exitUsage,
		"rollout diff a b -f c":           exitUsage,
		"rollout spec":                    exitOK,
		"rollout start x --reason y":      exitFailed,
		"device label cam site":           exitUsage,
		"model push nowhere --stage best": exitUsage,
	} {
		var out, errOut bytes.Buffer
		if got := run(strings.Fields(line), strings.NewReader(""), &out, &errOut); got != want {
			t.Errorf("vedette %s: got exit code %d, want %d\n%s%s", line, got, want, &out, &errOut)
		}
	}
}
