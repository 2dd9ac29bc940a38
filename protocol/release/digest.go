package release

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrDigest says that something is not a digest: 32 bytes, or 64 lower-case hex
// digits as text.
var ErrDigest = errors.New("not a SHA-256 digest")

// DigestOf is the SHA-256 of b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads 64 lower-case hex digits. Upper case is refused: one digest
// has one spelling, because it names files and TUF targets.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if err := d.UnmarshalText([]byte(s)); err != nil {
		return Digest{}, err
	}
	return d, nil
}

// DigestFromBytes reads the 32 bytes that the wire carries.
func DigestFromBytes(b []byte) (Digest, error) {
	if len(b) != len(Digest{}) {
		return Digest{}, fmt.Errorf("%w: %d bytes, want %d", ErrDigest, len(b), len(Digest{}))
	}
	return Digest(b), nil
}

// String is the digest as 64 lower-case hex digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short is the first 12 hex digits, for people.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// Bytes is a copy of the digest as the wire carries it.
func (d Digest) Bytes() []byte { return append([]byte(nil), d[:]...) }

// IsZero reports whether d is the zero value, which stands for no digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText writes the digest as 64 lower-case hex digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText writes and nothing else.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("%w: %d characters, want %d hex digits", ErrDigest, len(text), hex.EncodedLen(len(d)))
	}
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("%w: %q is not a lower-case hex digit", ErrDigest, c)
		}
	}
	_, err := hex.Decode(d[:], text)
	return err
}
