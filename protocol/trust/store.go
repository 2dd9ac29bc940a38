package trust

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Store is a device's view of which releases it may run. It is safe for
// concurrent use.
type Store struct {
	dir string
	pin release.Digest

	refreshing sync.Mutex // held by one Refresh at a time

	mu    sync.Mutex // guards everything below
	files trusted
	known known
	marks *marks
	last  uint64    // number of the newest set on disk
	fresh time.Time // until when new releases may be accepted; zero: never refreshed
	clock time.Time // of the last Refresh
}

// trusted are verified metadata files, as fetched. Nil means not there.
type trusted struct {
	roots                        [][]byte // from the pinned one on
	timestamp, snapshot, targets []byte
	delegated                    map[string][]byte // by model; replaced, never changed
}

// known is what verified files state, and how good it is.
type known struct {
	targets   *Targets            // nil before the first
	delegated map[string]*Targets // by model, of those roles whose files are there
	roles     map[string]roleNews // by model, of all delegated roles
}

// roleNews says whether a delegated role's file is the newest.
type roleNews struct {
	err     error     // why it is not; nil when it is, or when there is none yet
	expires time.Time // of the file
}

// Open reads what is left in dir, which is made when it does not exist. pin is
// the SHA-256 of the root.json that the device was enrolled with. Damaged files
// are dropped, not reported: Refresh fetches them again, and the marks that
// remain still refuse what is older.
func Open(dir string, pin release.Digest) (*Store, error) {
	if pin.IsZero() {
		return nil, fmt.Errorf("open trust store: %w: no root digest; enrol the device with a token or with --root FILE", ErrRoot)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open trust store: %w", err)
	}
	s := &Store{dir: dir, pin: pin, marks: &marks{}}
	numbers, err := listSets(dir)
	if err != nil {
		return nil, err
	}
	if len(numbers) > 0 {
		s.last = numbers[0]
		s.load(numbers)
	}
	return s, nil
}

// Release is the signed target of a release that may run here, or the reason
// why it may not. A release that is new to this device needs a Refresh that
// succeeded and has not expired since; it is then remembered as accepted.
func (s *Store) Release(model string, d release.Digest) (Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, news, err := s.find(model, d)
	if err != nil {
		return Target{}, err
	}
	if slices.Contains(s.marks.Accepted, d) {
		return t, nil
	}
	switch {
	case s.fresh.IsZero():
		return Target{}, fmt.Errorf("%w: %s", ErrUnchecked, t.Path())
	case news.err != nil:
		return Target{}, fmt.Errorf("%s: %w", t.Path(), news.err)
	case s.clock.After(s.fresh):
		return Target{}, fmt.Errorf("%w on %v: %s is new to this device", ErrExpired, s.fresh, t.Path())
	case !news.expires.IsZero() && s.clock.After(news.expires):
		return Target{}, fmt.Errorf("%w: role %s on %v: %s is new to this device", ErrExpired, RoleOf(model), news.expires, t.Path())
	}
	next := s.marks.clone()
	next.Accepted = append(next.Accepted, d)
	return t, s.save(s.files, next)
}

// Accepted is like Release for a release that this device has accepted before:
// it needs no fresh metadata. It still refuses what was removed or is below the
// highest floor seen.
func (s *Store) Accepted(model string, d release.Digest) (Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, _, err := s.find(model, d)
	if err != nil {
		return Target{}, err
	}
	if !slices.Contains(s.marks.Accepted, d) {
		return Target{}, fmt.Errorf("%w: %s", ErrUnchecked, t.Path())
	}
	return t, nil
}

// find looks a release up in the newest verified files: in the targets first,
// then in the model's role (TUF client workflow 5.6.7). s.mu is held.
func (s *Store) find(model string, d release.Digest) (t Target, news roleNews, err error) {
	path := TargetPath(model, d)
	if s.known.targets == nil {
		return t, news, fmt.Errorf("%w: %s", ErrUnchecked, path)
	}
	t, ok := s.known.targets.find(model, d)
	if !ok {
		news = s.known.roles[model]
		t, ok = s.known.delegated[model].find(model, d)
	}
	floor := s.floor(model)
	switch {
	case ok && t.Sequence < floor:
		return t, news, fmt.Errorf("%w: %s %s has sequence %d, the floor is %d", ErrBelowFloor, model, t.Version, t.Sequence, floor)
	case ok:
		return t, news, nil
	case news.err != nil: // what it lists now is not known
		return t, news, fmt.Errorf("%s: %w", path, news.err)
	}
	return t, news, fmt.Errorf("%w: %s is not in targets version %d nor in a role of the model", ErrUnknownRelease, path, s.known.targets.Version)
}

// find looks a release up among those that are listed. A nil t lists none.
func (t *Targets) find(model string, d release.Digest) (Target, bool) {
	if t == nil {
		return Target{}, false
	}
	i := slices.IndexFunc(t.Releases, func(r Target) bool { return r.Model == model && r.Digest == d })
	if i < 0 {
		return Target{}, false
	}
	return t.Releases[i], true
}

// Floor is the lowest sequence of the model that may run: the highest floor
// this device has ever verified. Zero means none.
func (s *Store) Floor(model string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.floor(model)
}

func (s *Store) floor(model string) uint64 {
	floor := s.marks.Floors[model]
	if s.known.targets != nil {
		floor = max(floor, s.known.targets.Floors[model])
	}
	return floor
}

// Versions tells the highest metadata versions seen, for status pages.
func (s *Store) Versions() (root, timestamp, snapshot, targets int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks.Root, s.marks.Timestamp, s.marks.Snapshot, s.marks.Targets
}

// save writes a set and then takes it over. s.mu is held.
func (s *Store) save(files trusted, m *marks) error {
	b, err := encodeMarks(m)
	if err != nil {
		return err
	}
	out := map[string][]byte{marksFile: b}
	for _, root := range files.roots {
		h, err := ReadHeader(root)
		if err != nil {
			return err
		}
		out[rootFile(h.Version)] = root
	}
	for name, b := range map[string][]byte{timestampFile: files.timestamp, snapshotFile: files.snapshot, targetsFile: files.targets} {
		if b != nil {
			out[name] = b
		}
	}
	for model, b := range files.delegated {
		out[delegatedFile(model)] = b
	}
	if err := writeSet(s.dir, s.last+1, out); err != nil {
		return err
	}
	s.last++
	s.files, s.marks = files, m
	return nil
}

func rootFile(version int64) string { return fmt.Sprintf("root.%d.json", version) }

func delegatedFile(model string) string { return RoleOf(model) + ".json" }

// load takes what verifies from the sets, newest first. It runs before the
// store is shared.
func (s *Store) load(numbers []uint64) {
	sets := make([]setFolder, len(numbers))
	for i, n := range numbers {
		sets[i] = setFolder(setPath(s.dir, n))
	}
	s.marks = loadMarks(sets)
	tm, roots := loadRoots(sets, s.pin)
	if tm == nil {
		return
	}
	s.files = trusted{
		roots:     roots,
		timestamp: loadVerified(sets, tm, metadata.TIMESTAMP, timestampFile, MaxOnline),
		snapshot:  loadVerified(sets, tm, metadata.SNAPSHOT, snapshotFile, MaxOnline),
		targets:   loadVerified(sets, tm, metadata.TARGETS, targetsFile, MaxTargets),
	}
	s.loadKnown(sets)
	s.marks.raise(s.files)
}

// loadKnown reads the targets that verified, and the files of the roles that
// they delegate to.
func (s *Store) loadKnown(sets []setFolder) {
	top, err := parse[metadata.TargetsType](s.files.targets, MaxTargets)
	if err != nil {
		return
	}
	if s.known.targets, _, err = listTargets(top); err != nil || s.known.targets.Model != "" {
		s.known.targets = nil // this program does not understand the whole
		return
	}
	s.files.delegated, s.known.delegated, s.known.roles = map[string][]byte{}, map[string]*Targets{}, map[string]roleNews{}
	for _, d := range s.known.targets.Delegations {
		s.known.roles[d.Model] = roleNews{err: ErrUnchecked}
		for _, set := range sets {
			b := set.read(delegatedFile(d.Model), MaxDelegated)
			if t, err := verifyDelegated(top, b); err == nil && t.Model == d.Model {
				s.files.delegated[d.Model], s.known.delegated[d.Model] = b, t
				break
			}
		}
	}
}

func loadMarks(sets []setFolder) *marks {
	for _, set := range sets {
		if m, ok := decodeMarks(set.read(marksFile, maxMarks)); ok {
			return m
		}
	}
	return &marks{}
}

// loadRoots finds the pinned root and follows the chain as far as it is whole.
func loadRoots(sets []setFolder, pin release.Digest) (*trustedmetadata.TrustedMetadata, [][]byte) {
	for version := int64(1); version <= maxNewRoots; version++ {
		for _, set := range sets {
			b := set.read(rootFile(version), MaxRoot)
			if b == nil || release.DigestOf(b) != pin {
				continue
			}
			tm, err := startAt(b)
			if err != nil {
				continue
			}
			return tm, extendRoots(sets, tm, [][]byte{b})
		}
	}
	return nil, nil
}

func extendRoots(sets []setFolder, tm *trustedmetadata.TrustedMetadata, roots [][]byte) [][]byte {
	for {
		i := slices.IndexFunc(sets, func(set setFolder) bool {
			b := set.read(rootFile(tm.Root.Signed.Version+1), MaxRoot)
			if updateRoot(tm, b) != nil {
				return false
			}
			roots = append(roots, b)
			return true
		})
		if i < 0 {
			return roots
		}
	}
}

func loadVerified(sets []setFolder, tm *trustedmetadata.TrustedMetadata, role, name string, limit int64) []byte {
	for _, set := range sets {
		if b := set.read(name, limit); b != nil && verifyDoc(tm.Root, role, b) == nil {
			return b
		}
	}
	return nil
}

// startAt trusts a root whose digest was compared with the pin.
func startAt(root []byte) (tm *trustedmetadata.TrustedMetadata, err error) {
	if _, err := parseRoot(root); err != nil {
		return nil, err
	}
	err = guard(func() error {
		tm, err = trustedmetadata.New(root)
		return err
	})
	return tm, wrap(ErrRoot, err)
}

// updateRoot goes one step along the chain of roots.
func updateRoot(tm *trustedmetadata.TrustedMetadata, root []byte) error {
	if _, err := parseRoot(root); err != nil {
		return err
	}
	return wrap(ErrMalformed, guard(func() error {
		_, err := tm.UpdateRoot(root)
		return err
	}))
}
