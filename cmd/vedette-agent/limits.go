package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol"
)

// limitSettings are limits of every model, or of one; zero is the default.
type limitSettings struct {
	Concurrency int           `yaml:"concurrency"`
	Queue       int           `yaml:"queue"`
	MaxRows     int           `yaml:"max_rows"`
	BatchRows   int           `yaml:"batch_rows"`
	BatchDelay  time.Duration `yaml:"batch_delay"`
}

func (l limitSettings) limits() infer.Limits {
	return infer.Limits{Concurrency: l.Concurrency, Queue: l.Queue, MaxRows: l.MaxRows, BatchRows: l.BatchRows, BatchDelay: l.BatchDelay}
}

// Bounds beyond which a limit is a slip of the keyboard.
const (
	mostAtOnce     = 1024
	mostWaiting    = 1 << 20
	mostBatchDelay = 10 * time.Second
)

func (l limitSettings) check(report reportFunc, path string) {
	for _, f := range []struct {
		name        string
		value, most int
	}{
		{"concurrency", l.Concurrency, mostAtOnce},
		{"queue", l.Queue, mostWaiting},
		{"max_rows", l.MaxRows, mostWaiting},
		{"batch_rows", l.BatchRows, mostWaiting},
	} {
		if f.value < 0 || f.value > f.most {
			report(join(path, f.name), fmt.Sprintf("%d is not between 0, for the default, and %d", f.value, f.most))
		}
	}
	if l.BatchDelay < 0 || l.BatchDelay > mostBatchDelay {
		report(join(path, "batch_delay"), fmt.Sprintf("%s is not between 0 and %s: it is added to every call", l.BatchDelay, mostBatchDelay))
	}
	if l.BatchDelay > 0 && l.BatchRows < 2 {
		report(join(path, "batch_delay"), "does nothing without batch_rows of 2 or more")
	}
}

// checkServing reports what cannot be meant about gRPC, limits and traces.
func (s *settings) checkServing(report reportFunc) {
	if s.GRPC != "-" && s.GRPC != "" {
		checkAddress(report, "grpc", s.GRPC)
	}
	s.Limits.check(report, "limits")
	for model, l := range s.Models {
		if err := protocol.CheckName(model); err != nil {
			report(join("models", model), err.Error())
		}
		l.check(report, join("models", model))
	}
	if u, err := url.Parse(s.Traces); s.Traces != "" && (err != nil || !strings.HasPrefix(u.Scheme, "http") || u.Host == "") {
		report("traces", fmt.Sprintf("%q is not a URL such as http://127.0.0.1:4318/v1/traces", s.Traces))
	}
}

func (s *settings) modelLimits() map[string]infer.Limits {
	limits := make(map[string]infer.Limits, len(s.Models))
	for model, l := range s.Models {
		limits[model] = l.limits()
	}
	return limits
}
