package trial

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// minGain is what part of the CPU's latency another provider must stay below to
// be taken. Less is within what two measurements of the same thing differ by, and
// every other provider costs memory and a driver that can fail.
const minGain = 0.9

// Bounds of what the control plane is told of a trial: it travels with every
// report of the device.
const (
	maxTried   = 16
	maxMessage = 200 // bytes
)

// pair is one variant on one execution provider.
type pair struct{ variant, provider string }

// pairs are those that may run here, the providers one after the other: the
// first of them is the CPU. Without any, why says why to people.
func pairs(c Candidate) (list []pair, why string) {
	why = "no variant of the release is for " + runtime.GOARCH
	for _, provider := range c.Providers {
		for i := range c.Manifest.Variants {
			v := &c.Manifest.Variants[i]
			switch {
			case len(v.Arch) > 0 && !slices.Contains(v.Arch, runtime.GOARCH):
			case !v.RunsOn(provider):
				why = fmt.Sprintf("variant %s needs one of %s, this device has %s", v.Name, strings.Join(v.Providers, ", "), strings.Join(c.Providers, ", "))
			default:
				list = append(list, pair{v.Name, provider})
			}
		}
	}
	return list, why
}

// board weighs the verdicts on the pairs of one candidate.
type board struct {
	end      time.Time // when no more pairs are tried, if one passed
	verdicts []Verdict
	tried    []*protocol.Tried
}

// skips says why a pair need not be tried, nil when it must.
func (b *board) skips(p pair, now time.Time) *protocol.Tried {
	passed := slices.ContainsFunc(b.verdicts, func(v Verdict) bool { return v.OK })
	if passed && now.After(b.end) {
		return &protocol.Tried{Variant: p.variant, Provider: p.provider, Code: CodeNoTime, Message: "the other trials took all the time there is"}
	}
	for _, t := range b.tried {
		if t.GetProvider() == p.provider && t.GetCode() == CodeProvider {
			return &protocol.Tried{Variant: p.variant, Provider: p.provider, Code: CodeProvider, Message: t.GetMessage()}
		}
	}
	return nil
}

func (b *board) add(p pair, v Verdict) {
	b.verdicts = append(b.verdicts, v)
	b.tried = append(b.tried, &protocol.Tried{
		Variant: p.variant, Provider: p.provider, Code: v.Code, Message: protocol.Brief(v.Message, maxMessage),
		P95Us: v.Report.GetP95Us(), PeakBytes: v.PeakBytes, GoldenWorst: v.Report.GetGoldenWorst(),
	})
}

// decide is the verdict on the candidate: that of the best pair, else of the
// first that says something of the candidate itself.
func (b *board) decide() Verdict {
	v := b.best()
	if v == nil {
		v = b.worst()
	}
	for _, t := range b.tried {
		t.Chosen = v.OK && t.GetCode() == "" && t.GetVariant() == v.Variant && release.SameProvider(t.GetProvider(), v.Provider)
	}
	v.Report.Tried = told(b.tried)
	return *v
}

// told are the pairs to tell of: the first ones, with the chosen one among them.
func told(tried []*protocol.Tried) []*protocol.Tried {
	if len(tried) <= maxTried {
		return tried
	}
	list := slices.Clone(tried[:maxTried])
	if i := slices.IndexFunc(tried[maxTried:], (*protocol.Tried).GetChosen); i >= 0 {
		list[maxTried-1] = tried[maxTried+i]
	}
	return list
}

// best is the fastest pair that passed, on the CPU unless another provider is
// clearly faster; nil for none.
func (b *board) best() *Verdict {
	var cpu, other *Verdict
	for i := range b.verdicts {
		v := &b.verdicts[i]
		of := &other
		if release.SameProvider(v.Provider, release.CPUProvider) {
			of = &cpu
		}
		if v.OK && (*of == nil || v.P95 < (*of).P95) {
			*of = v
		}
	}
	if cpu == nil || other != nil && float64(other.P95) < minGain*float64(cpu.P95) {
		return other
	}
	return cpu
}

// worst is the verdict on a candidate of which nothing passed. A provider that
// is not there says nothing about it, unless there is no other.
func (b *board) worst() *Verdict {
	i := slices.IndexFunc(b.verdicts, func(v Verdict) bool { return v.Code != CodeProvider })
	if i >= 0 {
		return &b.verdicts[i]
	}
	b.verdicts[0].Code = CodeLoad
	return &b.verdicts[0]
}
