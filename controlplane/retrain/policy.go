package retrain

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Policy says when a model asks for retraining and whom.
type Policy = operator.RetrainPolicy

// Bounds of a policy.
const (
	maxWebhooks   = 8
	maxConditions = 20
	maxFeatures   = 200 // named by one condition
	maxOpen       = 1000
	maxFor        = 30 * 24 * time.Hour
	maxCooldown   = 366 * 24 * time.Hour
)

// DefaultCooldown is a day: training and rolling out takes at least that.
const DefaultCooldown = 24 * time.Hour

// Words of conditions.
const (
	MeasurePSI = "psi"   // population stability index
	MeasureJS  = "js"    // Jensen–Shannon distance, 0 to 1
	ProofBound = "bound" // the upper end of the confidence sequence
	ProofPoint = "point" // the estimate alone
)

// pointLabels are needed for an estimate without proof: with 100 labels it is
// off by 0.1 one time in twenty.
const pointLabels = 100

// ErrPolicy says that a policy cannot be followed.
var ErrPolicy = errors.New("retrain policy is not valid")

func refused(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrPolicy, fmt.Errorf(format, a...))
}

// decodePolicy reads a stored policy, of the first format too, which counted the
// cooldown in milliseconds.
func decodePolicy(data []byte) (Policy, error) {
	var stored struct {
		Policy

		CooldownMS int64 `json:"cooldown_ms"`
	}
	if err := json.Unmarshal(data, &stored); err != nil {
		return Policy{}, err
	}
	if stored.CooldownMS > 0 {
		stored.Cooldown = release.Duration(time.Duration(stored.CooldownMS) * time.Millisecond)
	}
	return stored.Policy, nil
}

func clone(p *Policy) Policy {
	out := *p
	out.Webhooks, out.When, out.Destinations = slices.Clone(p.Webhooks), slices.Clone(p.When), slices.Clone(p.Destinations)
	return out
}

// WithoutSecrets is a policy for people to read. Of a URL the credentials and the
// query are secrets too.
func WithoutSecrets(p *Policy) Policy {
	out := clone(p)
	out.Secret, out.Reason = "", ""
	for i := range out.Webhooks {
		out.Webhooks[i] = delivery.Name(out.Webhooks[i])
	}
	for i := range out.Destinations {
		d := &out.Destinations[i]
		d.URL, d.Secret = delivery.Name(d.URL), ""
	}
	return out
}

// keepSecrets fills in what was not read back: the rest of a URL, the shared
// secret as long as there are webhooks, and that of a destination as long as its
// URL is the same.
func keepSecrets(p, held *Policy) {
	if p.Secret == "" && len(p.Webhooks) > 0 {
		p.Secret = held.Secret
	}
	webhooks := slices.Clone(held.Webhooks)
	for i, u := range p.Webhooks {
		if j := place(u, webhooks); j >= 0 {
			p.Webhooks[i] = webhooks[j]
			webhooks = slices.Delete(webhooks, j, j+1)
		}
	}
	destinations := slices.Clone(held.Destinations)
	for i := range p.Destinations {
		d := &p.Destinations[i]
		if j := place(d.URL, urlsOf(destinations)); j >= 0 {
			d.URL, d.Secret = destinations[j].URL, cmp.Or(d.Secret, destinations[j].Secret)
			destinations = slices.Delete(destinations, j, j+1)
		}
	}
}

// place finds a URL, or the one that people see as this, among those held.
func place(url string, held []string) int {
	if i := slices.Index(held, url); i >= 0 {
		return i
	}
	return slices.IndexFunc(held, func(h string) bool { return delivery.Name(h) == url })
}

func urlsOf(all []operator.RetrainDestination) []string {
	out := make([]string, len(all))
	for i := range all {
		out[i] = all[i].URL
	}
	return out
}

// Floor is the accuracy below which the monitor raises an alarm: the highest that
// the policy names.
func Floor(p *Policy) float64 {
	floor := p.AccuracyFloor
	for _, w := range p.When {
		if w.Accuracy != nil {
			floor = max(floor, w.Accuracy.Below)
		}
	}
	return floor
}

func cooldown(p *Policy) time.Duration {
	if p.Cooldown <= 0 {
		return DefaultCooldown
	}
	return time.Duration(p.Cooldown)
}

// subject of an event. All begin alike, since the broker is also the server's own:
// an event under one of its subjects would be a record of the ledger, or one that
// a device sent.
var subject = regexp.MustCompile(`^ml(\.[A-Za-z0-9_-]+)+$`)

func (t *Trigger) check(p *Policy) error {
	if err := protocol.CheckName(p.Model); err != nil {
		return refused("%w", err)
	}
	switch {
	case !(p.AccuracyFloor >= 0 && p.AccuracyFloor < 1):
		return refused("accuracy floor %v is not in 0 to 1", p.AccuracyFloor)
	case p.Cooldown < 0 || time.Duration(p.Cooldown) > maxCooldown:
		return refused("cooldown of %v is not in 0 to a year", time.Duration(p.Cooldown))
	case p.MaxOpen < 0 || p.MaxOpen > maxOpen:
		return refused("max_open is %d, must be in 0 to %d", p.MaxOpen, maxOpen)
	case len(p.Webhooks)+len(p.Destinations) > maxWebhooks:
		return refused("%d webhooks, at most %d", len(p.Webhooks)+len(p.Destinations), maxWebhooks)
	case len(p.Secret) > delivery.MaxSecret:
		return refused("secret of %d bytes, at most %d", len(p.Secret), delivery.MaxSecret)
	case p.Subject != "" && t.cfg.Publisher == nil:
		return refused("this server publishes no subjects, give a webhook")
	case p.Subject != "" && (!subject.MatchString(p.Subject) || len(p.Subject) > delivery.MaxSecret):
		return refused("subject %.64q is not \"ml.\" and tokens of letters, digits, '-' and '_' joined by dots", p.Subject)
	}
	return errors.Join(checkURLs(p), checkConditions(p.When), checkSchedule(p.Schedule))
}

func checkURLs(p *Policy) error {
	for _, s := range p.Webhooks {
		if err := delivery.CheckURL(s); err != nil {
			return refused("webhook: %w", err)
		}
	}
	for _, d := range p.Destinations {
		if err := delivery.CheckURL(d.URL); err != nil {
			return refused("destination: %w", err)
		}
		if len(d.Secret) > delivery.MaxSecret {
			return refused("secret of %d bytes, at most %d", len(d.Secret), delivery.MaxSecret)
		}
	}
	return nil
}

func checkConditions(all []operator.RetrainWhen) error {
	if len(all) > maxConditions {
		return refused("%d conditions, at most %d", len(all), maxConditions)
	}
	seen := map[string]bool{}
	for i := range all {
		w := &all[i]
		if seen[w.Name] {
			return refused("there are two conditions %q", w.Name)
		}
		seen[w.Name] = true
		if err := checkCondition(w); err != nil {
			return refused("condition %.64q: %w", w.Name, err)
		}
	}
	return nil
}

// levels are those that a condition can judge. A device at fault asks for nothing.
var levels = []string{"", operator.LevelCohort, operator.LevelSite, operator.LevelVersion, operator.LevelFleet}

func checkCondition(w *operator.RetrainWhen) error {
	if err := protocol.CheckName(w.Name); err != nil {
		return err
	}
	kinds := 0
	for _, given := range []bool{w.Drift != nil, w.Prediction != nil, w.Accuracy != nil} {
		if given {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return fmt.Errorf("it has %d of drift, prediction and accuracy, must have one", kinds)
	case !slices.Contains(levels, w.Level):
		return fmt.Errorf("level %.32q is not one of %v", w.Level, levels[1:])
	case w.For < 0 || time.Duration(w.For) > maxFor:
		return fmt.Errorf("for is %v, must be in 0 to %v", time.Duration(w.For), maxFor)
	case w.Groups < 0 || w.Devices < 0:
		return errors.New("groups and devices are not negative")
	case !(w.Share >= 0 && w.Share <= 1):
		return fmt.Errorf("share is %v, must be in 0 to 1", w.Share)
	case w.Accuracy != nil:
		return checkAccuracy(w)
	case w.Drift != nil:
		return checkDrift(w.Drift)
	}
	return checkDrift(w.Prediction)
}

func checkDrift(d *operator.DriftWhen) error {
	switch {
	case d.Measure != "" && d.Measure != MeasurePSI && d.Measure != MeasureJS:
		return fmt.Errorf("measure %.32q is not %s or %s", d.Measure, MeasurePSI, MeasureJS)
	case !(d.Above >= 0 && d.Above <= 100):
		return fmt.Errorf("above is %v, must be in 0 to 100", d.Above)
	case d.Above == 0 && (d.Measure != "" || d.Features > 0 || len(d.Of) > 0):
		return errors.New("measure, features and of need above: without it the monitor's own verdict counts")
	case d.Features < 0 || len(d.Of) > 0 && d.Features > len(d.Of) || len(d.Of) > maxFeatures:
		return fmt.Errorf("it asks for %d of %d features", d.Features, len(d.Of))
	}
	return nil
}

func checkAccuracy(w *operator.RetrainWhen) error {
	a := w.Accuracy
	switch {
	case !(a.Below > 0 && a.Below < 1):
		return fmt.Errorf("below is %v, must be between 0 and 1", a.Below)
	case a.Proof != "" && a.Proof != ProofBound && a.Proof != ProofPoint:
		return fmt.Errorf("proof %.32q is not %s or %s", a.Proof, ProofBound, ProofPoint)
	case w.Devices > 0 || w.Share > 0:
		return errors.New("devices and share are of drift: labels are counted together")
	}
	return nil
}

// levelOf is what a condition judges.
func levelOf(w *operator.RetrainWhen) drift.Level {
	if w.Level == "" {
		return drift.LevelCohort
	}
	return drift.Level(w.Level)
}
