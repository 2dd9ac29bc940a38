package registry

import (
	"errors"
	"testing"

	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// delegate gives the role of wine to a new key and returns it.
func (f *fixture) delegate() *trust.Key {
	f.t.Helper()
	ci := f.key()
	next, err := trust.Delegate(f.targets, "wine", trust.Holders{Keys: []trust.PublicKey{ci.Public()}, Threshold: 1}, day0.Add(year))
	if err != nil {
		f.t.Fatal(err)
	}
	f.mustPublish(f.sign(next, f.targetsKey))
	return ci
}

// byRole is the next file of the role of wine with the manifest.
func (f *fixture) byRole(m *release.Manifest, keys ...*trust.Key) []byte {
	f.t.Helper()
	role, err := f.TrustMetadata("model-wine.newest")
	if errors.Is(err, ErrNotFound) {
		role, err = trust.NewDelegated("wine", 0)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	next, err := trust.AddRelease(role, m, day0.Add(year))
	if err != nil {
		f.t.Fatal(err)
	}
	return f.sign(next, keys...)
}

func (f *fixture) publishRole(file []byte, previous int64) (Published, error) {
	return f.Publish(f.t.Context(), "ci", file, previous)
}

// TestDelegatedReleaseReachesDevices: CI publishes with its own key, a restart
// changes nothing, and a device accepts the release.
func TestDelegatedReleaseReachesDevices(t *testing.T) {
	f := installed(t)
	f.release("v1", 1)
	ci := f.delegate()
	m := f.manifest("v2", 2, nil)
	p, err := f.publishRole(f.byRole(m, ci), 0)
	if err != nil {
		t.Fatal(err)
	}
	if p.Role != "model-wine" || p.Targets != 1 || len(p.Added) != 1 || p.Added[0].Version != "v2" || len(p.Withdrawn) != 0 {
		t.Errorf("got %+v", p)
	}
	f.start()
	device, err := trust.Open(t.TempDir(), release.DigestOf(f.root))
	if err != nil {
		t.Fatal(err)
	}
	if err := device.Refresh(t.Context(), f, f.now, "wine"); err != nil {
		t.Fatal(err)
	}
	d, err := m.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := device.Release("wine", d); err != nil {
		t.Error(err)
	}
	s, err := f.Signature(d)
	if err != nil || s.Role != "model-wine" || len(s.KeyIDs) != 1 || s.KeyIDs[0] != ci.Public().ID() || s.Threshold != 1 {
		t.Errorf("signature is %+v, %v", s, err)
	}
}

func TestPublishRefusesByRole(t *testing.T) {
	f := installed(t)
	f.release("v1", 1)
	ci := f.delegate()
	if _, err := f.publishRole(f.byRole(f.manifest("v2", 2, nil), ci), 0); err != nil {
		t.Fatal(err)
	}
	absent := f.manifest("v3", 3, func(m *release.Manifest) { m.Baseline.Digest = release.DigestOf([]byte("not uploaded")) })
	tests := []struct {
		name     string
		file     []byte
		previous int64
		want     error
	}{
		{"stranger", f.byRole(f.manifest("v3", 3, nil), f.key()), 1, trust.ErrSignature},
		{"holder of targets", f.byRole(f.manifest("v3", 3, nil), f.targetsKey), 1, trust.ErrSignature},
		{"version name of the targets", f.byRole(f.manifest("v1", 3, nil), ci), 1, ErrRefused},
		{"made from an older file", f.byRole(f.manifest("v3", 3, nil), ci), 0, ErrStale},
		{"files that are not there", f.byRole(absent, ci), 1, ErrMissingBlob},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := f.publishRole(tt.file, tt.previous); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if m, err := f.Model("wine"); err != nil || len(m.Versions) != 2 {
		t.Errorf("after refusals: %+v, %v", m, err)
	}
}

// TestRevokedRoleWithdrawsItsReleases: what the role listed is withdrawn but
// for what the targets take over, and a device with the old snapshot follows.
func TestRevokedRoleWithdrawsItsReleases(t *testing.T) {
	f := installed(t)
	ci := f.delegate()
	for i, version := range []string{"v1", "v2"} {
		if _, err := f.publishRole(f.byRole(f.manifest(version, uint64(i+1), nil), ci), int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	device, err := trust.Open(t.TempDir(), release.DigestOf(f.root))
	if err != nil {
		t.Fatal(err)
	}
	if err := device.Refresh(t.Context(), f, f.now, "wine"); err != nil {
		t.Fatal(err)
	}
	keep := f.current().targets.Releases[:1]
	next, err := trust.Undelegate(f.targets, "wine", keep, day0.Add(year))
	if err != nil {
		t.Fatal(err)
	}
	p := f.mustPublish(f.sign(next, f.targetsKey))
	if len(p.Withdrawn) != 1 || p.Withdrawn[0].Version != "v2" || len(p.Added) != 0 {
		t.Errorf("got %+v", p)
	}
	if err := device.Refresh(t.Context(), f, f.now, "wine"); err != nil {
		t.Errorf("a device with the old snapshot: %v", err)
	}
	if _, err := device.Release("wine", p.Withdrawn[0].Digest); !errors.Is(err, trust.ErrUnknownRelease) {
		t.Errorf("got %v, want %v", err, trust.ErrUnknownRelease)
	}
	if _, err := device.Release("wine", keep[0].Digest); err != nil {
		t.Error(err)
	}
	if _, err := f.publishRole(f.byRole(f.manifest("v3", 3, nil), ci), 2); !errors.Is(err, trust.ErrNotDelegated) {
		t.Errorf("publishing on: got %v, want %v", err, trust.ErrNotDelegated)
	}
}
