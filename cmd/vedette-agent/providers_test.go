package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	profiles "github.com/vedette-edge/vedette/firmware-profiles"
)

// A driver may do anything to the process that asks for it.
func TestProbe(t *testing.T) {
	for name, tt := range map[string]struct {
		driver  string
		timeout time.Duration
		result  string
		says    string
	}{
		"works":         {"exit 0", time.Minute, checkOK, "can be used"},
		"missing":       {"echo noise >&2; echo 'vedette-agent: no such execution provider here: NPUExecutionProvider: no libnpu.so; it needs the driver' >&2; exit 1", time.Minute, checkWarning, "cannot be used: no libnpu.so; it needs the driver"},
		"crashes":       {"kill -SEGV $$", time.Minute, checkWarning, "took the process down"},
		"aborts":        {"kill -ABRT $$", time.Minute, checkWarning, "took the process down"},
		"hangs":         {"exec sleep 60", 200 * time.Millisecond, checkWarning, "did not answer within 200ms"},
		"a wrong usage": {"exit 2", time.Minute, checkWarning, "exit status 2"},
	} {
		t.Run(name, func(t *testing.T) {
			exe := filepath.Join(t.TempDir(), "agent")
			if err := os.WriteFile(exe, []byte("#!/bin/sh\n[ \"$1 $2 $3\" = 'probe NPUExecutionProvider --x' ] || exit 9\n"+tt.driver+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			board := &profiles.Profile{Accelerators: []profiles.Accelerator{{Name: "NPU", Providers: []string{"NPU"}}}}
			pr := prober{exe: exe, args: []string{"--x"}, timeout: tt.timeout}
			c := pr.check(t.Context(), "NPUExecutionProvider", board)
			if c.Result != tt.result || !strings.Contains(c.Detail, tt.says) || (c.Next == "") != (tt.result == checkOK) {
				t.Errorf("got %+v, want %s that says %q", c, tt.result, tt.says)
			}
			if c = pr.check(t.Context(), "NPUExecutionProvider", &profiles.Profile{}); c.Result == checkWarning {
				t.Errorf("a device without the accelerator is warned: %+v", c)
			}
		})
	}
}

func TestMissingProviders(t *testing.T) {
	board := &profiles.Profile{Accelerators: []profiles.Accelerator{
		{Name: "GPU", Providers: []string{"TensorrtExecutionProvider", "CUDA"}},
		{Name: "NPU", Providers: []string{"VSINPUExecutionProvider"}},
	}}
	got := missingProviders([]string{"CPUExecutionProvider", "CUDAExecutionProvider"}, board)
	if len(got) != 1 || got[0].Name != "accelerator NPU" || !strings.Contains(got[0].Detail, "VSINPU") {
		t.Errorf("got %+v, want the NPU alone", got)
	}
}

func TestCheckClass(t *testing.T) {
	for name, tt := range map[string]struct{ result, says string }{
		"":                 {checkOK, "by architecture"},
		"jetson-orin-nano": {checkOK, "by the configuration"},
		"jetson-orin-nanu": {checkFailed, "no firmware profile jetson-orin-nanu"},
	} {
		if c, p := checkClass(name); c.Result != tt.result || !strings.Contains(c.Detail, tt.says) || p == nil {
			t.Errorf("%q: got %+v, want %s that says %q", name, c, tt.result, tt.says)
		}
	}
}
