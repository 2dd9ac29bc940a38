package fleet

import "github.com/vedette-edge/vedette/protocol"

// Bounds of what is kept of a trial: it is part of every device's record.
const (
	maxTried   = 16
	maxMessage = 256 // bytes
)

func triedOf(list []*protocol.Tried) []Tried {
	var out []Tried
	for _, t := range list[:min(len(list), maxTried)] {
		out = append(out, Tried{
			Variant: t.GetVariant(), Provider: t.GetProvider(), Code: t.GetCode(), Message: protocol.Brief(t.GetMessage(), maxMessage),
			P95US: t.GetP95Us(), PeakBytes: t.GetPeakBytes(), GoldenWorst: t.GetGoldenWorst(), Chosen: t.GetChosen(),
		})
	}
	return out
}
