// Package protocol is what a device and the control plane say to each other:
// the messages (device.proto), the topics they travel on, the limits both sides
// keep, and the arithmetic of the exact accounting. SPEC.md beside this file
// numbers the rules; code that implements one cites it as [P-n].
package protocol

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate

// Version of the wire. History:
//
//	1  2026-11-23  first
const Version = 1

// Limits of the wire [P-2]. A message over a limit is refused by whoever
// receives it, so a sender checks first.
const (
	// MaxPayload bounds one MQTT payload; the broker enforces it. A window of
	// 256 streams × 32 bins is under 40 KiB, so this is room, not a target.
	MaxPayload = 256 << 10
	// MaxSent is how many numbered records may wait for their acknowledgement.
	// It bounds what a reconnect repeats and the space reserved for it.
	MaxSent = 32
)

// Lengths of binary fields in bytes.
const (
	EpochSize  = 16
	ChainSize  = 8
	BootSize   = 16
	DigestSize = sha256.Size
)

// Topics of the wire [P-1], MQTT spelling. The same with '.' for '/' are the
// subjects of the embedded broker.
const topicRoot = "vedette/v1/"

// UpTopic is where a device publishes its envelopes, QoS 1.
func UpTopic(device string) string { return topicRoot + device + "/up" }

// StatusTopic is where a device publishes its presence and leaves its will.
func StatusTopic(device string) string { return topicRoot + device + "/status" }

// DownFilter is the one subscription of a device, QoS 0.
func DownFilter(device string) string { return topicRoot + device + "/down/+" }

// DesiredTopic carries the device's desired state.
func DesiredTopic(device string) string { return topicRoot + device + "/down/desired" }

// AckTopic carries what the server holds durably.
func AckTopic(device string) string { return topicRoot + device + "/down/ack" }

// Subject turns a topic or filter into the broker's subject. Device ids hold
// nothing that means something in either spelling, so this is exact.
func Subject(topic string) string {
	return strings.NewReplacer("/", ".", "+", "*", "#", ">").Replace(topic)
}

// DeviceOfSubject takes the device id from a subject such as
// "vedette.v1.cam-a1.up" and the leaf after it.
func DeviceOfSubject(subject string) (device, leaf string, err error) {
	rest, ok := strings.CutPrefix(subject, "vedette.v1.")
	if !ok {
		return "", "", fmt.Errorf("subject %q is not of this protocol", subject)
	}
	device, leaf, ok = strings.Cut(rest, ".")
	if !ok {
		return "", "", fmt.Errorf("subject %q names no leaf", subject)
	}
	return device, leaf, CheckDeviceID(device)
}

// ErrDeviceID says that a device id has a character or a length it may not have.
var ErrDeviceID = errors.New("device id must be 1 to 63 of a-z, 0-9 and '-'")

var deviceID = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// CheckDeviceID refuses ids that could mean something in a topic, a subject, a
// path or a certificate name [P-1.1].
func CheckDeviceID(id string) error {
	if !deviceID.MatchString(id) {
		return fmt.Errorf("%w: %q", ErrDeviceID, id)
	}
	return nil
}

var timeZone = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$`)

// IsTimeZone says whether text has the shape of an IANA time zone name, as
// Europe/Berlin has [P-3.8]. Whether there is such a zone is not looked up.
func IsTimeZone(text string) bool {
	return len(text) <= 64 && text != "Local" && text != "localtime" && timeZone.MatchString(text)
}

var name = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// ErrName says that a model or version name has a character or a length it may not have.
var ErrName = errors.New("name must be 1 to 63 of a-z, 0-9, '.', '_' and '-', start with a letter or digit, and have no '..'")

// CheckName refuses model and version names that could mean something in a
// path, a subject or a TUF target pattern [P-1.2].
func CheckName(s string) error {
	if !name.MatchString(s) || strings.Contains(s, "..") {
		return fmt.Errorf("%w: %q", ErrName, s)
	}
	return nil
}

// Roles of a release for its model, in assignments and in what devices count.
const (
	RolePrimary = "primary" // its answers are the ones given out
	RoleShadow  = "shadow"  // computes the same calls, answers nobody
	RoleShare   = "share"   // answers a share of the calls
)

// What reports say of a device's link and power; empty is not known [P-3.8].
const (
	MeteredYes   = "yes" // billed by volume
	MeteredNo    = "no"
	PowerMains   = "mains"
	PowerBattery = "battery"
)

// MaxShare is all of the calls: shares are parts per thousand.
const MaxShare = 1000

// Reasons of a skip [P-4.6].
const (
	// SkipSalvage says that a damaged file lost the records.
	SkipSalvage = "salvage"
	// SkipServerBehind says that the server held them once and was restored from a backup.
	SkipServerBehind = "server_behind"
	// SkipClosed is SkipServerBehind in an epoch that the device has left. A closed
	// epoch takes no other: one from before the closing would be counted twice.
	SkipClosed = "closed"
)

// NextChain is the chain value of a record: SHA-256(chain of the one before ‖
// body), first eight bytes [P-4.2]. The first record of an epoch follows eight
// zero bytes.
func NextChain(prev, body []byte) []byte {
	if len(prev) == 0 {
		prev = make([]byte, ChainSize)
	}
	h := sha256.New()
	h.Write(prev)
	h.Write(body)
	return h.Sum(nil)[:ChainSize]
}

// Successor is the epoch that follows one that had to be closed. It is derived,
// so that a device that has forgotten that it moved on, and a server, know
// which one to ask for next [P-4.9].
func Successor(epoch []byte) []byte {
	h := sha256.Sum256(append([]byte("vedette epoch after "), epoch...))
	return h[:EpochSize]
}

// Add returns a + b. A nil tally is zero.
func (t *Tally) Add(o *Tally) *Tally {
	return &Tally{Rows: t.GetRows() + o.GetRows(), Labels: t.GetLabels() + o.GetLabels()}
}

// Sub returns a − b, or an error when b is larger in any part: totals only grow.
func (t *Tally) Sub(o *Tally) (*Tally, error) {
	if o.GetRows() > t.GetRows() || o.GetLabels() > t.GetLabels() {
		return nil, fmt.Errorf("tally goes backwards: %v after %v", t, o)
	}
	return &Tally{Rows: t.GetRows() - o.GetRows(), Labels: t.GetLabels() - o.GetLabels()}, nil
}

// TallyOf is what one record body adds to the accounting. An event that reports
// records lost before they got a number adds what they counted: so the total of
// an epoch says what was generated, and the server books it as lost [P-4.7]. A
// shadow computes what was predicted already, so it adds nothing [P-4.3].
func TallyOf(b *Body) *Tally {
	if b.GetWindow().GetRole() == RoleShadow || b.GetLabels().GetRole() == RoleShadow {
		return &Tally{}
	}
	switch k := b.GetKind().(type) {
	case *Body_Window:
		return &Tally{Rows: k.Window.GetRows() + k.Window.GetFailedRows()}
	case *Body_Labels:
		return &Tally{Labels: k.Labels.GetMatched() + k.Labels.GetUnmatched()}
	case *Body_Event:
		return (&Tally{}).Add(k.Event.GetLost())
	default:
		return &Tally{}
	}
}
