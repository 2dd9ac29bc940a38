package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/graph"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// Published is what a targets file changed.
type Published struct {
	Role      string // whose file it is: "targets", or a delegated role
	Targets   int64  // version of it now
	Added     []trust.Target
	Withdrawn []trust.Target
}

// InstallRoot takes the first root of trust or the next one of its chain. The
// root must give the online roles to this control plane's keys: otherwise it
// could not publish anything.
func (r *Registry) InstallRoot(ctx context.Context, actor string, root []byte) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	v, now := r.current(), r.cfg.Now()
	parsed, err := trust.CheckRoot(v.file(roleRoot), root, now)
	if err != nil {
		return fmt.Errorf("install root: %w: %w", ErrRefused, err)
	}
	if err := r.checkOnline(root); err != nil {
		return fmt.Errorf("install root: %w: %w", ErrRefused, err)
	}
	next := v.clone()
	next.head.Root = parsed.Version
	next.meta[metaName(roleRoot, parsed.Version)] = root
	if targets := v.file(roleTargets); targets != nil {
		if s, err := trust.SignersOf(root, targets); err == nil && !s.Enough() {
			r.cfg.Log.Warn("targets are not signed by the new root's keys, devices refuse them until they are published again", "root", parsed.Version)
		}
		if err := r.sign(next, now); err != nil {
			return fmt.Errorf("install root: %w", err)
		}
	}
	if err := r.commit(ctx, v, next); err != nil {
		return fmt.Errorf("install root: %w", err)
	}
	r.cfg.Log.Info("root of trust installed", "version", parsed.Version, "actor", actor)
	return nil
}

func (r *Registry) checkOnline(root []byte) error {
	return errors.Join(
		trust.CheckOnline(root, roleSnapshot, r.snapshot.Public()),
		trust.CheckOnline(root, roleTimestamp, r.timestamp.Public()),
	)
}

// Publish makes a signed file of the targets or of a delegated role the newest.
// previous is the version of the file it was made from, 0 for the first. Every release that it newly
// lists must be here with all its files and hold together; nothing is taken
// otherwise.
func (r *Registry) Publish(ctx context.Context, actor string, targets []byte, previous int64) (Published, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	p, err := r.publish(ctx, actor, targets, previous)
	if err != nil {
		return Published{}, fmt.Errorf("publish targets: %w", err)
	}
	if err := r.record(ctx); err != nil {
		return p, fmt.Errorf("record versions: %w", err)
	}
	models := make([]string, 0, len(p.Added)+len(p.Withdrawn))
	for _, t := range slices.Concat(p.Added, p.Withdrawn) {
		models = append(models, t.Model)
	}
	slices.Sort(models)
	r.cfg.Log.Info("targets published", "role", p.Role, "version", p.Targets, "added", len(p.Added), "withdrawn", len(p.Withdrawn), "actor", actor)
	r.cfg.Changed(slices.Compact(models)...)
	return p, nil
}

func (r *Registry) publish(ctx context.Context, actor string, file []byte, previous int64) (Published, error) {
	v, now := r.current(), r.cfg.Now()
	root := v.file(roleRoot)
	if root == nil {
		return Published{}, ErrNoRoot
	}
	next := v.clone()
	role, err := next.take(file, previous, now)
	if err != nil {
		return Published{}, err
	}
	if err := r.checkOnline(root); err != nil {
		return Published{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	h, err := trust.ReadHeader(file)
	if err != nil {
		return Published{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	p := Published{Role: role, Targets: h.Version, Added: difference(next.targets, v.targets), Withdrawn: difference(v.targets, next.targets)}
	for _, t := range p.Added {
		if err := r.check(ctx, t); err != nil {
			return Published{}, fmt.Errorf("%s %s: %w", t.Model, t.Version, err)
		}
	}
	next.head.At, next.head.By = now.UTC(), actor
	if err := r.sign(next, now); err != nil {
		return Published{}, err
	}
	return p, r.commit(ctx, v, next)
}

// difference lists the releases of a that b does not have.
func difference(a, b *trust.Targets) (only []trust.Target) {
	if a == nil {
		return nil
	}
	for _, t := range a.Releases {
		if b == nil || !slices.Contains(b.Releases, t) {
			only = append(only, t)
		}
	}
	return only
}

// check holds a release's files against its manifest and each other.
func (r *Registry) check(ctx context.Context, t trust.Target) error {
	m, err := r.manifest(ctx, t)
	if err != nil {
		return err
	}
	for _, f := range m.Files() {
		content, err := r.open(ctx, f.Name, f.Digest, f.Size)
		if err != nil {
			return err
		}
		if err := content.Close(); err != nil {
			return fmt.Errorf("close file %s: %w", f.Name, err)
		}
	}
	for _, variant := range m.Variants {
		if err := r.checkGraph(ctx, variant.Graph, &m.Schema); err != nil {
			return fmt.Errorf("%w: variant %s: %w", ErrRelease, variant.Name, err)
		}
	}
	return errors.Join(r.checkBaseline(ctx, m), r.checkGolden(ctx, m))
}

func (r *Registry) checkGraph(ctx context.Context, f release.File, s *release.Schema) error {
	content, err := r.open(ctx, f.Name, f.Digest, f.Size)
	if err != nil {
		return err
	}
	defer content.Close()
	g, err := graph.Read(&seeker{content}, f.Size)
	if err != nil {
		return fmt.Errorf("file %s: %w", f.Name, err)
	}
	return graph.Check(g, s)
}

// seeker reads anywhere in what can only seek. It has one user at a time.
type seeker struct{ io.ReadSeeker }

func (s *seeker) ReadAt(b []byte, off int64) (int, error) {
	if _, err := s.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(s, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (r *Registry) checkBaseline(ctx context.Context, m *release.Manifest) error {
	base, err := r.baseline(ctx, m)
	if err != nil {
		return err
	}
	if err := base.Fits(&m.Schema); err != nil {
		return fmt.Errorf("%w: file %s: %w", ErrRelease, m.Baseline.Name, err)
	}
	return nil
}

func (r *Registry) checkGolden(ctx context.Context, m *release.Manifest) error {
	content, err := r.open(ctx, m.Golden.Name, m.Golden.Digest, m.Golden.Size)
	if err != nil {
		return err
	}
	defer content.Close()
	g, err := release.DecodeGolden(content)
	if err == nil {
		err = g.Check(&m.Schema)
	}
	if err != nil {
		return fmt.Errorf("%w: file %s: %w", ErrRelease, m.Golden.Name, err)
	}
	return nil
}

// Resign signs the online roles again when one of them is close to its end:
// the timestamp after a seventh of its life, so that a server may be down for
// the other six, the snapshot after half.
func (r *Registry) Resign(ctx context.Context, now time.Time) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	v := r.current()
	timestamp, snapshot := v.file(roleTimestamp), v.file(roleSnapshot)
	if timestamp == nil || snapshot == nil {
		return nil
	}
	ts, err := trust.ReadHeader(timestamp)
	if err != nil {
		return fmt.Errorf("sign again: %w", err)
	}
	snap, err := trust.ReadHeader(snapshot)
	if err != nil {
		return fmt.Errorf("sign again: %w", err)
	}
	if ts.Expires.Sub(now) > r.cfg.TimestampLifetime*6/7 && snap.Expires.Sub(now) > r.cfg.SnapshotLifetime/2 {
		return nil
	}
	next := v.clone()
	if snap.Expires.Sub(now) > r.cfg.SnapshotLifetime/2 {
		err = r.signTimestamp(next, now)
	} else {
		err = r.sign(next, now)
	}
	if err != nil {
		return fmt.Errorf("sign again: %w", err)
	}
	return r.commit(ctx, v, next)
}

// sign makes the next snapshot and timestamp of v.
func (r *Registry) sign(v *view, now time.Time) error {
	version := nextVersion(v.head.Snapshot, now)
	b, err := trust.SignSnapshot(r.snapshot, version, v.named(), now.Add(r.cfg.SnapshotLifetime))
	if err != nil {
		return err
	}
	v.head.Snapshot = version
	v.meta[metaName(roleSnapshot, version)] = b
	return r.signTimestamp(v, now)
}

func (r *Registry) signTimestamp(v *view, now time.Time) error {
	version := nextVersion(v.head.Timestamp, now)
	b, err := trust.SignTimestamp(r.timestamp, version, v.file(roleSnapshot), now.Add(r.cfg.TimestampLifetime))
	if err != nil {
		return err
	}
	v.head.Timestamp = version
	v.meta[metaName(roleTimestamp, version)] = b
	return nil
}

// nextVersion follows the clock where it can. A server that was restored from
// a backup would otherwise count through versions that devices have seen
// already, and be refused as a rollback until it catches up.
func nextVersion(last int64, now time.Time) int64 { return max(last+1, now.Unix()) }

// commit writes the files of next that are not in old, then head: the moment
// at which all of it counts. Afterwards it removes files that are too old to be
// asked for.
func (r *Registry) commit(ctx context.Context, old, next *view) error {
	outdated := next.outdated()
	for _, name := range outdated {
		delete(next.meta, name)
	}
	next.head.Files = map[string]release.Digest{}
	for name, b := range next.meta {
		next.head.Files[name] = release.DigestOf(b)
		if _, ok := old.meta[name]; ok {
			continue
		}
		if _, err := r.cfg.Bucket.Put(ctx, metaKey(name, next.head.Files[name]), b); err != nil {
			return fmt.Errorf("store %s: %w", name, err)
		}
	}
	b, err := json.Marshal(next.head)
	if err != nil {
		return fmt.Errorf("encode head: %w", err)
	}
	next.revision, err = r.cfg.Bucket.CompareAndSet(ctx, headKey, b, old.revision)
	if errors.Is(err, kvstore.ErrConflict) { // another control plane published: see what
		return errors.Join(fmt.Errorf("%w: %w", ErrStale, err), r.load(ctx))
	}
	if err != nil {
		return fmt.Errorf("store head: %w", err)
	}
	for _, name := range outdated {
		if err := r.cfg.Bucket.Delete(ctx, metaKey(name, release.DigestOf(old.meta[name]))); err != nil {
			r.cfg.Log.Warn("old metadata not removed", "name", name, "error", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view = next
	return nil
}

// outdated names the files that nobody asks for any more. All roots stay: a new
// device walks the whole chain.
func (v *view) outdated() (names []string) {
	byRole := map[string][]int64{}
	for name := range v.meta {
		role, digits := splitName(name)
		if n, err := strconv.ParseInt(digits, 10, 64); err == nil && role != roleRoot {
			byRole[role] = append(byRole[role], n)
		}
	}
	for role, versions := range byRole {
		slices.Sort(versions)
		for _, n := range versions[:max(0, len(versions)-keepVersions)] {
			names = append(names, metaName(role, n))
		}
	}
	return names
}

// reconcile records versions that were published just before a crash.
func (r *Registry) reconcile(ctx context.Context) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	return r.record(ctx)
}

// record writes down the versions that are signed and not recorded yet.
func (r *Registry) record(ctx context.Context) error {
	v := r.current()
	if v.targets == nil {
		return nil
	}
	next := v.clone()
	for _, t := range v.targets.Releases {
		if _, ok := v.versions[t.Digest]; ok {
			continue
		}
		m, err := r.manifest(ctx, t)
		if err != nil { // it was there when it was published
			r.cfg.Log.Error("manifest of a version is not readable", "model", t.Model, "version", t.Version, "error", err)
		}
		rec := record{Target: t, Published: v.head.At, PublishedBy: v.head.By, Stage: operator.StageNone}
		revision, err := r.put(ctx, rec, 0)
		if err != nil {
			return err
		}
		next.versions[t.Digest] = rec.version(m, revision)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view = next
	return nil
}

func (r *Registry) put(ctx context.Context, rec record, revision uint64) (uint64, error) {
	b, err := json.Marshal(rec)
	if err != nil {
		return 0, fmt.Errorf("encode version: %w", err)
	}
	next, err := r.cfg.Bucket.CompareAndSet(ctx, versionKey(rec.Target), b, revision)
	if errors.Is(err, kvstore.ErrConflict) {
		return 0, fmt.Errorf("%w: %w", ErrStale, err)
	}
	return next, err
}
