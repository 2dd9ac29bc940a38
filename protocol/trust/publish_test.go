package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/vedette-edge/vedette/protocol/release"
)

// TestSigningInSeparatePlaces: two holders sign copies of one file, neither
// sees the other's key, and the merged file reaches the threshold.
func TestSigningInSeparatePlaces(t *testing.T) {
	r := newRepo(t)
	root := r.files["root.1"]
	doc := draft(t, r)
	first, second := signed(t)(Sign(doc, r.targets[0])), signed(t)(Sign(doc, r.targets[1]))
	merged := signed(t)(Merge(doc, first, second, first))
	for _, step := range []struct {
		name string
		doc  []byte
		have int
		ok   bool
	}{{"draft", doc, 0, false}, {"first", first, 1, false}, {"second", second, 1, false}, {"merged", merged, 2, true}} {
		s, err := SignersOf(root, step.doc)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Signed) != step.have || len(s.Missing) != 2-step.have || s.Threshold != 2 || s.Enough() != step.ok {
			t.Errorf("%s: got %+v", step.name, s)
		}
		if _, err := CheckTargets(root, r.newestTargets, step.doc, day0); (err == nil) != step.ok {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	passedAlong := signed(t)(Sign(first, r.targets[1]))
	if _, err := CheckTargets(root, r.newestTargets, passedAlong, day0); err != nil {
		t.Errorf("signed one after the other: %v", err)
	}
}

func TestMergeRefuses(t *testing.T) {
	r := newRepo(t)
	one := draft(t, r)
	other := signed(t)(AddRelease(r.newestTargets, manifest("digits", "good", 1), day0.Add(year)))
	for name, docs := range map[string][][]byte{
		"nothing":           {},
		"different content": {one, other},
		"different types":   {one, r.files["root.1"]},
		"online metadata":   {r.files["timestamp"]},
		"no metadata":       {[]byte("{}")},
	} {
		if _, err := Merge(docs...); !errors.Is(err, ErrEdit) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestSignTwiceReplaces(t *testing.T) {
	r := newRepo(t)
	doc := signed(t)(Sign(signed(t)(Sign(draft(t, r), r.targets[0])), r.targets[0]))
	m, err := parse[metadata.TargetsType](doc, MaxTargets)
	if err != nil || len(m.Signatures) != 1 {
		t.Errorf("%d signatures, %v", len(m.Signatures), err)
	}
	if _, err := Sign(r.files["timestamp"], r.targets[0]); !errors.Is(err, ErrEdit) {
		t.Errorf("timestamp: got %v, want %v", err, ErrEdit)
	}
}

func TestEditsRefuse(t *testing.T) {
	r := newRepo(t)
	v1 := r.add("digits", "v1", 5)
	r.add("digits", "v2", 7)
	r.publish(signed(t)(RaiseFloor(r.newestTargets, "digits", 6, day0.Add(year))))
	now := r.newestTargets
	expires := day0.Add(year)
	add := func(version string, sequence uint64) error {
		_, err := AddRelease(now, manifest("digits", version, sequence), expires)
		return err
	}
	raise := func(model string, sequence uint64) error {
		_, err := RaiseFloor(now, model, sequence, expires)
		return err
	}
	tests := []struct {
		name    string
		err     error
		want    error
		mention string
	}{
		{"version taken", add("v2", 8), ErrEdit, "released already"},
		{"sequence taken", add("v3", 7), ErrEdit, "needs a higher one"},
		{"sequence too low", add("v3", 6), ErrEdit, "needs a higher one"},
		{"bad manifest", add("../v3", 9), release.ErrInvalid, "version"},
		{"floor falls", raise("digits", 5), ErrEdit, "can only rise"},
		{"floor stays", raise("digits", 6), ErrEdit, "can only rise"},
		{"floor above all releases", raise("digits", 8), ErrEdit, "no release with sequence 8"},
		{"floor of no model", raise("wine", 1), ErrEdit, "no release"},
		{"release that is not there", errOf(RemoveRelease(now, "wine", v1, expires)), ErrEdit, "not released"},
		{"targets that are a root", errOf(Extend(r.files["root.1"], expires)), ErrMalformed, ""},
		{"root that is targets", errOf(NewRoot(now, r.plan())), ErrMalformed, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !errors.Is(tt.err, tt.want) || !strings.Contains(tt.err.Error(), tt.mention) {
				t.Errorf("got %v, want %v with %q", tt.err, tt.want, tt.mention)
			}
		})
	}
	t.Run("below the floor of a model without releases", func(t *testing.T) {
		removed := signed(t)(RemoveRelease(now, "digits", v1, expires))
		parsed, err := ReadTargets(removed)
		if err != nil {
			t.Fatal(err)
		}
		last := signed(t)(RemoveRelease(removed, "digits", parsed.Releases[0].Digest, expires))
		if _, err := AddRelease(last, manifest("digits", "v0", 1), expires); !errors.Is(err, ErrEdit) {
			t.Errorf("got %v, want %v", err, ErrEdit)
		}
	})
}

func errOf(_ []byte, err error) error { return err }

func TestPlanRefuses(t *testing.T) {
	r := newRepo(t)
	for name, change := range map[string]func(*Plan){
		"more signatures than keys": func(p *Plan) { p.Root.Threshold = 3 },
		"no signature needed":       func(p *Plan) { p.Targets.Threshold = 0 },
		"no keys":                   func(p *Plan) { p.Targets = Holders{} },
		"no online key":             func(p *Plan) { p.Snapshot = PublicKey{} },
		"one key twice": func(p *Plan) {
			p.Root = Holders{Keys: []PublicKey{p.Root.Keys[0], p.Root.Keys[0]}, Threshold: 2}
		},
	} {
		p := r.plan()
		change(&p)
		if _, _, err := Init(p, day0.Add(year)); !errors.Is(err, ErrEdit) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	p, err := PlanOf(r.files["root.1"])
	if want := r.plan(); err != nil || !slices.Equal(p.Root.Keys, want.Root.Keys) || p.Targets.Threshold != 2 || p.Timestamp != want.Timestamp || !p.Expires.Equal(want.Expires) {
		t.Errorf("plan of the root is %+v, %v, want %+v", p, err, want)
	}
}

func TestCheckRoot(t *testing.T) {
	r := newRepo(t)
	first := r.files["root.1"]
	old := r.root
	r.root = []*Key{newKey(t), newKey(t)}
	next := signed(t)(NewRoot(first, r.plan()))
	tests := []struct {
		name          string
		current, next []byte
		now           time.Time
		want          error
	}{
		{"first", nil, first, day0, nil},
		{"next", first, signed(t)(Sign(next, append(slices.Clone(old), r.root...)...)), day0, nil},
		{"only by the old keys", first, signed(t)(Sign(next, old...)), day0, ErrSignature},
		{"only by the new keys", first, signed(t)(Sign(next, r.root...)), day0, ErrSignature},
		{"by one old key of two", first, signed(t)(Sign(next, append(slices.Clone(old[:1]), r.root...)...)), day0, ErrSignature},
		{"the same again", first, first, day0, ErrRollback},
		{"expired", nil, first, day0.Add(3 * year), ErrExpired},
		{"key of another kind", nil, bytes.Replace(first, []byte(`"ed25519"`), []byte(`"rsa"`), 1), day0, ErrMalformed},
		{"key that is too short", nil, bytes.Replace(first, []byte(`"public": "`), []byte(`"public": "zz`), 1), day0, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := CheckRoot(tt.current, tt.next, tt.now); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestCheckTargetsKeepsFloors(t *testing.T) {
	r := newRepo(t)
	r.add("digits", "v1", 1)
	r.add("digits", "v2", 2)
	before := r.newestTargets
	r.publish(signed(t)(RaiseFloor(before, "digits", 2, day0.Add(year))))
	// Somebody goes on from an older copy and signs a later version of it.
	later := before
	for range 2 {
		later = signed(t)(Extend(later, day0.Add(year)))
	}
	later = signed(t)(Sign(later, r.targets...))
	if _, err := CheckTargets(r.files["root.1"], r.newestTargets, later, day0); !errors.Is(err, ErrRollback) {
		t.Errorf("got %v, want %v", err, ErrRollback)
	}
}

// fixedKey is a key that is the same in every run.
func fixedKey(n byte) *Key {
	return &Key{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))}
}

// TestVectors pins the disk format of what publishers keep and devices verify.
func TestVectors(t *testing.T) {
	rootKey, targetsKey := fixedKey(1), fixedKey(2)
	root, targets, err := Init(Plan{
		Root: holders(1, rootKey), Targets: holders(1, targetsKey),
		Snapshot: fixedKey(3).Public(), Timestamp: fixedKey(4).Public(), Expires: day0.Add(2 * year),
	}, day0.Add(year))
	if err != nil {
		t.Fatal(err)
	}
	targets = signed(t)(AddRelease(targets, manifest("digits", "v1", 1), day0.Add(year)))
	targets = signed(t)(AddRelease(targets, manifest("digits", "v2", 2), day0.Add(year)))
	targets = signed(t)(RaiseFloor(targets, "digits", 2, day0.Add(year)))
	for name, got := range map[string][]byte{
		"root.1.json":    signed(t)(Sign(root, rootKey)),
		"targets.4.json": signed(t)(Sign(targets, targetsKey)),
	} {
		want, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got %s", name, got)
		}
	}
	wantRoot, err := os.ReadFile("testdata/root.1.json")
	if err != nil {
		t.Fatal(err)
	}
	wantTargets, err := os.ReadFile("testdata/targets.4.json")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := CheckTargets(wantRoot, nil, wantTargets, day0)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(len(parsed.Releases), parsed.Version, parsed.Floors); got != "2 4 map[digits:2]" {
		t.Errorf("got %s", got)
	}
	const id = "7ab6b86cb2c9684b0ddc10896153aa2595decf4d4327a5ff1a8ab7422c828b12"
	if got := rootKey.Public().ID(); got != id {
		t.Errorf("key id is %s, want %s", got, id)
	}
}

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "root.key")
	k := newKey(t)
	if err := WriteKey(path, k); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v, want 0600", info.Mode(), err)
	}
	again, err := ReadKey(path)
	if err != nil || again.Public() != k.Public() {
		t.Errorf("got %v, %v, want %v", again, err, k.Public())
	}
	if err := WriteKey(path, newKey(t)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwriting: got %v, want %v", err, fs.ErrExist)
	}
	if again, err := ReadKey(path); err != nil || again.Public() != k.Public() {
		t.Errorf("after the refusal: %v, %v", again, err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o660, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(path); !errors.Is(err, ErrKeyMode) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %04o: got %v, want %v", mode, err, ErrKeyMode)
		}
	}
	if _, err := ReadKey(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}

func TestKeyFileThatIsNone(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty":        nil,
		"zeros":        make([]byte, 120),
		"public key":   pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"damaged":      pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der[:20]}),
		"another kind": pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}),
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(path); !errors.Is(err, ErrKey) {
			t.Errorf("%s: got %v, want %v", name, err, ErrKey)
		}
	}
}

func TestPublicKeyText(t *testing.T) {
	want := newKey(t).Public()
	got, err := ParsePublicKey(want.String() + "\n")
	if err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "ed25519:", want.String()[1:], want.String() + "00", strings.Replace(want.String(), "ed25519", "rsa", 1)} {
		if _, err := ParsePublicKey(bad); !errors.Is(err, ErrKey) {
			t.Errorf("%q: got %v, want %v", bad, err, ErrKey)
		}
	}
}

// FuzzHostileServer serves anything as targets, under a snapshot and timestamp
// that a taken-over control plane has signed for it. Nothing may be accepted
// and nothing may crash.
func FuzzHostileServer(f *testing.F) {
	f.Add([]byte(`{"signatures":[],"signed":{"_type":"targets","spec_version":"1.0.31","version":2,"expires":"2027-01-01T00:00:00Z","targets":{"a":null}}}`))
	f.Add([]byte(`{"signatures":[{"keyid":"x","sig":"00"}],"signed":{"_type":"targets","version":2,"targets":{},"vedette_floors":{"digits":1.5},"delegations":{}}}`))
	f.Add([]byte(`{"signed":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newRepo(t)
		d := release.DigestOf(b)
		m := metadata.Snapshot(day0.Add(year))
		m.Signed.Version = 2
		m.Signed.Meta = map[string]*metadata.MetaFiles{"targets.json": {Version: 2, Length: int64(len(b)), Hashes: metadata.Hashes{"sha256": d.Bytes()}}}
		snapshot := signed(t)(signOnline(m, r.snapshot))
		r.files["targets.2"], r.files["snapshot.2"] = b, snapshot
		r.files["timestamp"] = signed(t)(SignTimestamp(r.timestamp, 2, snapshot, day0.Add(year)))
		if err := open(t, t.TempDir(), r.pin()).Refresh(t.Context(), r, day0); err == nil {
			t.Errorf("accepted %q", b)
		}
	})
}
