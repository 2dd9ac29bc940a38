package api

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// Registry knows models, versions and the signed metadata.
type Registry interface {
	Versions
	Publisher
}

// Versions is the reading half of the registry.
type Versions interface {
	Models() []registry.Model
	Model(name string) (registry.Model, error)
	Version(model, version string) (registry.Version, error)
	Release(d release.Digest) (registry.Version, error)
	Signature(d release.Digest) (operator.Signature, error)
	Baseline(ctx context.Context, d release.Digest) (*sketch.Baseline, error)
}

// Publisher is what publishers change.
type Publisher interface {
	Trust() operator.Trust
	TrustMetadata(name string) ([]byte, error)
	InstallRoot(ctx context.Context, actor string, root []byte) error
	Publish(ctx context.Context, actor string, targets []byte, previous int64) (registry.Published, error)
	SetStage(ctx context.Context, actor, model, version string, c operator.StageChange) (registry.Version, error)
}

// Blobs takes uploads and gives them back.
type Blobs interface {
	Status(d release.Digest) (artifact.Upload, error)
	Write(ctx context.Context, d release.Digest, size, offset int64, r io.Reader) (artifact.Upload, error)
	Open(ctx context.Context, d release.Digest) (io.ReadSeekCloser, int64, error)
}

// registryError gives an answer of the registry its code.
func registryError(err error) error {
	var code operator.Code
	switch {
	case err == nil:
		return nil
	case errors.Is(err, registry.ErrNotFound):
		code = operator.NotFound
	case errors.Is(err, registry.ErrNoRoot):
		return operator.Errorf(operator.NoRoot, "%w", err).WithHint(`run "vedette key init" once`)
	case errors.Is(err, registry.ErrStale), errors.Is(err, trust.ErrRollback):
		code = operator.Stale // an older version is one that was made from an older one
	case errors.Is(err, registry.ErrMissingBlob):
		return operator.Errorf(operator.BlobMissing, "%w", err).WithHint("upload all files of the release first")
	case errors.Is(err, registry.ErrRefused):
		code = operator.TrustRefused
	case errors.Is(err, registry.ErrRelease), errors.Is(err, registry.ErrStage):
		code = operator.Invalid
	default:
		return err
	}
	return operator.Errorf(code, "%w", err)
}

// sequences are those of a model's releases. An unknown model is an error.
func (s *Service) sequences(model string) (map[release.Digest]uint64, error) {
	m, err := s.d.Registry.Model(model)
	if err != nil {
		return nil, registryError(err)
	}
	order := map[release.Digest]uint64{}
	for _, v := range m.Versions {
		order[v.Digest] = v.Sequence
	}
	return order, nil
}

// Models lists the registry.
func (s *Service) Models(context.Context) ([]operator.Model, error) { return s.models(), nil }

func (s *Service) models() []operator.Model {
	running, open := s.running(), s.openAlarms()
	out := []operator.Model{}
	for _, m := range s.d.Registry.Models() {
		out = append(out, model(&m, running, open[m.Name]))
	}
	return out
}

func model(m *registry.Model, running map[release.Digest]*operator.Running, alarms int) operator.Model {
	out := operator.Model{
		Name: m.Name, Versions: len(m.Versions), Production: m.Production, Floor: m.Floor, Alarms: alarms, Updated: m.Updated,
	}
	for _, v := range m.Versions {
		out.Devices += countsOf(running, v.Digest).Active
	}
	if i := slices.IndexFunc(m.Versions, func(v registry.Version) bool { return !v.Withdrawn }); i >= 0 {
		latest := versionView(&m.Versions[i], running)
		out.Latest = &latest
	}
	return out
}

// countsOf are a release's counts without the list of its devices.
func countsOf(running map[release.Digest]*operator.Running, d release.Digest) operator.Running {
	r := running[d]
	if r == nil {
		return operator.Running{}
	}
	c := *r
	c.Devices = nil
	return c
}

func versionView(v *registry.Version, running map[release.Digest]*operator.Running) operator.Version {
	out := operator.Version{
		Model: v.Model, Version: v.Version, Release: v.Digest, Sequence: v.Sequence, Stage: v.Stage, Revision: v.Revision,
		Published: v.Published, BelowFloor: v.BelowFloor, Withdrawn: v.Withdrawn, Running: countsOf(running, v.Digest),
	}
	if m := v.Manifest; m != nil {
		out.Size, out.Created, out.Author = m.Size(), m.Lineage.Created, m.Lineage.Author
	}
	return out
}

// Model is one model with its versions.
func (s *Service) Model(_ context.Context, name string) (*operator.ModelDetail, error) {
	m, err := s.d.Registry.Model(name)
	if err != nil {
		return nil, registryError(err)
	}
	running := s.running()
	out := &operator.ModelDetail{Model: model(&m, running, s.openAlarms()[name]), List: []operator.Version{}}
	for _, v := range m.Versions {
		out.List = append(out.List, versionView(&v, running))
	}
	return out, nil
}

// Version is everything about one version.
func (s *Service) Version(ctx context.Context, model, name string) (*operator.VersionDetail, error) {
	v, err := s.d.Registry.Version(model, name)
	if err != nil {
		return nil, registryError(err)
	}
	running := s.running()
	out := &operator.VersionDetail{Version: versionView(&v, running), Manifest: v.Manifest, StageLog: v.StageLog}
	if r := running[v.Digest]; r != nil {
		out.Running.Devices = r.Devices
	}
	if out.Signature, err = s.d.Registry.Signature(v.Digest); err != nil && !errors.Is(err, registry.ErrNotFound) {
		return nil, registryError(err)
	}
	out.Baseline = s.baseline(ctx, v.Digest)
	return out, nil
}

// baseline summarises a release's baseline. One that cannot be read is left
// out: the version is still worth showing.
func (s *Service) baseline(ctx context.Context, d release.Digest) operator.BaselineInfo {
	info := operator.BaselineInfo{Streams: []string{}}
	b, err := s.d.Registry.Baseline(ctx, d)
	if err != nil {
		s.d.Log.Warn("baseline not read", "release", d.String(), "error", err)
		return info
	}
	info.Rows = b.Rows
	for i := range b.Streams {
		info.Streams = append(info.Streams, b.Streams[i].Name)
	}
	return info
}

// SetStage moves a version to a stage.
func (s *Service) SetStage(ctx context.Context, model, name string, c operator.StageChange) (*operator.Version, error) {
	p, err := commander(ctx, operator.Publisher, c.Reason)
	if err != nil {
		return nil, err
	}
	if err := s.mayProduce(ctx, model, name, c.Stage); err != nil {
		return nil, err
	}
	v, err := s.d.Registry.SetStage(ctx, p.Name, model, name, c)
	if err != nil {
		return nil, registryError(err)
	}
	out := versionView(&v, s.running())
	s.Changed(operator.EventModel, model)
	s.d.Validation.Settle(ctx, model)
	return &out, s.note(ctx, p.Name, "model.stage", map[string]any{
		"model": model, "version": out.Version, "release": out.Release, "stage": c.Stage, "reason": c.Reason,
	})
}

// Trust is the state of the TUF repository.
func (s *Service) Trust(context.Context) (*operator.Trust, error) {
	t := s.d.Registry.Trust()
	return &t, nil
}

// TrustMetadata is one signed file, byte for byte.
func (s *Service) TrustMetadata(_ context.Context, name string) ([]byte, error) {
	b, err := s.d.Registry.TrustMetadata(name)
	return b, registryError(err)
}

// InstallRoot takes the first root of trust or the next of its chain.
func (s *Service) InstallRoot(ctx context.Context, u operator.RootUpload) (*operator.Trust, error) {
	p, err := caller(ctx, operator.Admin)
	if err != nil {
		return nil, err
	}
	if err := s.d.Registry.InstallRoot(ctx, p.Name, u.Root); err != nil {
		return nil, registryError(err)
	}
	t := s.d.Registry.Trust()
	return &t, s.note(ctx, p.Name, "trust.root", t.Root)
}

// Publish takes signed targets.
func (s *Service) Publish(ctx context.Context, u operator.TargetsUpload) (*operator.Published, error) {
	p, err := caller(ctx, operator.Publisher)
	if err != nil {
		return nil, err
	}
	if err := operator.CheckText("reason", u.Reason); err != nil {
		return nil, err
	}
	done, err := s.d.Registry.Publish(ctx, p.Name, u.Targets, u.Previous)
	if err != nil {
		return nil, registryError(err)
	}
	out := &operator.Published{Role: done.Role, Targets: done.Targets, Added: []operator.ReleaseRef{}}
	for _, t := range done.Added {
		out.Added = append(out.Added, operator.ReleaseRef{Model: t.Model, Version: t.Version, Release: t.Digest})
		s.Changed(operator.EventModel, t.Model)
	}
	for _, t := range done.Withdrawn {
		out.Withdrawn = append(out.Withdrawn, operator.ReleaseRef{Model: t.Model, Version: t.Version, Release: t.Digest})
		s.Changed(operator.EventModel, t.Model)
	}
	return out, s.note(ctx, p.Name, "trust.targets", struct {
		*operator.Published

		Reason string `json:"reason,omitempty"`
	}{out, u.Reason})
}

// BlobStatus says how far an upload is.
func (s *Service) BlobStatus(ctx context.Context, d release.Digest) (*operator.Upload, error) {
	if _, err := caller(ctx, operator.Publisher); err != nil {
		return nil, err
	}
	up, err := s.d.Blobs.Status(d)
	if err != nil {
		return nil, blobError(err, up)
	}
	return &operator.Upload{Digest: d, Offset: up.Offset, Complete: up.Complete}, nil
}

// UploadChunk appends to a blob.
func (s *Service) UploadChunk(ctx context.Context, d release.Digest, size, offset int64, chunk io.Reader) (*operator.Upload, error) {
	if _, err := caller(ctx, operator.Publisher); err != nil {
		return nil, err
	}
	up, err := s.d.Blobs.Write(ctx, d, size, offset, chunk)
	if err != nil {
		return nil, blobError(err, up)
	}
	return &operator.Upload{Digest: d, Offset: up.Offset, Complete: up.Complete}, nil
}

func blobError(err error, up artifact.Upload) error {
	switch {
	case errors.Is(err, artifact.ErrOffset):
		return operator.Errorf(operator.OffsetMismatch, "the upload goes on at byte %d", up.Offset)
	case errors.Is(err, artifact.ErrDigest):
		return operator.Errorf(operator.DigestMismatch, "%w", err).WithHint("was the file changed during the upload? Run it again")
	case errors.Is(err, artifact.ErrTooLarge):
		return operator.Errorf(operator.TooLarge, "%w", err)
	case errors.Is(err, artifact.ErrFull):
		return operator.Errorf(operator.StorageFull, "%w", err).WithHint("free space on the server or raise its quota, then run it again: it continues where it stopped")
	case errors.Is(err, artifact.ErrBusy):
		return operator.Errorf(operator.Unavailable, "%w", err).WithHint("wait for it to end, or for the server to notice a broken connection")
	default:
		return err
	}
}
