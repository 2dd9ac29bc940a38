package sketch

import (
	"fmt"

	"github.com/vedette-edge/vedette/protocol"
)

// AddHistograms adds src to dst stream by stream. Nothing is changed when they
// are not over the same bins.
func AddHistograms(dst, src []*protocol.Histogram) error {
	if len(dst) != len(src) {
		return fmt.Errorf("%d streams and %d: %w", len(dst), len(src), ErrMismatch)
	}
	for i := range dst {
		if len(dst[i].GetBins()) != len(src[i].GetBins()) {
			return fmt.Errorf("stream %d has %d bins and %d: %w", i, len(dst[i].GetBins()), len(src[i].GetBins()), ErrMismatch)
		}
	}
	for i, d := range dst {
		for j, n := range src[i].GetBins() {
			d.Bins[j] += n
		}
		d.Missing += src[i].GetMissing()
		d.Other += src[i].GetOther()
	}
	return nil
}

// MergeWindow adds src to dst: two windows of one model, release, role and boot,
// and if they compare, with one primary release [P-4.8]. dst is unchanged after
// an error.
func MergeWindow(dst, src *protocol.Window) error {
	if dst.GetModel() != src.GetModel() || string(dst.GetRelease()) != string(src.GetRelease()) || dst.GetRole() != src.GetRole() {
		return fmt.Errorf("windows of other models, releases or roles: %w", ErrMismatch)
	}
	compared, err := mergeComparison(dst.GetComparison(), src.GetComparison())
	if err != nil {
		return err
	}
	latency, err := mergeLatency(dst.GetLatency(), src.GetLatency())
	if err != nil {
		return err
	}
	distinct, err := mergeDistinct(dst.GetDistinct(), src.GetDistinct())
	if err != nil {
		return err
	}
	if err := mergeStreams(dst, src); err != nil {
		return err
	}
	dst.Latency, dst.Distinct, dst.Comparison = latency, distinct, compared
	dst.StartMonotonicMs = min(dst.GetStartMonotonicMs(), src.GetStartMonotonicMs())
	dst.EndMonotonicMs = max(dst.GetEndMonotonicMs(), src.GetEndMonotonicMs())
	dst.StartWallMs = min(dst.GetStartWallMs(), src.GetStartWallMs())
	dst.EndWallMs = max(dst.GetEndWallMs(), src.GetEndWallMs())
	dst.Rows += src.GetRows()
	dst.Calls += src.GetCalls()
	dst.FailedCalls += src.GetFailedCalls()
	dst.FailedRows += src.GetFailedRows()
	dst.Merged = max(dst.GetMerged(), 1) + max(src.GetMerged(), 1)
	if dst.GetProvider() != src.GetProvider() {
		dst.Provider = ""
	}
	return nil
}

// mergeComparison returns the sum of two comparisons and changes neither.
func mergeComparison(a, b *protocol.Comparison) (*protocol.Comparison, error) {
	switch {
	case a == nil && b == nil:
		return nil, nil //nolint:nilnil // neither compares
	case a == nil || b == nil || string(a.GetPrimary()) != string(b.GetPrimary()):
		return nil, fmt.Errorf("comparisons with other primary releases: %w", ErrMismatch)
	}
	latency, err := mergeLatency(a.GetLatency(), b.GetLatency())
	if err != nil {
		return nil, err
	}
	return &protocol.Comparison{
		Primary: a.GetPrimary(), Rows: a.GetRows() + b.GetRows(), Agreed: a.GetAgreed() + b.GetAgreed(),
		SkippedRows: a.GetSkippedRows() + b.GetSkippedRows(), Worst: max(a.GetWorst(), b.GetWorst()), Latency: latency,
	}, nil
}

// mergeStreams treats a window without streams as one that counted nothing
// into them.
func mergeStreams(dst, src *protocol.Window) error {
	switch {
	case len(src.GetStreams()) == 0:
		return nil
	case len(dst.GetStreams()) == 0:
		for _, h := range src.GetStreams() {
			dst.Streams = append(dst.Streams, &protocol.Histogram{
				Bins: append([]uint64(nil), h.GetBins()...), Missing: h.GetMissing(), Other: h.GetOther(),
			})
		}
		return nil
	default:
		return AddHistograms(dst.GetStreams(), src.GetStreams())
	}
}

func mergeLatency(a, b []byte) ([]byte, error) {
	if len(b) == 0 {
		return a, nil
	}
	x, err := DecodeLatency(a)
	if err != nil {
		return nil, err
	}
	y, err := DecodeLatency(b)
	if err != nil {
		return nil, err
	}
	if err := x.Merge(y); err != nil {
		return nil, err
	}
	return x.Encode()
}

func mergeDistinct(a, b []byte) ([]byte, error) {
	if len(b) == 0 {
		return a, nil
	}
	regs := make([]byte, registers)
	for _, e := range [][]byte{a, b} {
		if err := MaxRegisters(regs, e); err != nil {
			return nil, err
		}
	}
	return encodeRegisters(regs), nil
}

// MergeLabels adds src to dst: labels of one model, release and role. dst is
// unchanged after an error.
func MergeLabels(dst, src *protocol.Labels) error {
	if dst.GetModel() != src.GetModel() || string(dst.GetRelease()) != string(src.GetRelease()) || dst.GetRole() != src.GetRole() {
		return fmt.Errorf("labels of other models, releases or roles: %w", ErrMismatch)
	}
	if a, b := len(dst.GetConfusion()), len(src.GetConfusion()); a != b && a != 0 && b != 0 {
		return fmt.Errorf("confusion of %d cells and %d: %w", a, b, ErrMismatch)
	}
	if a, b := len(dst.GetCalibration()), len(src.GetCalibration()); a != b && a != 0 && b != 0 {
		return fmt.Errorf("calibration of %d bins and %d: %w", a, b, ErrMismatch)
	}
	addConfusion(dst, src)
	addCalibration(dst, src)
	mergeSpan(dst, src)
	dst.Matched += src.GetMatched()
	dst.Unmatched += src.GetUnmatched()
	dst.Correct += src.GetCorrect()
	return nil
}

func addConfusion(dst, src *protocol.Labels) {
	if len(dst.GetConfusion()) == 0 {
		dst.Confusion = append([]uint64(nil), src.GetConfusion()...)
		return
	}
	for i, n := range src.GetConfusion() {
		dst.Confusion[i] += n
	}
}

func addCalibration(dst, src *protocol.Labels) {
	if len(dst.GetCalibration()) == 0 {
		for range src.GetCalibration() {
			dst.Calibration = append(dst.Calibration, &protocol.CalibrationBin{})
		}
	}
	for i, c := range src.GetCalibration() {
		d := dst.GetCalibration()[i]
		d.Count += c.GetCount()
		d.Confidence += c.GetConfidence()
		d.Correct += c.GetCorrect()
		d.Squared += c.GetSquared()
		d.ConfidenceCorrect += c.GetConfidenceCorrect()
	}
}

// mergeSpan widens dst's span over the predictions joined. Labels that joined
// none have no span.
func mergeSpan(dst, src *protocol.Labels) {
	if src.GetMatched() == 0 {
		return
	}
	if dst.GetMatched() == 0 {
		dst.StartWallMs, dst.EndWallMs = src.GetStartWallMs(), src.GetEndWallMs()
		dst.StartMonotonicMs, dst.EndMonotonicMs = src.GetStartMonotonicMs(), src.GetEndMonotonicMs()
		return
	}
	dst.StartWallMs = min(dst.GetStartWallMs(), src.GetStartWallMs())
	dst.EndWallMs = max(dst.GetEndWallMs(), src.GetEndWallMs())
	dst.StartMonotonicMs = min(dst.GetStartMonotonicMs(), src.GetStartMonotonicMs())
	dst.EndMonotonicMs = max(dst.GetEndMonotonicMs(), src.GetEndMonotonicMs())
}
