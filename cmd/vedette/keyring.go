package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// Files of a publisher's folder. Private keys lie beside them as *.key.
const (
	rootFile     = "root.json"      // the operator's own copy: what enrolment tokens pin
	nextRootFile = "root.next.json" // the one that is to follow, while it is being signed
	targetsFile  = "targets.json"   // newest signed targets that were seen
	keySuffix    = ".key"
)

// keyring is a publisher's folder.
type keyring struct{ dir string }

func (a *app) keyring() (keyring, error) {
	dir := firstOf(a.keys, os.Getenv("VEDETTE_KEYS"))
	if dir == "" {
		base, err := os.UserConfigDir()
		if err != nil {
			return keyring{}, operator.Errorf(operator.Invalid, "find the folder for keys: %w", err).WithHint("name one with --keys DIR")
		}
		dir = filepath.Join(base, "vedette", "keys")
	}
	return keyring{dir: dir}, nil
}

func (k keyring) path(name string) string { return filepath.Join(k.dir, name) }

func (k keyring) has(name string) bool {
	_, err := os.Stat(k.path(name))
	return err == nil
}

// root is the operator's own copy of the root of trust.
func (k keyring) root() ([]byte, error) {
	b, err := readFile(k.path(rootFile), trust.MaxRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, operator.Errorf(operator.NoRoot, "there is no root of trust in %s", k.dir).
			WithHint(`make one with "vedette key init", or copy root.json from whoever made it (not from the server)`)
	}
	return b, err
}

// pin is what devices are told to trust: the digest of the root.
func (k keyring) pin() (release.Digest, error) {
	b, err := k.root()
	return release.DigestOf(b), err
}

func (k keyring) write(name string, data []byte) error { return writeFile(k.path(name), data, 0o644) }

// privateKeys reads all private keys of the folder, by file name.
func (k keyring) privateKeys() (map[string]*trust.Key, error) {
	names, err := filepath.Glob(filepath.Join(k.dir, "*"+keySuffix))
	if err != nil {
		return nil, fileError(err)
	}
	keys := map[string]*trust.Key{}
	for _, path := range names {
		if keys[filepath.Base(path)], err = readKey(path); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func readKey(path string) (*trust.Key, error) {
	key, err := trust.ReadKey(path)
	if errors.Is(err, trust.ErrKeyMode) {
		return nil, operator.Errorf(operator.Invalid, "read %s: %w", path, err).WithHint("chmod 600 %s; if others may have read it, replace it", path)
	}
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "read %s: %w", path, err)
	}
	return key, nil
}

// newKey makes and stores a private key.
func (k keyring) newKey(name string) (*trust.Key, error) {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, fileError(err)
	}
	key, err := trust.GenerateKey()
	if err != nil {
		return nil, fileError(err)
	}
	if err := trust.WriteKey(k.path(name+keySuffix), key); err != nil {
		return nil, operator.Errorf(operator.Conflict, "write key: %w", err)
	}
	return key, nil
}

// signWith adds signatures by those private keys that the metadata's roots
// name for it. It says which keys those were; none is no error.
func signWith(doc []byte, keys map[string]*trust.Key, roots ...[]byte) (signed []byte, used []string, err error) {
	var signers []*trust.Key
	for _, root := range roots {
		state, err := trust.SignersOf(root, doc)
		if err != nil {
			return nil, nil, operator.Errorf(operator.Invalid, "read signatures: %w", err)
		}
		holders := slices.Concat(state.Signed, state.Missing)
		for name, key := range keys {
			if slices.Contains(holders, key.Public()) && !slices.Contains(signers, key) {
				signers = append(signers, key)
				used = append(used, name)
			}
		}
	}
	if len(signers) == 0 {
		return doc, nil, nil
	}
	slices.Sort(used)
	if signed, err = trust.Sign(doc, signers...); err != nil {
		return nil, nil, operator.Errorf(operator.Invalid, "sign: %w", err)
	}
	return signed, used, nil
}

// missing says whose signatures a file still needs; empty is enough.
func missing(doc []byte, roots ...[]byte) (string, error) {
	var parts []string
	for _, root := range roots {
		state, err := trust.SignersOf(root, doc)
		if err != nil {
			return "", operator.Errorf(operator.Invalid, "read signatures: %w", err)
		}
		if !state.Enough() {
			ids := make([]string, len(state.Missing))
			for i, p := range state.Missing {
				ids[i] = shortID(p)
			}
			parts = append(parts, count(state.Threshold-len(state.Signed))+" of "+state.Role+" keys "+strings.Join(ids, ", "))
		}
	}
	return strings.Join(parts, "; "), nil
}

// shortID is enough of a key's id to tell keys of one fleet apart.
func shortID(p trust.PublicKey) string { return p.ID()[:12] }
