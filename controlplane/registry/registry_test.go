package registry

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/graph"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// TestDeviceBelievesWhatIsPublished lets a real trust store read from the
// registry, across a rotation of all keys and a restart.
func TestDeviceBelievesWhatIsPublished(t *testing.T) {
	f := installed(t)
	v1 := f.release("v1", 1)
	device, err := trust.Open(t.TempDir(), release.DigestOf(f.root))
	if err != nil {
		t.Fatal(err)
	}
	if err := device.Refresh(t.Context(), f, f.now); err != nil {
		t.Fatal(err)
	}
	if _, err := device.Release("wine", v1); err != nil {
		t.Fatal(err)
	}

	oldRoot := f.rootKey
	f.rootKey, f.targetsKey = f.key(), f.key()
	next, err := trust.NewRoot(f.root, f.plan())
	if err != nil {
		t.Fatal(err)
	}
	f.root = f.sign(next, oldRoot, f.rootKey)
	if err := f.InstallRoot(t.Context(), "ada", f.root); err != nil {
		t.Fatal(err)
	}
	if err := device.Refresh(t.Context(), f, f.now); !errors.Is(err, trust.ErrSignature) {
		t.Fatalf("targets of the old key: got %v, want %v", err, trust.ErrSignature)
	}
	f.start()
	v2 := f.release("v2", 2)
	if err := device.Refresh(t.Context(), f, f.now); err != nil {
		t.Fatal(err)
	}
	if _, err := device.Release("wine", v2); err != nil {
		t.Error(err)
	}
}

func TestPublishRefuses(t *testing.T) {
	tests := []struct {
		name    string
		targets func(f *fixture) []byte
		want    []error
		mention string
	}{
		{"unsigned", func(f *fixture) []byte {
			return f.listing(f.manifest("v1", 1, nil))
		}, []error{ErrRefused, trust.ErrSignature}, ""},
		{"signed by a stranger", func(f *fixture) []byte {
			return f.listing(f.manifest("v1", 1, nil), f.key())
		}, []error{ErrRefused, trust.ErrSignature}, ""},
		{"signed by the root key", func(f *fixture) []byte {
			return f.listing(f.manifest("v1", 1, nil), f.rootKey)
		}, []error{ErrRefused, trust.ErrSignature}, ""},
		{"changed after signing", func(f *fixture) []byte {
			b := f.listing(f.manifest("v1", 1, nil), f.targetsKey)
			return []byte(strings.Replace(string(b), `"sequence": 1`, `"sequence": 9`, 1))
		}, []error{ErrRefused, trust.ErrSignature}, ""},
		{"truncated", func(f *fixture) []byte {
			b := f.listing(f.manifest("v1", 1, nil), f.targetsKey)
			return b[:len(b)/2]
		}, []error{ErrRefused, trust.ErrMalformed}, ""},
		{"the same version again", func(f *fixture) []byte { return f.targets }, []error{ErrRefused, trust.ErrRollback}, ""},
		{"expired", func(f *fixture) []byte {
			b, err := trust.Extend(f.targets, day0.Add(-time.Hour))
			if err != nil {
				f.t.Fatal(err)
			}
			return f.sign(b, f.targetsKey)
		}, []error{ErrRefused, trust.ErrExpired}, ""},
		{"manifest not uploaded", func(f *fixture) []byte {
			m := f.manifest("v1", 1, nil)
			d, _ := m.Digest()
			delete(f.blobs, d)
			return f.listing(m, f.targetsKey)
		}, []error{ErrMissingBlob}, "manifest of wine v1"},
		{"graph not uploaded", func(f *fixture) []byte {
			m := f.manifest("v1", 1, nil)
			delete(f.blobs, m.Variants[0].Graph.Digest)
			return f.listing(m, f.targetsKey)
		}, []error{ErrMissingBlob}, "wine.onnx"},
		{"golden vectors not uploaded", func(f *fixture) []byte {
			m := f.manifest("v1", 1, nil)
			delete(f.blobs, m.Golden.Digest)
			return f.listing(m, f.targetsKey)
		}, []error{ErrMissingBlob}, "golden.json"},
		{"file of another size", func(f *fixture) []byte {
			m := f.manifest("v1", 1, func(m *release.Manifest) { m.Variants[0].Graph.Size++ })
			return f.listing(m, f.targetsKey)
		}, []error{ErrRelease}, "wine.onnx"},
		{"graph that does not match the schema", func(f *fixture) []byte {
			m := f.manifest("v1", 1, func(m *release.Manifest) { m.Schema.Inputs[0].Shape[1] = 12 })
			return f.listing(m, f.targetsKey)
		}, []error{ErrRelease, graph.ErrSchema}, "[-1 13] in the graph and [-1 12]"},
		{"graph that is a text", func(f *fixture) []byte {
			m := f.manifest("v1", 1, func(m *release.Manifest) { m.Variants[0].Graph = f.blobs.add("wine.onnx", []byte("hello")) })
			return f.listing(m, f.targetsKey)
		}, []error{ErrRelease, graph.ErrFormat}, "wine.onnx"},
		{"baseline that is none", func(f *fixture) []byte {
			m := f.manifest("v1", 1, func(m *release.Manifest) { m.Baseline = f.blobs.add("baseline.json", []byte("{}")) })
			return f.listing(m, f.targetsKey)
		}, []error{ErrRelease}, "baseline.json"},
		{"golden vectors that are none", func(f *fixture) []byte {
			m := f.manifest("v1", 1, func(m *release.Manifest) { m.Golden = f.blobs.add("golden.json", []byte("{}")) })
			return f.listing(m, f.targetsKey)
		}, []error{ErrRelease, release.ErrInvalid}, "golden.json"},
		{"blob that is not what its digest says", func(f *fixture) []byte {
			m := f.manifest("v1", 1, nil)
			spoiled := slices.Clone(f.blobs[m.Baseline.Digest])
			spoiled[0] = ' '
			f.blobs[m.Baseline.Digest] = spoiled
			return f.listing(m, f.targetsKey)
		}, []error{ErrRelease}, "is not what its digest says"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := installed(t)
			_, err := f.Publish(t.Context(), "ada", tt.targets(f), 1)
			for _, want := range tt.want {
				if !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
			if err != nil && !strings.Contains(err.Error(), tt.mention) {
				t.Errorf("got %v, want it to name %q", err, tt.mention)
			}
			if got := f.Trust().Targets.Version; got != 1 || len(f.Models()) != 0 {
				t.Errorf("targets version %d and %d models after a refusal, want 1 and 0", got, len(f.Models()))
			}
		})
	}
}

func TestPublishNeedsARoot(t *testing.T) {
	f := newFixture(t)
	if _, err := f.Publish(t.Context(), "ada", f.targets, 0); !errors.Is(err, ErrNoRoot) {
		t.Errorf("got %v, want %v", err, ErrNoRoot)
	}
	if _, err := f.TrustMetadata("timestamp"); !errors.Is(err, ErrNotFound) {
		t.Errorf("timestamp: got %v, want %v", err, ErrNotFound)
	}
}

func TestPublishFromAnOldCopy(t *testing.T) {
	f := installed(t)
	mine := f.listing(f.manifest("v1", 1, nil), f.targetsKey)
	extended, err := trust.Extend(mine, day0.Add(year))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Publish(t.Context(), "ada", f.sign(extended, f.targetsKey), 2); !errors.Is(err, ErrStale) {
		t.Errorf("got %v, want %v", err, ErrStale)
	}
}

func TestInstallRootRefuses(t *testing.T) {
	tests := []struct {
		name string
		root func(f *fixture) []byte
		want error
	}{
		{"online keys of another control plane", func(f *fixture) []byte {
			p := f.plan()
			p.Snapshot = f.key().Public()
			root, _, err := trust.Init(p, day0.Add(year))
			if err != nil {
				f.t.Fatal(err)
			}
			return f.sign(root, f.rootKey)
		}, trust.ErrSignature},
		{"unsigned", func(f *fixture) []byte {
			root, _, err := trust.Init(f.plan(), day0.Add(year))
			if err != nil {
				f.t.Fatal(err)
			}
			return root
		}, trust.ErrSignature},
		{"expired", func(f *fixture) []byte { f.now = day0.Add(3 * year); return f.root }, trust.ErrExpired},
		{"targets instead of a root", func(f *fixture) []byte { return f.targets }, trust.ErrMalformed},
		{"empty", func(*fixture) []byte { return nil }, trust.ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			if err := f.InstallRoot(t.Context(), "ada", tt.root(f)); !errors.Is(err, ErrRefused) || !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if f.Trust().Installed {
				t.Error("a root is installed")
			}
		})
	}
	t.Run("a stranger's root over ours", func(t *testing.T) {
		f := installed(t)
		f.rootKey = f.key()
		root, err := trust.NewRoot(f.root, f.plan())
		if err != nil {
			t.Fatal(err)
		}
		if err := f.InstallRoot(t.Context(), "eve", f.sign(root, f.rootKey)); !errors.Is(err, trust.ErrSignature) {
			t.Errorf("got %v, want %v", err, trust.ErrSignature)
		}
	})
}

func TestRestartKeepsEverything(t *testing.T) {
	f := installed(t)
	d := f.release("v1", 1)
	if _, err := f.SetStage(t.Context(), "bob", "wine", "v1", operator.StageChange{Stage: operator.StageStaging, Reason: "looks good"}); err != nil {
		t.Fatal(err)
	}
	before, trustBefore := f.Models(), f.Trust()
	f.start()
	after, trustAfter := f.Models(), f.Trust()
	if len(after) != 1 || after[0].Name != before[0].Name || len(after[0].Versions) != 1 {
		t.Fatalf("got %+v, want %+v", after, before)
	}
	got, want := after[0].Versions[0], before[0].Versions[0]
	if got.Target != want.Target || got.Stage != want.Stage || got.Revision != want.Revision || !got.Published.Equal(want.Published) || got.PublishedBy != "ada" {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got.StageLog[0].Actor != "bob" || got.StageLog[0].Reason != "looks good" {
		t.Errorf("stage log is %+v", got.StageLog)
	}
	if trustAfter.Timestamp.Digest != trustBefore.Timestamp.Digest || trustAfter.OnlineKeys[0] != trustBefore.OnlineKeys[0] {
		t.Errorf("got %+v, want %+v", trustAfter, trustBefore)
	}
	if base, err := f.Baseline(t.Context(), d); err != nil || base.Rows != 100 {
		t.Errorf("baseline: %v, %v", base, err)
	}
}

// brokenBucket fails the nth write.
type brokenBucket struct {
	*kvstore.Memory
	left int
}

var errBroken = errors.New("disk is gone")

func (b *brokenBucket) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	if b.left--; b.left < 0 {
		return 0, errBroken
	}
	return b.Memory.Put(ctx, key, value)
}

func (b *brokenBucket) CompareAndSet(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if b.left--; b.left < 0 {
		return 0, errBroken
	}
	return b.Memory.CompareAndSet(ctx, key, value, revision)
}

// TestCrashWhilePublishing stops at every write. After a restart the version is
// there with everything or not at all, and publishing it again works.
func TestCrashWhilePublishing(t *testing.T) {
	for n := range 8 {
		f := installed(t)
		m := f.manifest("v1", 1, nil)
		next := f.listing(m, f.targetsKey)
		broken := &brokenBucket{Memory: f.bucket, left: n}
		f.cfg.Bucket = broken
		_, err := f.Publish(t.Context(), "ada", next, 1)
		if err == nil {
			if n < 5 {
				t.Fatalf("publishing takes %d writes, want at least 5", n)
			}
			return
		}
		if !errors.Is(err, errBroken) {
			t.Fatalf("after %d writes: %v", n, err)
		}
		f.start()
		version := f.Trust().Targets.Version
		if _, err := f.Version("wine", "v1"); (err == nil) != (version == 2) {
			t.Errorf("after %d writes: targets version %d, version: %v", n, version, err)
		}
		if version == 1 {
			f.mustPublish(next)
		}
		device, err := trust.Open(t.TempDir(), release.DigestOf(f.root))
		if err != nil {
			t.Fatal(err)
		}
		if err := device.Refresh(t.Context(), f, f.now); err != nil {
			t.Errorf("after %d writes: %v", n, err)
		}
	}
	t.Error("publishing never succeeded")
}

func TestStages(t *testing.T) {
	f := installed(t)
	f.release("v1", 1)
	f.release("v2", 2)
	set := func(version string, stage operator.Stage) error {
		_, err := f.SetStage(t.Context(), "bob", "wine", version, operator.StageChange{Stage: stage, Reason: "test"})
		return err
	}
	for _, v := range []string{"v1", "v2"} {
		if err := set(v, operator.StageProduction); err != nil {
			t.Fatal(err)
		}
	}
	m, err := f.Model("wine")
	if err != nil {
		t.Fatal(err)
	}
	if m.Production != "v2" || m.Versions[0].Stage != operator.StageProduction || m.Versions[1].Stage != operator.StageArchived {
		t.Errorf("got %+v", m)
	}
	last := m.Versions[1].StageLog[0]
	if last.From != operator.StageProduction || last.To != operator.StageArchived || last.Reason != "replaced by v2" || last.Actor != "bob" {
		t.Errorf("v1's history ends with %+v", last)
	}
	if want := []string{"wine", "wine", "wine", "wine"}; !slices.Equal(f.changed, want) {
		t.Errorf("told of %v, want %v", f.changed, want)
	}
}

func TestStageRefuses(t *testing.T) {
	f := installed(t)
	f.release("v1", 1)
	v2 := f.release("v2", 2)
	f.release("v3", 3)
	raised, err := trust.RaiseFloor(f.targets, "wine", 2, day0.Add(year))
	if err != nil {
		t.Fatal(err)
	}
	removed, err := trust.RemoveRelease(raised, "wine", v2, day0.Add(year))
	if err != nil {
		t.Fatal(err)
	}
	p := f.mustPublish(f.sign(removed, f.targetsKey))
	if len(p.Withdrawn) != 1 || p.Withdrawn[0].Version != "v2" || len(p.Added) != 0 {
		t.Errorf("published %+v", p)
	}
	tests := []struct {
		name, version string
		change        operator.StageChange
		want          error
	}{
		{"below the floor", "v1", operator.StageChange{Stage: operator.StageProduction, Reason: "x"}, ErrStage},
		{"withdrawn", "v2", operator.StageChange{Stage: operator.StageStaging, Reason: "x"}, ErrStage},
		{"no reason", "v3", operator.StageChange{Stage: operator.StageStaging}, ErrStage},
		{"no stage", "v3", operator.StageChange{Stage: "prod", Reason: "x"}, ErrStage},
		{"stale revision", "v3", operator.StageChange{Stage: operator.StageStaging, Reason: "x", Revision: "1"}, ErrStale},
		{"no version", "v9", operator.StageChange{Stage: operator.StageStaging, Reason: "x"}, ErrNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := f.SetStage(t.Context(), "bob", "wine", tt.version, tt.change); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if ver, err := f.SetStage(t.Context(), "bob", "wine", "v1", operator.StageChange{Stage: operator.StageArchived, Reason: "old"}); err != nil || !ver.BelowFloor {
		t.Errorf("archiving what is below the floor: %+v, %v", ver, err)
	}
}

func TestResign(t *testing.T) {
	f := installed(t)
	d := f.release("v1", 1)
	first := f.Trust()
	step := func(after time.Duration) operator.Trust {
		f.now = day0.Add(after)
		if err := f.Resign(t.Context(), f.now); err != nil {
			t.Fatal(err)
		}
		return f.Trust()
	}
	if got := step(time.Hour); got.Timestamp.Digest != first.Timestamp.Digest {
		t.Error("the timestamp was signed again after an hour")
	}
	second := step(25 * time.Hour)
	if second.Timestamp.Version <= first.Timestamp.Version || second.Snapshot.Digest != first.Snapshot.Digest {
		t.Errorf("after a day: got %+v, want a new timestamp alone", second)
	}
	third := step(16 * 24 * time.Hour)
	if third.Snapshot.Version <= first.Snapshot.Version {
		t.Error("the snapshot was not signed again after half its life")
	}
	device, err := trust.Open(t.TempDir(), release.DigestOf(f.root))
	if err != nil {
		t.Fatal(err)
	}
	if err := device.Refresh(t.Context(), f, f.now); err != nil {
		t.Fatal(err)
	}
	if _, err := device.Release("wine", d); err != nil {
		t.Error(err)
	}
}

// TestRestoredFromBackup goes back to yesterday's bucket. Devices have seen
// newer versions, so the next ones must be above all of them.
func TestRestoredFromBackup(t *testing.T) {
	f := installed(t)
	device, err := trust.Open(t.TempDir(), release.DigestOf(f.root))
	if err != nil {
		t.Fatal(err)
	}
	backup := kvstore.NewMemory()
	entries, err := f.bucket.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := backup.Put(t.Context(), e.Key, e.Value); err != nil {
			t.Fatal(err)
		}
	}
	for day := range 5 {
		f.now = day0.Add(time.Duration(day) * 25 * time.Hour)
		if err := f.Resign(t.Context(), f.now); err != nil {
			t.Fatal(err)
		}
	}
	if err := device.Refresh(t.Context(), f, f.now); err != nil {
		t.Fatal(err)
	}
	f.bucket = backup
	f.start()
	f.now = f.now.Add(time.Hour)
	if err := f.Resign(t.Context(), f.now); err != nil {
		t.Fatal(err)
	}
	if err := device.Refresh(t.Context(), f, f.now); err != nil {
		t.Error(err)
	}
}

func TestOldMetadataIsRemoved(t *testing.T) {
	f := installed(t)
	for range 2 * keepVersions {
		b, err := trust.Extend(f.targets, day0.Add(year))
		if err != nil {
			t.Fatal(err)
		}
		f.now = f.now.Add(time.Minute)
		f.mustPublish(f.sign(b, f.targetsKey))
	}
	entries, err := f.bucket.List(t.Context(), metaPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(entries), 1+3*keepVersions; got != want {
		t.Errorf("%d files are kept, want %d", got, want)
	}
	if _, err := f.TrustMetadata("root.1"); err != nil {
		t.Errorf("root.1: %v", err)
	}
	if _, err := f.TrustMetadata("targets.1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("targets.1: got %v, want %v", err, ErrNotFound)
	}
}

func TestOnlineKeysAreKeptPrivate(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(f.dir, "keys", "snapshot.key")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode is %04o, want 0600", got)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = New(t.Context(), Config{Bucket: f.bucket, Blobs: f.blobs, KeyDir: filepath.Join(f.dir, "keys")})
	if !errors.Is(err, trust.ErrKeyMode) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, trust.ErrKeyMode)
	}
}

func TestTrustTellsWhoSigned(t *testing.T) {
	f := installed(t)
	d := f.release("v1", 1)
	s, err := f.Signature(d)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{f.targetsKey.Public().ID()}; s.Targets != 2 || s.Threshold != 1 || !slices.Equal(s.KeyIDs, want) {
		t.Errorf("got %+v, want targets 2 signed by %v", s, want)
	}
	if digest, err := f.RootDigest(1); err != nil || digest != release.DigestOf(f.root) {
		t.Errorf("root digest is %v, %v", digest, err)
	}
}

func TestTwoRegistriesOneBucket(t *testing.T) {
	f := installed(t)
	other := *f
	other.start()
	f.release("v1", 1)
	m := other.manifest("v1b", 1, nil)
	if _, err := other.Publish(t.Context(), "bob", other.listing(m, other.targetsKey), 1); !errors.Is(err, ErrStale) {
		t.Errorf("got %v, want %v", err, ErrStale)
	}
	f.start() // what the slower one wrote must not be in the way
	if _, err := f.Version("wine", "v1"); err != nil {
		t.Error(err)
	}
	device, err := trust.Open(t.TempDir(), release.DigestOf(f.root))
	if err != nil {
		t.Fatal(err)
	}
	if err := device.Refresh(t.Context(), f, f.now); err != nil {
		t.Error(err)
	}
}
