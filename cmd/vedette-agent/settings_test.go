package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// shipped is the configuration file that the packages install.
func shipped(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(repository(t), "deploy", "agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// checked is what `run --check -o json` prints, by setting.
func checked(t *testing.T, args ...string) map[string]setting {
	t.Helper()
	var out, errOut bytes.Buffer
	if code := run(append([]string{"run", "--check", "-o", "json"}, args...), nil, &out, &errOut); code != exitOK {
		t.Fatalf("run --check %q: exit code %d\n%s", args, code, errOut.String())
	}
	var list []setting
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	by := map[string]setting{}
	for _, s := range list {
		by[s.Path] = s
	}
	return by
}

// Flags win over the environment, that over the file, that over the default.
func TestWhatWinsAmongSettings(t *testing.T) {
	path := write(t, "agent.yaml", "state: /from/file\nlisten: 127.0.0.1:9\nmemory_budget_mib: 512\nlog: {level: debug}\n")
	t.Setenv("VEDETTE_LISTEN", "127.0.0.1:2")
	t.Setenv("VEDETTE_SOCKET", "/from/env")
	t.Setenv("VEDETTE_MEMORY_BUDGET", "64")
	t.Setenv("VEDETTE_CONFIG", path)
	got := checked(t, "--listen", "127.0.0.1:1")
	for name, want := range map[string]setting{
		"state":             {Value: "/from/file", From: path + ":1"},
		"listen":            {Value: "127.0.0.1:1", From: "--listen"},
		"socket":            {Value: "/from/env", From: "$VEDETTE_SOCKET"},
		"memory_budget_mib": {Value: 64.0, From: "$VEDETTE_MEMORY_BUDGET"},
		"log.level":         {Value: "debug", From: path + ":4"},
		"log.format":        {Value: "text", From: "default"},
	} {
		if want.Path = name; got[name] != want {
			t.Errorf("got %+v, want %+v", got[name], want)
		}
	}
}

// Everything that is wrong is told at once, each with its line.
func TestWhatIsWrongWithAConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		args []string
		want []string // parts, FILE stands for the path
	}{
		"misspelt":        {"\nlistne: 127.0.0.1:1\n", nil, []string{`FILE:2: unknown setting "listne": did you mean listen?`}},
		"misspelt below":  {"log:\n  leevel: info\n", nil, []string{`FILE:2: unknown setting "log.leevel": did you mean level?`}},
		"nothing alike":   {"log:\n  colour: red\n", nil, []string{`FILE:2: unknown setting "log.colour": known in log are level, format`}},
		"wrong type":      {"memory_budget_mib: much\n", nil, []string{`FILE:1: memory_budget_mib: "much" is not a whole number that is not negative`}},
		"negative":        {"memory_budget_mib: -1\n", nil, []string{`FILE:1: memory_budget_mib: "-1" is not a whole number`}},
		"no group":        {"log: loud\n", nil, []string{"FILE:1: log is not a list of settings"}},
		"no settings":     {"- state\n", nil, []string{"FILE:1: the file is not a list of settings"}},
		"twice":           {"state: /a\nlog: {}\nstate: /b\n", nil, []string{"FILE:3: state is set twice, in line 1 already"}},
		"bytes for MiB":   {"memory_budget_mib: 536870912\n", nil, []string{"FILE:1: memory_budget_mib: 536870912 MiB is more than any device has"}},
		"no address":      {"listen: everywhere\n", nil, []string{`FILE:1: listen: "everywhere" is not an address`}},
		"no port":         {"listen: 127.0.0.1:99999\n", nil, []string{`FILE:1: listen: "99999" is not a port`}},
		"nowhere":         {"listen: '-'\n", nil, []string{"FILE:1: listen: ", "nobody could ask"}},
		"no grpc port":    {"grpc: 127.0.0.1\n", nil, []string{`FILE:1: grpc: "127.0.0.1" is not an address`}},
		"fraction":        {"limits:\n  queue: 1.5\n", nil, []string{`FILE:2: limits.queue: "1.5" is not a whole number`}},
		"fraction of MiB": {"\noutbox_mib: 10.7\n", nil, []string{`FILE:2: outbox_mib: "10.7" is not a whole number that is not negative`}},
		"whole in words":  {"outbox_mib: '10'\n", nil, []string{`FILE:1: outbox_mib: "10" is not a whole number`}},
		"model's path":    {"models:\n  ../x: {queue: 1}\n  DIGITS 1: {}\n", nil, []string{"FILE:2: models.../x: name must be", "FILE:3: models.DIGITS 1: name must be"}},
		"no such class":   {"profile: raspberry-pi5\n", nil, []string{`FILE:1: profile: there is no firmware profile "raspberry-pi5": did you mean raspberry-pi-5?`}},
		"no class alike":  {"", []string{"--profile", "toaster"}, []string{`--profile: there is no firmware profile "toaster"; there are beaglebone-ai-64, `}},
		"no library":      {"onnxruntime: /nonexistent.so\n", nil, []string{"FILE:1: onnxruntime: stat /nonexistent.so: no such file"}},
		"no library file": {"onnxruntime: /\n", nil, []string{"FILE:1: onnxruntime: / is not a file"}},
		"nothing near":    {"foo: 1\n", nil, []string{`FILE:1: unknown setting "foo": known here are state, listen`}},
		"limit":           {"limits:\n  queue: -3\n", nil, []string{"FILE:2: limits.queue: -3 is not between 0"}},
		"limit of one":    {"models:\n  digits: {batch_delay: 1m, batch_rows: 8}\n", nil, []string{"FILE:2: models.digits.batch_delay: 1m0s is not between"}},
		"idle delay":      {"limits: {batch_delay: 2ms}\n", nil, []string{"FILE:1: limits.batch_delay: does nothing without batch_rows"}},
		"no collector":    {"traces: somewhere\n", nil, []string{`FILE:1: traces: "somewhere" is not a URL`}},
		"no kind of link": {"link:\n  metered: true\n", nil, []string{`FILE:2: link.metered: "true" is none of auto, yes, no`}},
		"bad level":       {"log:\n  level: loud\n", nil, []string{`FILE:2: log.level: "loud" is none of debug, info, warn, error`}},
		"syntax":          {"state: /a\n  listen: x\n", nil, []string{"FILE:2: mapping values are not allowed"}},
		"tab":             {"log:\n\tlevel: info\n", nil, []string{"FILE:2: found character that cannot start any token"}},
		"two documents":   {"state: /a\n---\nstate: /b\n", nil, []string{"FILE: holds more than one document"}},
		"several": {
			"listne: x\nlog:\n  level: loud\nmemory_budget_mib: x\n", nil,
			[]string{"FILE:1: unknown", "FILE:3: log.level", "FILE:4: memory_budget_mib"},
		},
		"flag wins": {"state: /a\n", []string{"--log-level", "loud"}, []string{`--log-level: "loud" is none of`}},
	} {
		path := write(t, "agent.yaml", c.file)
		var out, errOut bytes.Buffer
		code := run(append([]string{"run", "--check", "--config", path}, c.args...), nil, &out, &errOut)
		if code != exitConfig {
			t.Errorf("%s: exit code %d, want %d\n%s%s", name, code, exitConfig, out.String(), errOut.String())
		}
		at := 0
		for _, want := range c.want {
			want = strings.ReplaceAll(want, "FILE", path)
			i := strings.Index(errOut.String()[at:], want)
			if i < 0 {
				t.Errorf("%s: lacks %q in its place:\n%s", name, want, errOut.String())
				break
			}
			at += i
		}
	}
}

// A wrong value that a flag replaces does not keep the agent from running.
func TestFlagReplacesAWrongValue(t *testing.T) {
	path := write(t, "agent.yaml", "log:\n  level: loud\n")
	if got := checked(t, "--config", path, "--log-level", "warn"); got["log.level"].Value != "warn" {
		t.Errorf("got %+v", got["log.level"])
	}
}

func TestEmptyConfigurationIsAllDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "state:\nlog:\n", "{}"} {
		got := checked(t, "--config", write(t, "agent.yaml", text))
		if got["state"].Value != defaultState || got["log.level"].Value != "info" {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// The installed file is valid, as it is and with every line that it offers.
func TestShippedConfiguration(t *testing.T) {
	text := shipped(t)
	got := checked(t, "--config", write(t, "agent.yaml", text))
	if got["socket"].Value != "/run/vedette/agent.sock" || got["listen"].From != "default" {
		t.Errorf("as installed: %+v", got)
	}
	// Prose is "# text"; a setting is "#key:" or, below another, "#  key:".
	offered := regexp.MustCompile(`(?m)^#((?:  )*\S)`).ReplaceAllString(text, "$1")
	offered = strings.ReplaceAll(offered, "/usr/lib/vedette/libonnxruntime.so.1", library(t)) // no package is installed here
	got = checked(t, "--config", write(t, "agent.yaml", offered))
	for path, s := range got {
		if s.From == "default" {
			t.Errorf("deploy/agent.yaml does not explain %s", path)
		}
	}
	defaults := map[string]any{}
	for _, s := range listSettings(reflect.ValueOf(defaultSettings()), "", &configFile{}) {
		defaults[s.Path] = s.Value
	}
	for _, path := range []string{"state", "listen", "link.metered", "log.level", "log.format"} {
		if got[path].Value != defaults[path] {
			t.Errorf("deploy/agent.yaml shows %v for %s, the default is %v", got[path].Value, path, defaults[path])
		}
	}
}

// The shapes that settings can have beyond those in use.
func TestShapesOfSettings(t *testing.T) {
	type inner struct {
		Wait  time.Duration `yaml:"wait"`
		Names []string      `yaml:"names"`
		On    *bool         `yaml:"on"`
	}
	type outer struct {
		Models map[string]inner `yaml:"models"`
		Share  float64          `yaml:"share"`
	}
	var s outer
	path := write(t, "shapes.yaml", "models:\n  digits: {wait: 5ms, names: [a, b], on: true}\n  meter:\n    wait: soon\n    names: x\n    onn: true\nshare: half\n")
	f, err := readConfig(path, &s)
	if err != nil {
		t.Fatal(err)
	}
	digits := s.Models["digits"]
	if digits.Wait != 5*time.Millisecond || strings.Join(digits.Names, " ") != "a b" || digits.On == nil || !*digits.On {
		t.Errorf("got %+v", digits)
	}
	var got []string
	for _, p := range f.problems {
		got = append(got, strings.TrimPrefix(f.at(p), path))
	}
	want := []string{
		`:4: models.meter.wait: "soon" is not a duration such as "500ms", "30s" or "5m"`,
		`:5: models.meter.names: "x" is not a list such as [a, b]`,
		`:6: unknown setting "models.meter.onn": did you mean on?`,
		`:7: share: "half" is not a number`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The service gives up on a configuration that makes no sense, and on nothing
// else: a Go program that crashed ends with 2.
func TestServiceGivesUpOnConfigurationsOnly(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(repository(t), "deploy", "systemd", "vedette-agent.service"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\nRestartPreventExitStatus=%d\n", exitConfig); !strings.Contains(string(raw), want) {
		t.Errorf("the unit lacks %q", want)
	}
}

// The other commands find what the configuration has moved.
func TestCommandsFollowTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("VEDETTE_CONFIG", write(t, "agent.yaml", "state: "+dir+"/moved\nlisten: 127.0.0.1:1\n"))
	for want, args := range map[string][]string{
		"127.0.0.1:1": {"status"},
		"127.0.0.1:2": {"status", "--listen", "127.0.0.1:2"},
	} {
		if _, _, errOut := command(t, args...); !strings.Contains(errOut, want) {
			t.Errorf("%q: lacks %q\n%s", args, want, errOut)
		}
	}
	for want, args := range map[string][]string{
		"moved": {"enrol", "vdt1nonsense"},
		"flag":  {"enrol", "vdt1nonsense", "--state", filepath.Join(dir, "flag")},
	} {
		if code, _, errOut := command(t, args...); code != exitFailed || !strings.Contains(errOut, "token") {
			t.Errorf("%q: %d %s", args, code, errOut)
		}
		if _, err := os.Stat(filepath.Join(dir, want)); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	t.Setenv("VEDETTE_CONFIG", write(t, "bad.yaml", "listne: 127.0.0.1:1\n"))
	if code, _, errOut := command(t, "status"); code != exitConfig || !strings.Contains(errOut, "bad.yaml:1: unknown setting") {
		t.Errorf("wrong configuration: %d\n%s", code, errOut)
	}
	t.Setenv("VEDETTE_CONFIG", filepath.Join(dir, "nope.yaml"))
	for _, args := range [][]string{{"status"}, {"run", "--check"}, {"run"}} {
		if code, _, errOut := command(t, args...); code != exitConfig || !strings.Contains(errOut, "nope.yaml: no such file") {
			t.Errorf("%q without the configuration that is named: %d\n%s", args, code, errOut)
		}
	}
}
