package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/infer"
	profiles "github.com/vedette-edge/vedette/firmware-profiles"
)

func TestShareOf(t *testing.T) {
	board := &profiles.Profile{
		Name: "board", CPU: profiles.CPU{Cores: 4}, Memory: profiles.Memory{MinMiB: 1024},
		Accelerators: []profiles.Accelerator{{Name: "npu", Providers: []string{"NPU", "XNNPACK"}}},
		Limits:       profiles.Limits{Concurrency: 2, ModelMemoryMiB: 256, OutboxMiB: 10},
	}
	rt := agenttest.Runtime{Offers: []string{"GPU", "XnnpackExecutionProvider", "NPUExecutionProvider"}}
	tests := []struct {
		name   string
		cfg    Config
		found  *profiles.Profile
		cpus   int
		memory uint64
		want   share
	}{
		{"no profile", Config{}, nil, 4, 4 << 30, share{providers: []string{"CPUExecutionProvider", "GPU", "XnnpackExecutionProvider", "NPUExecutionProvider"}}},
		{"the profile's share", Config{}, board, 4, 1 << 30, share{
			profile: "board", concurrency: 2, memory: 256 << 20, outbox: 10 << 20,
			providers: []string{"CPUExecutionProvider", "NPUExecutionProvider", "XnnpackExecutionProvider", "GPU"},
		}},
		{"more memory, fewer processors", Config{}, board, 2, 4 << 30, share{
			profile: "board", concurrency: 1, memory: 1 << 30, outbox: 10 << 20,
			providers: []string{"CPUExecutionProvider", "NPUExecutionProvider", "XnnpackExecutionProvider", "GPU"},
		}},
		{"memory not known", Config{}, board, 64, 0, share{
			profile: "board", concurrency: 4, memory: 256 << 20, outbox: 10 << 20,
			providers: []string{"CPUExecutionProvider", "NPUExecutionProvider", "XnnpackExecutionProvider", "GPU"},
		}},
		{"the configuration's word", Config{Calls: infer.Limits{Concurrency: 9}, MemoryBudget: 5, OutboxBytes: 7}, board, 4, 1 << 30, share{
			profile: "board", concurrency: 9, memory: 5, outbox: 7,
			providers: []string{"CPUExecutionProvider", "NPUExecutionProvider", "XnnpackExecutionProvider", "GPU"},
		}},
		{"another profile by name", Config{Profile: "raspberry-pi-4"}, board, 4, 1 << 30, share{
			profile: "raspberry-pi-4", concurrency: 2, memory: 384 << 20, outbox: 20 << 20,
			providers: []string{"CPUExecutionProvider", "XnnpackExecutionProvider", "GPU", "NPUExecutionProvider"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Runtime = rt
			got, err := shareOf(&tt.cfg, tt.found, tt.cpus, tt.memory)
			if err != nil {
				t.Fatal(err)
			}
			if got.profile != tt.want.profile || got.concurrency != tt.want.concurrency || got.memory != tt.want.memory ||
				got.outbox != tt.want.outbox || !slices.Equal(got.providers, tt.want.providers) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
	if _, err := shareOf(&Config{Runtime: rt, Profile: "raspberry-pi-04"}, board, 4, 1<<30); !errors.Is(err, ErrProfile) || !strings.Contains(err.Error(), "raspberry-pi-4") {
		t.Errorf("a misspelt profile: error %v does not list those that there are", err)
	}
}
