package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

// Files of an identity. All are readable by the owner alone.
const (
	stateFile   = "identity.json"
	pendingFile = "pending.key" // a key whose certificate has not come yet
	timeFile    = "time"        // last trusted time, Unix milliseconds
	// maxFile bounds what is read back, in bytes.
	maxFile = 64 << 10
)

func readState(dir string) (*state, error) {
	data, err := readFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := s.parse(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &s, nil
}

// writeState makes s the identity. The key that waited for it is no longer
// pending then; if that cannot be removed, it is only never used.
func writeState(dir string, s *state) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	if err := writeFile(filepath.Join(dir, stateFile), append(data, '\n')); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	err = os.Remove(filepath.Join(dir, pendingFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pending key: %w", err)
	}
	return nil
}

// pendingKey returns the key that waits for its certificate, or makes one that
// is on disk before anybody hears of it.
func pendingKey(dir string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, pendingFile)
	if data, err := readFile(path); err == nil {
		if key, err := decodeKey(data); err == nil {
			return key, nil
		}
		// A torn key was never used: it is written before the first request.
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read pending key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	data, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := writeFile(path, data); err != nil {
		return nil, fmt.Errorf("save key: %w", err)
	}
	return key, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func decodeKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("not a key in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not an ECDSA P-256 key")
	}
	return key, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is over %d bytes", filepath.Base(path), maxFile)
	}
	return bytes.TrimRight(data, "\x00"), err
}

// writeFile puts a file in place as a whole or not at all, in a folder that
// may not be there yet.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(path, data)
}
