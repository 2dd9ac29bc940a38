// Package profiles describes classes of devices: how one is recognised, what
// memory and accelerators it has, and how much of it the agent may take. One
// YAML file per class is embedded in the agent; figures name their source.
package profiles

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

//go:embed *.yaml
var files embed.FS

// maxFile bounds one profile in bytes.
const maxFile = 64 << 10

// ErrInvalid says that a profile cannot be used.
var ErrInvalid = errors.New("invalid firmware profile")

// Profile is one class of devices.
type Profile struct {
	Name         string        `yaml:"name"` // stable: it names cohorts and ranks rollouts
	Title        string        `yaml:"title"`
	Match        Match         `yaml:"match"`
	CPU          CPU           `yaml:"cpu"`
	Memory       Memory        `yaml:"memory"`
	Accelerators []Accelerator `yaml:"accelerators"`
	Limits       Limits        `yaml:"limits"`
}

// Match recognises a device. Every list that is not empty must hold a text that
// the device's own contains, letter case aside. The profile with more such
// lists wins.
type Match struct {
	Arch  []string `yaml:"arch"`  // exactly, GOARCH
	Board []string `yaml:"board"` // of the device tree
	CPU   []string `yaml:"cpu"`   // processor model
	GPU   []string `yaml:"gpu"`   // kernel driver of a graphics device
}

// CPU is the processor of the class.
type CPU struct {
	Cores int    `yaml:"cores"`
	Model string `yaml:"model"`
}

// Memory is what devices of the class have, in MiB.
type Memory struct {
	MinMiB int `yaml:"min_mib"`
	MaxMiB int `yaml:"max_mib"`
}

// Accelerator is something that may run a model faster than the processor.
// Whether it does is measured on the device.
type Accelerator struct {
	Name      string   `yaml:"name"`
	Providers []string `yaml:"providers"` // of ONNX Runtime, most capable first
}

// Limits are what the agent takes of the smallest device of the class, the one
// with cpu.cores and memory.min_mib, unless told otherwise. A device with more
// gives as much more.
type Limits struct {
	Concurrency    int `yaml:"concurrency"`      // runs at once per model
	ModelMemoryMiB int `yaml:"model_memory_mib"` // of all models together
	OutboxMiB      int `yaml:"outbox_mib"`       // of records waiting for the network, on every device
}

// Concurrency is how many runs at once a device with that many processors takes
// per model.
func (p *Profile) Concurrency(cpus int) int {
	return max(1, p.Limits.Concurrency*cpus/p.CPU.Cores)
}

// ModelMemory is how many bytes all models together may take on a device with
// that much memory, of the smallest one when it is not known.
func (p *Profile) ModelMemory(memory uint64) uint64 {
	share, least := uint64(p.Limits.ModelMemoryMiB), uint64(p.Memory.MinMiB) //nolint:gosec // Validate wants them above zero
	if memory == 0 {
		return share << 20
	}
	return memory / least * share
}

// Providers are the execution providers of the accelerators, most capable first.
func (p *Profile) Providers() []string {
	var list []string
	for _, a := range p.Accelerators {
		list = append(list, a.Providers...)
	}
	return list
}

// Device is what a profile is matched with.
type Device struct {
	Arch  string   // GOARCH
	Board string   // of the device tree, empty for none
	CPU   string   // processor model
	GPUs  []string // kernel drivers
}

// All returns the embedded profiles by name.
func All() ([]Profile, error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	list := make([]Profile, 0, len(names))
	for _, name := range names {
		raw, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read profile: %w", err)
		}
		p, err := Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if p.Name+".yaml" != name {
			return nil, fmt.Errorf("%w: %s names itself %q", ErrInvalid, name, p.Name)
		}
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b Profile) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// Parse reads and validates one profile; unknown fields are refused.
func Parse(raw []byte) (*Profile, error) {
	if len(raw) > maxFile {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrInvalid, len(raw), maxFile)
	}
	p := &Profile{}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return p, p.Validate()
}

var profileName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Validate says what may not be in a profile.
func (p *Profile) Validate() error {
	switch {
	case !profileName.MatchString(p.Name):
		return fmt.Errorf("%w: name %q must be lower-case letters, digits and '-'", ErrInvalid, p.Name)
	case p.Title == "":
		return fmt.Errorf("%w: %s has no title", ErrInvalid, p.Name)
	case len(p.Match.Arch) == 0:
		return fmt.Errorf("%w: %s matches every architecture", ErrInvalid, p.Name)
	case p.CPU.Cores < 1:
		return fmt.Errorf("%w: %s has %d cores", ErrInvalid, p.Name, p.CPU.Cores)
	case p.Memory.MinMiB < 1 || p.Memory.MaxMiB < p.Memory.MinMiB:
		return fmt.Errorf("%w: %s has memory from %d to %d MiB", ErrInvalid, p.Name, p.Memory.MinMiB, p.Memory.MaxMiB)
	}
	for _, a := range p.Accelerators {
		if a.Name == "" || len(a.Providers) == 0 {
			return fmt.Errorf("%w: %s has an accelerator without a name or a provider", ErrInvalid, p.Name)
		}
	}
	return p.Limits.validate(p)
}

func (l Limits) validate(p *Profile) error {
	switch {
	case l.Concurrency < 1 || l.Concurrency > p.CPU.Cores:
		return fmt.Errorf("%w: %s runs %d at once on %d cores", ErrInvalid, p.Name, l.Concurrency, p.CPU.Cores)
	case l.ModelMemoryMiB < 1 || l.ModelMemoryMiB > p.Memory.MinMiB:
		return fmt.Errorf("%w: %s gives models %d MiB of at least %d", ErrInvalid, p.Name, l.ModelMemoryMiB, p.Memory.MinMiB)
	case l.OutboxMiB < 1:
		return fmt.Errorf("%w: %s has an outbox of %d MiB", ErrInvalid, p.Name, l.OutboxMiB)
	}
	return nil
}

// Find returns the profile that fits d best, false when none does. Of equally
// good ones the first by name is taken, so that the answer never changes by
// itself.
func Find(list []Profile, d Device) (Profile, bool) {
	best, points := Profile{}, 0
	for _, p := range list {
		if n := p.Match.points(d); n > points || n == points && n > 0 && p.Name < best.Name {
			best, points = p, n
		}
	}
	return best, points > 0
}

// points counts the lists of m that d fulfils, 0 when it fails one.
func (m Match) points(d Device) int {
	if !slices.Contains(m.Arch, d.Arch) {
		return 0
	}
	points := 1
	for _, want := range []struct{ any, have []string }{{m.Board, []string{d.Board}}, {m.CPU, []string{d.CPU}}, {m.GPU, d.GPUs}} {
		if len(want.any) == 0 {
			continue
		}
		if !containsAny(want.have, want.any) {
			return 0
		}
		points++
	}
	return points
}

func containsAny(have, parts []string) bool {
	_, _, ok := firstMatch(have, parts)
	return ok
}

// firstMatch is the first of have that contains one of parts, and that part.
func firstMatch(have, parts []string) (text, part string, ok bool) {
	for _, h := range have {
		for _, p := range parts {
			if strings.Contains(strings.ToLower(h), strings.ToLower(p)) {
				return h, p, true
			}
		}
	}
	return "", "", false
}

// Why says to people by what the profile recognises d.
func (p *Profile) Why(d Device) string {
	reasons := []string{"architecture " + d.Arch}
	for _, want := range []struct {
		what      string
		any, have []string
	}{{"board", p.Match.Board, []string{d.Board}}, {"processor", p.Match.CPU, []string{d.CPU}}, {"graphics driver", p.Match.GPU, d.GPUs}} {
		if text, part, ok := firstMatch(want.have, want.any); ok {
			reasons = append(reasons, fmt.Sprintf("%s %q has %q", want.what, text, part))
		}
	}
	return strings.Join(reasons, ", ")
}
