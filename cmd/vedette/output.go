package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// print writes v as JSON, or calls show to write it for people.
func (a *app) print(v any, show func(w io.Writer)) error {
	if a.json() {
		return writeJSON(a.out, v)
	}
	show(plain{a.out})
	return nil
}

// plain passes text on to a terminal with its control characters made visible:
// what came from a server or a device must not move the cursor, colour what
// follows or hide what was said before. Lines and tabs stay.
type plain struct{ to io.Writer }

func (p plain) Write(b []byte) (int, error) {
	_, err := io.WriteString(p.to, visible(string(b)))
	return len(b), err
}

// visible stands for control characters by pictures of the same width, such as
// ␛, and for those without a picture by a mark.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || !operator.IsControl(r):
			return r
		case r < ' ':
			return '␀' + r
		case r == 0x7f:
			return '␡'
		default:
			return unicode.ReplacementChar
		}
	}, s)
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// remark tells a person something that is not the result.
func (a *app) remark(format string, args ...any) {
	if !a.quiet && !a.json() {
		fmt.Fprintf(plain{a.err}, format+"\n", args...)
	}
}

// grid writes a table without lines: what is copied from it pastes well.
func grid(w io.Writer, header []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	t := table.NewWriter()
	t.SetOutputMirror(w)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	t.AppendHeader(row(header))
	for _, r := range rows {
		t.AppendRow(row(r))
	}
	t.Render()
}

func row(cells []string) table.Row {
	r := make(table.Row, len(cells))
	for i, c := range cells {
		r[i] = visible(c) // before widths are taken
	}
	return r
}

// facts writes names and values, one a line, leaving out what is empty.
func facts(w io.Writer, pairs ...string) {
	width := 0
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			width = max(width, len(pair[0]))
		}
	}
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			fmt.Fprintf(w, "%-*s  %s\n", width, pair[0], pair[1])
		}
	}
}

// heading writes a title with space above it.
func heading(w io.Writer, title string) { fmt.Fprintf(w, "\n%s\n", strings.ToUpper(title)) }

// bytesText is a size for people.
func bytesText[N int64 | uint64](n N) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// ago is how long before now a moment was, in one unit.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return durationText(now.Sub(t))
}

// durationText is a duration in its largest sensible unit.
func durationText(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	default:
		return strconv.Itoa(int(d.Hours()/24)) + "d"
	}
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// share is a fraction as a percentage.
func share(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(whole))
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

func count[N int | int64 | uint64 | uint32](n N) string { return fmt.Sprint(n) }

// countOr is a number, or the text where there is none.
func countOr[N int | int64 | uint64 | uint32](n N, none string) string {
	if n == 0 {
		return none
	}
	return count(n)
}

// labelText is labels as a selector would name them.
func labelText(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

// countsText is counts by name, such as "healthy 7, failed 1".
func countsText(counts map[string]int) string {
	parts := make([]string, 0, len(counts))
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		if counts[k] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", k, counts[k]))
		}
	}
	return strings.Join(parts, ", ")
}

// none stands for a list that is empty.
func none(w io.Writer, what string) { fmt.Fprintf(w, "no %s\n", what) }

// writeLine writes v as one line of JSON.
func writeLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
