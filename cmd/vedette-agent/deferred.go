package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/agent/slots"
)

// servingRuntime is what `run` computes with. A device that holds models opens
// the library at once, because they must serve soon; one that holds none asks
// another process about the library and leaves it closed.
func (a *app) servingRuntime(ctx context.Context, state string) (infer.Runtime, error) {
	if held, err := os.ReadDir(filepath.Join(state, slots.Folder)); err == nil && len(held) > 0 {
		return a.runtime()
	}
	info, err := a.describeRuntime(ctx)
	if err != nil {
		return nil, err
	}
	return onnx.Defer(info), nil
}

// describeRuntime has a child open the library and say what it is.
func (a *app) describeRuntime(ctx context.Context) (info infer.RuntimeInfo, err error) {
	exe, err := os.Executable()
	if err != nil {
		return info, fmt.Errorf("find this program: %w", err)
	}
	library, err := onnx.Find(a.library)
	if err != nil {
		return info, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, probeCommand, "--onnxruntime", library)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return info, fmt.Errorf("open ONNX Runtime: %s", strings.TrimPrefix(strings.TrimSpace(string(exit.Stderr)), "vedette-agent: "))
	}
	if err != nil {
		return info, fmt.Errorf("open ONNX Runtime: %w", err)
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return info, fmt.Errorf("open ONNX Runtime: %w", err)
	}
	return info, nil
}
