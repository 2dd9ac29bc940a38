package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxManifest bounds the canonical bytes of a manifest: 1 MiB holds a schema of
// some ten thousand features.
const MaxManifest = 1 << 20

// Refusals of Decode. Each error wraps one of them and says what is wrong where.
var (
	// ErrTooLarge says that the bytes are over the limit; they were not parsed.
	ErrTooLarge = errors.New("larger than allowed")
	// ErrSyntax says that the bytes are not the JSON of this type: broken,
	// truncated, followed by more, or with a field that this version does not know.
	ErrSyntax = errors.New("not readable")
	// ErrCanonical says that the bytes read well but are not the canonical
	// spelling, so their digest would not identify the content.
	ErrCanonical = errors.New("not in canonical form")
	// ErrInvalid says that a value may not be what it is.
	ErrInvalid = errors.New("not valid")
)

// Decode reads a manifest's canonical bytes. It refuses everything that Encode
// would not write: two different byte strings never decode to one manifest.
func Decode(b []byte) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("manifest: %w: %d bytes, at most %d", ErrTooLarge, len(b), MaxManifest)
	}
	var m Manifest
	if err := decodeStrict(bytes.NewReader(b), &m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	again, err := m.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, fmt.Errorf("manifest: %w: differs at byte %d", ErrCanonical, firstDifference(again, b))
	}
	return &m, nil
}

// Encode validates the manifest and writes its canonical bytes: RFC 8785 (JSON
// Canonicalization Scheme), so any language can write and check them. TUF's own
// canonical JSON was no choice: it has no fractions, and ranges, tolerances and
// metrics are fractions.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	b, err := canonical(m)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("manifest: %w: %d bytes, at most %d", ErrTooLarge, len(b), MaxManifest)
	}
	return b, nil
}

// Digest is the SHA-256 of the canonical bytes: the release's identity.
func (m *Manifest) Digest() (Digest, error) {
	b, err := m.Encode()
	if err != nil {
		return Digest{}, err
	}
	return DigestOf(b), nil
}

// Files lists every file of the release, each digest once, in the order
// variants, baseline, golden.
func (m *Manifest) Files() []File {
	seen := map[Digest]bool{}
	files := make([]File, 0, len(m.Variants)+2)
	for _, f := range m.allFiles() {
		if !seen[f.Digest] {
			seen[f.Digest] = true
			files = append(files, f)
		}
	}
	return files
}

// Size is the sum of Files' sizes in bytes: what a device has to fetch.
func (m *Manifest) Size() int64 {
	var n int64
	for _, f := range m.Files() {
		n += f.Size
	}
	return n
}

func (m *Manifest) allFiles() []File {
	files := make([]File, 0, len(m.Variants)+2)
	for _, v := range m.Variants {
		files = append(files, v.Graph)
	}
	return append(files, m.Baseline, m.Golden)
}

// decodeStrict reads exactly one JSON value of v's type, with known fields only.
func decodeStrict(r io.Reader, v any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more bytes after the end", ErrSyntax)
	}
	return nil
}

// canonical writes v by RFC 8785. encoding/json already writes numbers and
// strings as that RFC asks (validation keeps out the few characters it escapes
// differently); going through a map sorts the keys.
func canonical(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(tree); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// firstDifference is the index of the first byte in which a and b differ.
func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// MarshalText writes the duration as time.Duration does ("50ms").
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a duration such as "50ms".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// String is the duration as time.Duration writes it.
func (d Duration) String() string { return time.Duration(d).String() }
