package ingest

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Bounds of content [P-2.3]: far beyond what the agent makes, and small enough
// that no message makes the control plane allocate much.
const (
	maxCount      = 1 << 48 // of anything in one record; 2^15 such records add up without overflow
	maxStreams    = 2048
	maxBins       = 4096
	maxSketch     = 64 << 10
	maxConfusion  = 64 * 64
	maxText       = 4 << 10
	maxShort      = 256
	maxAttributes = 64
	maxModels     = 64
	maxListed     = 32
	maxStrata     = 64
	maxExpiry     = uint64(366 * 24 * time.Hour / time.Millisecond)
)

// checkContent refuses what a body may not hold. The text of its errors reaches
// the operator and the device.
func checkContent(b *protocol.Body) error {
	if err := checkStamp(b.GetAt()); err != nil {
		return err
	}
	switch k := b.GetKind().(type) {
	case *protocol.Body_Window:
		return checkWindow(k.Window)
	case *protocol.Body_Labels:
		return checkLabels(k.Labels)
	case *protocol.Body_Event:
		return checkEvent(k.Event)
	case *protocol.Body_Sample:
		return checkSample(k.Sample)
	default:
		return errors.New("the body is of an unknown kind")
	}
}

func checkStamp(s *protocol.Stamp) error {
	if n := len(s.GetBoot()); n != 0 && n != protocol.BootSize {
		return fmt.Errorf("a boot id has %d bytes, want %d", n, protocol.BootSize)
	}
	return nil
}

func checkModel(model string, digest []byte) error {
	if err := protocol.CheckName(model); err != nil {
		return fmt.Errorf("model: %w", err)
	}
	return checkDigest(digest)
}

func checkDigest(digest []byte) error {
	if len(digest) != protocol.DigestSize {
		return fmt.Errorf("a release digest has %d bytes, want %d", len(digest), protocol.DigestSize)
	}
	return nil
}

func checkCounts(what string, counts ...uint64) error {
	for _, n := range counts {
		if n > maxCount {
			return fmt.Errorf("%s count %d, at most %d", what, n, uint64(maxCount))
		}
	}
	return nil
}

func checkWindow(w *protocol.Window) error {
	if err := checkModel(w.GetModel(), w.GetRelease()); err != nil {
		return err
	}
	switch {
	case len(w.GetStreams()) > maxStreams:
		return fmt.Errorf("a window has %d streams, at most %d", len(w.GetStreams()), maxStreams)
	case len(w.GetLatency()) > maxSketch, len(w.GetDistinct()) > maxSketch:
		return fmt.Errorf("a sketch of a window has more than %d bytes", maxSketch)
	case len(w.GetRole()) > maxShort, len(w.GetProvider()) > maxShort:
		return errors.New("role or provider of a window is too long")
	}
	for _, h := range w.GetStreams() {
		if len(h.GetBins()) > maxBins {
			return fmt.Errorf("a stream has %d bins, at most %d", len(h.GetBins()), maxBins)
		}
		if err := checkCounts("a stream", h.GetBins()...); err != nil {
			return err
		}
		if err := checkCounts("a stream", h.GetMissing(), h.GetOther()); err != nil {
			return err
		}
	}
	if err := checkComparison(w); err != nil {
		return err
	}
	return checkCounts("a window", w.GetRows(), w.GetFailedRows(), w.GetCalls(), w.GetFailedCalls())
}

// checkComparison refuses what a shadow could not have counted [P-8.6].
func checkComparison(w *protocol.Window) error {
	c := w.GetComparison()
	if c == nil {
		return nil
	}
	if err := checkDigest(c.GetPrimary()); err != nil {
		return err
	}
	switch {
	case w.GetRole() != protocol.RoleShadow:
		return fmt.Errorf("a window of role %.32q compares with another release", w.GetRole())
	case len(c.GetLatency()) > maxSketch:
		return fmt.Errorf("a sketch of a window has more than %d bytes", maxSketch)
	case c.GetAgreed() > c.GetRows() || c.GetRows() > w.GetRows():
		return fmt.Errorf("a shadow computed %d rows, compared %d and agreed on %d", w.GetRows(), c.GetRows(), c.GetAgreed())
	case !(c.GetWorst() >= 0) || math.IsInf(c.GetWorst(), 0):
		return fmt.Errorf("the worst difference of a shadow is %v", c.GetWorst())
	}
	return checkCounts("a comparison", c.GetRows(), c.GetSkippedRows())
}

func checkLabels(l *protocol.Labels) error {
	if err := checkModel(l.GetModel(), l.GetRelease()); err != nil {
		return err
	}
	switch {
	case l.GetCorrect() > l.GetMatched():
		return fmt.Errorf("%d of %d labels are correct", l.GetCorrect(), l.GetMatched())
	case len(l.GetConfusion()) > maxConfusion:
		return fmt.Errorf("a confusion matrix has %d cells, at most %d", len(l.GetConfusion()), maxConfusion)
	case len(l.GetRole()) > maxShort:
		return errors.New("role of labels is too long")
	case len(l.GetCalibration()) > maxShort:
		return fmt.Errorf("calibration has %d bins, at most %d", len(l.GetCalibration()), maxShort)
	}
	if err := checkCounts("labels", l.GetMatched(), l.GetUnmatched()); err != nil {
		return err
	}
	return checkCounts("a confusion matrix", l.GetConfusion()...)
}

func checkEvent(e *protocol.Event) error {
	switch {
	case e.GetKind() == "" || len(e.GetKind()) > maxShort:
		return errors.New("an event names no kind, or a very long one")
	case len(e.GetModel()) > maxShort, len(e.GetRelease()) > protocol.DigestSize:
		return errors.New("model or release of an event is too long")
	case len(e.GetMessage()) > maxText:
		return fmt.Errorf("the message of an event has %d bytes, at most %d", len(e.GetMessage()), maxText)
	case len(e.GetAttributes()) > maxAttributes:
		return fmt.Errorf("an event has %d attributes, at most %d", len(e.GetAttributes()), maxAttributes)
	}
	for k, v := range e.GetAttributes() {
		if len(k) > maxShort || len(v) > maxText {
			return errors.New("an attribute of an event is too long")
		}
	}
	return checkCounts("lost", e.GetLostRecords(), e.GetLost().GetRows(), e.GetLost().GetLabels())
}

// checkSample refuses what no manifest allows [P-10.3].
func checkSample(s *protocol.Sample) error {
	if err := checkModel(s.GetModel(), s.GetRelease()); err != nil {
		return err
	}
	switch {
	case len(s.GetSealed()) > protocol.MaxSample:
		return fmt.Errorf("a sample has %d bytes, at most %d", len(s.GetSealed()), protocol.MaxSample)
	case len(s.GetStrata()) > maxStrata:
		return fmt.Errorf("a sample has %d strata, at most %d", len(s.GetStrata()), maxStrata)
	case s.GetExpiresMs() > maxExpiry:
		return errors.New("a sample is kept for longer than any manifest allows")
	}
	for _, t := range s.GetStrata() {
		if len(t.GetName()) > maxShort || t.GetRows() > release.MaxSampleRows {
			return errors.New("a stratum of a sample has a very long name or too many rows")
		}
		if err := checkCounts("a stratum", t.GetSeen()); err != nil {
			return err
		}
	}
	return nil
}

// checkHello refuses a hello that no agent sends.
func checkHello(h *protocol.Hello) error {
	if len(h.GetPredictions()) > maxShort {
		return fmt.Errorf("%w: hello names a very long prefix of ids", ErrMalformed)
	}
	if len(h.GetEpochs()) > maxListed {
		return fmt.Errorf("%w: hello lists %d epochs", ErrMalformed, len(h.GetEpochs()))
	}
	for _, e := range h.GetEpochs() {
		if len(e.GetId()) != protocol.EpochSize {
			return fmt.Errorf("%w: hello names an epoch of %d bytes", ErrMalformed, len(e.GetId()))
		}
	}
	f := h.GetFacts()
	for _, s := range append(f.GetExecutionProviders(), h.GetAgentVersion(), f.GetProfile(), f.GetOs(), f.GetArch(), f.GetKernel(),
		f.GetCpuModel(), f.GetRuntime(), f.GetRuntimeVersion(), f.GetHostname(), f.GetTimeZone()) {
		if len(s) > maxText {
			return fmt.Errorf("%w: a fact has %d bytes", ErrMalformed, len(s))
		}
	}
	return nil
}

// checkReport refuses a report that no agent sends.
func checkReport(r *protocol.Report) error {
	if len(r.GetModels()) > maxModels {
		return fmt.Errorf("%w: report lists %d models", ErrMalformed, len(r.GetModels()))
	}
	if len(r.GetMetered()) > maxShort || len(r.GetPower()) > maxShort {
		return fmt.Errorf("%w: link or power of a report is too long", ErrMalformed)
	}
	for _, m := range r.GetModels() {
		if err := checkState(m); err != nil {
			return fmt.Errorf("%w: report: %w", ErrMalformed, err)
		}
		c := m.GetChallenger()
		if c == nil {
			continue
		}
		if c.GetState().GetChallenger() != nil || c.GetState().GetModel() != m.GetModel() || len(c.GetRole()) > maxShort || c.GetShare() > protocol.MaxShare {
			return fmt.Errorf("%w: report of %s names a challenger that cannot be", ErrMalformed, m.GetModel())
		}
		if err := checkState(c.GetState()); err != nil {
			return fmt.Errorf("%w: report: challenger: %w", ErrMalformed, err)
		}
	}
	return nil
}

func checkState(m *protocol.ModelState) error {
	if err := protocol.CheckName(m.GetModel()); err != nil {
		return err
	}
	for _, d := range [][]byte{m.GetActive(), m.GetPrevious(), m.GetTarget()} {
		if len(d) != 0 && len(d) != protocol.DigestSize {
			return fmt.Errorf("%s names a digest of %d bytes", m.GetModel(), len(d))
		}
	}
	if len(m.GetRefused()) > maxAttributes || len(m.GetState()) > maxShort || len(m.GetWaiting()) > maxText {
		return fmt.Errorf("%s is too long", m.GetModel())
	}
	return nil
}
