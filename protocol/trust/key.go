package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

// Refusals of key files.
var (
	// ErrKey says that a file or a text is not a key of this program.
	ErrKey = errors.New("not an Ed25519 key")
	// ErrKeyMode says that others can read a private key.
	ErrKeyMode = errors.New("private key can be read by others")
)

const (
	pemType       = "PRIVATE KEY" // PKCS #8
	publicKeyText = "ed25519:"
	maxKeyFile    = 4 << 10
)

// Key is a private Ed25519 key.
type Key struct{ private ed25519.PrivateKey }

// GenerateKey makes a key from the system's randomness.
func GenerateKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return &Key{private}, nil
}

// Public is the public half.
func (k *Key) Public() PublicKey {
	return PublicKey{key: [ed25519.PublicKeySize]byte(k.private[ed25519.PrivateKeySize-ed25519.PublicKeySize:])}
}

func (k *Key) signer() (signature.Signer, error) {
	return signature.LoadED25519Signer(k.private)
}

// WriteKey writes a private key as PKCS #8 PEM that only its owner can read. It
// never overwrites: a lost root key is a lost fleet.
func WriteKey(path string, k *Key) error {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	temp := path + ".unfinished"
	if err := writeSynced(temp, b); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	defer os.Remove(temp)
	if err := os.Link(temp, path); errors.Is(err, fs.ErrExist) { // unlike a rename, a link never replaces
		return fmt.Errorf("write key: %w: move it away first if you mean to replace it", err)
	} else if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// ReadKey reads what WriteKey wrote. A file that its group or others can read
// is refused: its key may be known already.
func ReadKey(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; if nobody else has used it, run: chmod 600 %s", ErrKeyMode, path, info.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	k, err := parseKey(b)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	return k, nil
}

func parseKey(b []byte) (*Key, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("%w: no PEM block %q", ErrKey, pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: %T", ErrKey, parsed)
	}
	return &Key{private}, nil
}

// PublicKey is a public Ed25519 key. Its text is "ed25519:" and 64 hex digits.
type PublicKey struct{ key [ed25519.PublicKeySize]byte }

// ParsePublicKey reads the text of a public key.
func ParsePublicKey(s string) (PublicKey, error) {
	digits, ok := strings.CutPrefix(strings.TrimSpace(s), publicKeyText)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != ed25519.PublicKeySize {
		return PublicKey{}, fmt.Errorf("%w: %q must be %q and %d hex digits", ErrKey, s, publicKeyText, hex.EncodedLen(ed25519.PublicKeySize))
	}
	return PublicKey{key: [ed25519.PublicKeySize]byte(b)}, nil
}

// String is the text of the key.
func (p PublicKey) String() string { return publicKeyText + hex.EncodeToString(p.key[:]) }

// MarshalText writes the text of the key.
func (p PublicKey) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the text of a key.
func (p *PublicKey) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePublicKey(string(b))
	return err
}

// IsZero reports whether p is the zero value, which is no key.
func (p PublicKey) IsZero() bool { return p == PublicKey{} }

// ID is the key's TUF identifier, which root and signatures name.
func (p PublicKey) ID() string {
	_, id, err := p.tuf()
	if err != nil {
		return "" // an Ed25519 key always has a canonical form
	}
	return id
}

func (p PublicKey) tuf() (key *metadata.Key, id string, err error) {
	key, err = metadata.KeyFromPublicKey(ed25519.PublicKey(p.key[:]))
	if err != nil {
		return nil, "", err
	}
	id, err = key.ID()
	return key, id, err
}

// publicKeyOf reads a key of root metadata. Other kinds of keys are refused, so
// that nothing depends on which of them every program in the fleet understands.
func publicKeyOf(k *metadata.Key) (PublicKey, error) {
	if k == nil || k.Type != metadata.KeyTypeEd25519 || k.Scheme != metadata.KeySchemeEd25519 {
		return PublicKey{}, fmt.Errorf("%w: root names a key of another kind", ErrKey)
	}
	return ParsePublicKey(publicKeyText + k.Value.PublicKey)
}
