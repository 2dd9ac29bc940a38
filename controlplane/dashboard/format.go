package dashboard

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// functions are what templates call.
func functions() template.FuncMap {
	return template.FuncMap{
		"bytes":   formatBytes,
		"count":   formatCount,
		"number":  formatNumber,
		"percent": formatPercent,
		"when":    formatTime,
		"moment":  formatMoment,
		"stamp":   func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"micros": func(us uint64) string {
			return formatDuration(time.Duration(min(us, math.MaxInt64/1000)) * time.Microsecond)
		},
		"faster":  faster,
		"part":    partText,
		"took":    func(d release.Duration) string { return formatDuration(time.Duration(d)) },
		"words":   words,
		"tone":    tone,
		"short":   shorten,
		"psi":     formatPSI,
		"named":   named,
		"label":   refLabel,
		"segment": url.PathEscape,
		"names":   names,
		"changed": changeNames,
		"pretty":  prettyJSON,
		"deref":   deref,
		"lineage": lineage,
		"prose":   prose,
		"metric":  metricText,
		"limit":   func(g operator.Gate) string { return gateValue(g, g.Limit) },
		"value":   gateValue,
		"way":     way,
		"list":    func(items ...any) []any { return items },
	}
}

// formatBytes gives a size three digits.
func formatBytes(n any) (string, error) {
	v, err := strconv.ParseFloat(fmt.Sprint(n), 64)
	if err != nil {
		return "", fmt.Errorf("size %v: %w", n, err)
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f B", v), nil
	}
	return strconv.FormatFloat(v, 'f', max(0, 2-int(math.Log10(v))), 64) + " " + units[i], nil
}

// formatCount groups a number's digits by thousands, with thin spaces.
func formatCount(n any) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u2009" + s[i:]
	}
	return s
}

func formatNumber(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// formatPercent shows a share with one digit behind the point.
func formatPercent(v any) string {
	switch v := v.(type) {
	case float64:
		return fmt.Sprintf("%.1f\u2009%%", 100*v)
	case *float64:
		if v != nil {
			return fmt.Sprintf("%.1f\u2009%%", 100**v)
		}
	}
	return "–"
}

func formatPSI(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// formatTime is a moment of today's kind; scripts turn it into "12 s ago".
func formatTime(t time.Time) template.HTML {
	if t.IsZero() {
		return "–"
	}
	return timeElement(t, "ago")
}

// formatMoment is a moment that stays a moment.
func formatMoment(t time.Time) template.HTML {
	if t.IsZero() {
		return "–"
	}
	return timeElement(t, "at")
}

func timeElement(t time.Time, kind string) template.HTML {
	t = t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s" data-time="%s" title="%s">%s</time>`, //nolint:gosec // digits and constants alone
		t.Format(time.RFC3339Nano), kind, t.Format("2006-01-02 15:04:05.000 UTC"), t.Format("2006-01-02 15:04:05")))
}

var momentInText = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

// prose is text with the moments in it made readable.
func prose(text string) template.HTML {
	escaped := template.HTMLEscapeString(text)
	return template.HTML(momentInText.ReplaceAllStringFunc(escaped, func(s string) string { //nolint:gosec // escaped above
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return s
		}
		return string(timeElement(t, "at"))
	}))
}

// formatDuration shows two units at most.
func formatDuration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', -1, 64) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(math.Round(d.Seconds()*10)/10, 'f', -1, 64) + " s"
	case d < time.Hour:
		return twoUnits(d, time.Minute, "min", time.Second, "s")
	case d < 48*time.Hour:
		return twoUnits(d, time.Hour, "h", time.Minute, "min")
	default:
		return twoUnits(d, 24*time.Hour, "d", time.Hour, "h")
	}
}

func twoUnits(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	s := fmt.Sprintf("%d %s", d/big, bigName)
	if rest := d % big / small; rest > 0 {
		s += fmt.Sprintf(" %d %s", rest, smallName)
	}
	return s
}

// words makes a name readable: "awaiting_approval" becomes "awaiting approval".
func words(v any) string { return strings.ReplaceAll(fmt.Sprint(v), "_", " ") }

// tones give states, verdicts and results of all kinds one of few looks. A look
// never stands alone: the word is always there too.
var tones = map[string]string{
	"ok": "ok", "online": "ok", "healthy": "ok", "passed": "ok", "pass": "ok", "completed": "ok", "delivered": "ok",
	"production": "ok", "active": "ok",
	"queued": "quiet", "replaced": "quiet", "shadowing": "busy",
	"running": "busy", "open": "busy", "soaking": "busy", "offered": "busy", "resolving": "busy", "downloading": "busy",
	"verifying": "busy", "trialing": "busy", "activating": "busy", "watching": "busy", "reverting": "busy",
	"staging":           "busy",
	"awaiting_approval": "warn", "paused": "warn", "inconclusive": "warn", "unproven": "warn", "waived": "warn",
	"undecided": "warn", "missing": "warn", "overridden": "warn", "apart": "warn", "reverted": "warn", "superseded": "quiet", "late": "warn",
	"lost": "warn", "time_uncertain": "warn", "unclean_boot": "warn", "disk_full": "warn",
	"halted": "bad", "failed": "bad", "fail": "bad", "refused": "bad", "drift": "bad", "breach": "bad",
	"accuracy": "bad", "crash_loop": "bad", "cloned": "bad", "revoked": "bad", "aborted": "bad",
	"prediction": "bad", "new_values": "warn", "calibrated": "ok", "overconfident": "warn", "underconfident": "warn",
	"critical": "bad", "warning": "warn", "answered": "busy", "validated": "busy", "rolled_out": "ok", "rejected": "bad", "acknowledged": "warn", "resolved": "ok", "pending": "busy",
	"sensor_fault": "fault",
}

// tone is the look of a state; states it does not know are quiet.
func tone(v any) string {
	if t, ok := tones[fmt.Sprint(v)]; ok {
		return t
	}
	return "quiet"
}

// shorten shows enough of a digest or hash to tell it from others.
func shorten(v any) string {
	s := fmt.Sprint(v)
	return s[:min(len(s), 10)]
}

// refLabel is "model version", and the digest where the version is not known.
func refLabel(r *operator.ReleaseRef) string {
	switch {
	case r == nil:
		return "–"
	case r.Version == "":
		return r.Model + " " + shorten(r.Release)
	default:
		return r.Model + " " + r.Version
	}
}

// named joins a site's name with the word, and says so when there is none.
func named(kind, name string) string {
	if name == "" {
		return "no " + kind
	}
	return kind + " " + name
}

func prettyJSON(b json.RawMessage) string {
	out, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return string(b)
	}
	return string(out)
}

// lineage is where a version comes from, as its publisher wrote it.
func lineage(m *release.Manifest) (string, error) {
	b, err := json.MarshalIndent(m.Lineage, "", "  ")
	return string(b), err
}

// names lists devices; of many the first and how many there are.
func names(devices []string) string {
	shown, more := first(devices, namesShown)
	out := strings.Join(shown, ", ")
	if more > 0 {
		out += fmt.Sprintf(" and %d more", more)
	}
	return out
}

func deref(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

// tagOf hashes all assets.
func tagOf(all fs.FS) string {
	h := sha256.New()
	err := fs.WalkDir(all, "assets", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(all, p)
		fmt.Fprintf(h, "%s %d\n", p, len(b))
		h.Write(b)
		return err
	})
	if err != nil {
		panic(err) // embedded files can be read
	}
	return `"` + hex.EncodeToString(h.Sum(nil)[:8]) + `"`
}
