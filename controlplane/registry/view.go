package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
	"github.com/vedette-edge/vedette/protocol/trust"
)

const (
	headKey       = "head"
	metaPrefix    = "meta"
	versionPrefix = "version"
)

// Roles of metadata.
const (
	roleRoot      = "root"
	roleTargets   = "targets"
	roleSnapshot  = "snapshot"
	roleTimestamp = "timestamp"
)

// head says which metadata files are the newest. Zero means none yet.
type head struct {
	Root    int64 `json:"root"`
	Targets int64 `json:"targets"`
	// Delegated are the newest files of delegated roles, by model. Those of roles
	// that were taken away stay: snapshots go on naming them.
	Delegated map[string]int64 `json:"delegated,omitempty"`

	Snapshot  int64     `json:"snapshot"`
	Timestamp int64     `json:"timestamp"`
	At        time.Time `json:"at"` // of the newest publication
	By        string    `json:"by"`
	// Files are all that is served, by "ROLE.N". A file that is not named here
	// was never committed: its writer crashed or another one was faster.
	Files map[string]release.Digest `json:"files"`
}

// record is what the bucket keeps about a version beside its manifest.
type record struct {
	Target      trust.Target            `json:"target"`
	Published   time.Time               `json:"published"`
	PublishedBy string                  `json:"published_by"`
	Stage       operator.Stage          `json:"stage"`
	StageLog    []operator.StageChanged `json:"stage_log,omitempty"` // newest first
}

// view is the whole state in memory. It is never changed, only replaced.
type view struct {
	head     head
	revision uint64            // of head
	meta     map[string][]byte // by "role.N"
	targets  *trust.Targets    // what devices accept by the signatures, of all roles; nil before the first
	versions map[release.Digest]Version
}

func (v *view) clone() *view {
	c := *v
	c.meta = maps.Clone(v.meta)
	c.versions = maps.Clone(v.versions)
	c.head.Delegated = maps.Clone(v.head.Delegated)
	return &c
}

func metaName(role string, version int64) string { return role + "." + strconv.FormatInt(version, 10) }

// metaKey holds the digest, so that two writers of one version cannot touch
// each other's file.
func metaKey(name string, d release.Digest) string {
	role, version := splitName(name)
	return metaPrefix + "." + kvstore.Key(role, version, d.String())
}

// splitName undoes metaName. Names of delegated roles may hold dots.
func splitName(name string) (role, version string) {
	i := strings.LastIndexByte(name, '.')
	return name[:max(i, 0)], name[i+1:]
}

func versionKey(t trust.Target) string {
	return versionPrefix + "." + kvstore.Key(t.Model, t.Digest.String())
}

// file is the newest metadata of a role, or nil.
func (v *view) file(role string) []byte {
	if model, ok := trust.ModelOf(role); ok {
		return v.meta[metaName(role, v.head.Delegated[model])]
	}
	n := map[string]int64{
		roleRoot: v.head.Root, roleTargets: v.head.Targets,
		roleSnapshot: v.head.Snapshot, roleTimestamp: v.head.Timestamp,
	}[role]
	return v.meta[metaName(role, n)]
}

// load reads the bucket.
func (r *Registry) load(ctx context.Context) error {
	entries, err := r.cfg.Bucket.List(ctx, "")
	if err != nil {
		return err
	}
	v := &view{meta: map[string][]byte{}, versions: map[release.Digest]Version{}}
	files := map[string][]byte{}
	for _, e := range entries {
		kind, _, _ := strings.Cut(e.Key, ".")
		switch kind {
		case headKey:
			v.revision = e.Revision
			err = json.Unmarshal(e.Value, &v.head)
		case metaPrefix:
			files[e.Key] = e.Value
		case versionPrefix:
			err = r.loadVersion(ctx, v, e)
		}
		if err != nil {
			return fmt.Errorf("key %s: %w", e.Key, err)
		}
	}
	for name, d := range v.head.Files {
		b, ok := files[metaKey(name, d)]
		if !ok || release.DigestOf(b) != d {
			return fmt.Errorf("metadata %s is missing or damaged in the bucket: restore it from a backup", name)
		}
		v.meta[name] = b
	}
	if err := v.list(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view = v
	return nil
}

func (r *Registry) loadVersion(ctx context.Context, v *view, e kvstore.Entry) error {
	var rec record
	if err := json.Unmarshal(e.Value, &rec); err != nil {
		return err
	}
	m, err := r.manifest(ctx, rec.Target)
	if err != nil { // listed all the same: what is signed stays visible
		r.cfg.Log.Error("manifest of a version is not readable", "model", rec.Target.Model, "version", rec.Target.Version, "error", err)
	}
	v.versions[rec.Target.Digest] = rec.version(m, e.Revision)
	return nil
}

func (rec record) version(m *release.Manifest, revision uint64) Version {
	return Version{
		Target: rec.Target, Manifest: m, Published: rec.Published, PublishedBy: rec.PublishedBy,
		Stage: rec.Stage, StageLog: rec.StageLog, Revision: strconv.FormatUint(revision, 10),
	}
}

func (v Version) record() record {
	return record{Target: v.Target, Published: v.Published, PublishedBy: v.PublishedBy, Stage: v.Stage, StageLog: v.StageLog}
}

// mark says what the newest targets think of a version.
func (v *view) mark(ver Version) Version {
	ver.StageLog = slices.Clone(ver.StageLog)
	if v.targets == nil {
		ver.Withdrawn = true
		return ver
	}
	ver.Withdrawn = !slices.ContainsFunc(v.targets.Releases, func(t trust.Target) bool { return t.Digest == ver.Digest })
	ver.BelowFloor = ver.Sequence < v.targets.Floors[ver.Model]
	return ver
}

// Models lists the models by name.
func (r *Registry) Models() []Model {
	v := r.current()
	byName := map[string]*Model{}
	for _, ver := range v.versions {
		m := byName[ver.Model]
		if m == nil {
			m = &Model{Name: ver.Model}
			byName[ver.Model] = m
		}
		m.Versions = append(m.Versions, v.mark(ver))
	}
	models := make([]Model, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		models = append(models, byName[name].summed(v))
	}
	return models
}

func (m *Model) summed(v *view) Model {
	slices.SortFunc(m.Versions, func(a, b Version) int {
		if a.Sequence != b.Sequence {
			return map[bool]int{true: -1, false: 1}[a.Sequence > b.Sequence]
		}
		return b.Published.Compare(a.Published)
	})
	if v.targets != nil {
		m.Floor = v.targets.Floors[m.Name]
	}
	for _, ver := range m.Versions {
		if ver.Stage == operator.StageProduction {
			m.Production = ver.Version
		}
		m.Updated = latest(m.Updated, ver.Published)
		if len(ver.StageLog) > 0 {
			m.Updated = latest(m.Updated, ver.StageLog[0].At)
		}
	}
	return *m
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Model is one model, or ErrNotFound.
func (r *Registry) Model(name string) (Model, error) {
	for _, m := range r.Models() {
		if m.Name == name {
			return m, nil
		}
	}
	return Model{}, fmt.Errorf("model %s: %w", name, ErrNotFound)
}

// Version finds a version by its name or by the hex of its digest. Of several
// releases that had the name one after the other, the one that is signed now
// is meant.
func (r *Registry) Version(model, version string) (Version, error) {
	m, err := r.Model(model)
	if err != nil {
		return Version{}, err
	}
	var found *Version
	for i, ver := range m.Versions {
		if ver.Digest.String() == version || ver.Version == version && (found == nil || found.Withdrawn) {
			found = &m.Versions[i]
		}
	}
	if found == nil {
		return Version{}, fmt.Errorf("version %s of model %s: %w", version, model, ErrNotFound)
	}
	return *found, nil
}

// Release finds a version by its digest.
func (r *Registry) Release(d release.Digest) (Version, error) {
	v := r.current()
	ver, ok := v.versions[d]
	if !ok {
		return Version{}, fmt.Errorf("release %s: %w", d.Short(), ErrNotFound)
	}
	return v.mark(ver), nil
}

// Versions lists all versions of all models, by model and highest sequence first.
func (r *Registry) Versions() []Version {
	var list []Version
	for _, m := range r.Models() {
		list = append(list, m.Versions...)
	}
	return list
}

// Baseline reads what the training data of a release looked like.
func (r *Registry) Baseline(ctx context.Context, d release.Digest) (*sketch.Baseline, error) {
	ver, err := r.Release(d)
	if err != nil {
		return nil, err
	}
	if ver.Manifest == nil {
		return nil, fmt.Errorf("manifest of %s: %w", d.Short(), ErrMissingBlob)
	}
	return r.baseline(ctx, ver.Manifest)
}

func (r *Registry) baseline(ctx context.Context, m *release.Manifest) (*sketch.Baseline, error) {
	b, err := r.bytes(ctx, m.Baseline.Name, m.Baseline.Digest, m.Baseline.Size, maxBaseline)
	if err != nil {
		return nil, err
	}
	base, err := sketch.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%w: file %s: %w", ErrRelease, m.Baseline.Name, err)
	}
	return base, nil
}

// maxBaseline bounds what a baseline may take in memory, in bytes.
const maxBaseline = 16 << 20

// manifest reads the manifest of a target.
func (r *Registry) manifest(ctx context.Context, t trust.Target) (*release.Manifest, error) {
	b, err := r.bytes(ctx, "manifest of "+t.Model+" "+t.Version, t.Digest, t.Length, release.MaxManifest)
	if err != nil {
		return nil, err
	}
	m, err := release.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRelease, err)
	}
	if m.Model != t.Model || m.Version != t.Version || m.Sequence != t.Sequence {
		return nil, fmt.Errorf("%w: the manifest is of %s %s (%d), signed as %s %s (%d)", ErrRelease, m.Model, m.Version, m.Sequence, t.Model, t.Version, t.Sequence)
	}
	return m, nil
}

// bytes reads a small blob whole and verifies it.
func (r *Registry) bytes(ctx context.Context, name string, d release.Digest, size, limit int64) ([]byte, error) {
	f, err := r.open(ctx, name, d, size)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%w: file %s has %d bytes, at most %d", ErrRelease, name, size, limit)
	}
	b, err := io.ReadAll(io.LimitReader(f, size+1))
	if err != nil {
		return nil, fmt.Errorf("read file %s: %w", name, err)
	}
	if release.DigestOf(b) != d {
		return nil, fmt.Errorf("%w: file %s is not what its digest says", ErrRelease, name)
	}
	return b, nil
}

// open opens a blob that must have the size signed for it.
func (r *Registry) open(ctx context.Context, name string, d release.Digest, size int64) (io.ReadSeekCloser, error) {
	f, has, err := r.cfg.Blobs.Open(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("%w: %s (%s): %w", ErrMissingBlob, name, d.Short(), err)
	}
	if has != size {
		err := fmt.Errorf("%w: file %s has %d bytes, the manifest says %d", ErrRelease, name, has, size)
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
