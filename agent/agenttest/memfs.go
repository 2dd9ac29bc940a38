// Package agenttest holds what tests of the device side stand in for: a file
// system whose power can be cut at any operation, a runtime that follows a
// script, and a source of releases in memory.
package agenttest

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vedette-edge/vedette/agent/slots"
)

// MemFS is a file system in memory that keeps apart what was synced and what
// was not. It is strict: a synced file whose folder was not synced may be gone,
// and a renamed folder may have its old name again.
type MemFS struct {
	mu   sync.Mutex // guards all below and all nodes
	root *node
	ops  int // operations so far
	cut  int // operation at which the power goes, 0 for never
	off  bool
	gone chan struct{} // closed when the power goes

	room  int // bytes that the disk holds, 0 for no end
	fault func(op, name string) error
}

var _ slots.FS = (*MemFS)(nil)

// node is a file or a folder; a hard link is a second entry for one node.
type node struct {
	dir     bool
	data    []byte           // file: as the process sees it
	durable []byte           // file: as last synced
	entries map[string]*node // folder: as the process sees it
	synced  map[string]*node // folder: as last synced
	pending []change         // folder: since then, in order
}

// change is one entry set, or removed when to is nil.
type change struct {
	name string
	to   *node
	from string // rename: the entry that went away in the same instant
}

func newDir() *node {
	return &node{dir: true, entries: map[string]*node{}, synced: map[string]*node{}}
}

// NewMemFS is an empty file system.
func NewMemFS() *MemFS { return &MemFS{root: newDir(), gone: make(chan struct{})} }

// Clone is another disk with the same content, all of it synced.
func (m *MemFS) Clone() *MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &MemFS{root: m.root.clone(map[*node]*node{}), gone: make(chan struct{})}
}

func (n *node) clone(seen map[*node]*node) *node {
	if c := seen[n]; c != nil {
		return c
	}
	c := &node{dir: n.dir, data: n.data, durable: n.data}
	seen[n] = c
	if n.dir {
		c.entries = map[string]*node{}
		for name, e := range n.entries {
			c.entries[name] = e.clone(seen)
		}
		c.synced = maps.Clone(c.entries)
	}
	return c
}

func fail(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

func (m *MemFS) find(name string) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, fs.ErrInvalid
	}
	n := m.root
	if name == "." {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if n = n.entries[part]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

// parent finds the folder of name and its last element.
func (m *MemFS) parent(name string) (*node, string, error) {
	dir, err := m.find(path.Dir(name))
	if err == nil && !dir.dir {
		err = fs.ErrInvalid
	}
	return dir, path.Base(name), err
}

func (n *node) change(c change) {
	c.apply(n.entries)
	n.pending = append(n.pending, c)
}

// Create makes or empties a file.
func (m *MemFS) Create(name string) (slots.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, err := m.begin("create", name)
	if err != nil {
		return nil, fail("create", name, err)
	}
	dir, base, err := m.parent(name)
	if err != nil {
		return nil, fail("create", name, err)
	}
	n := dir.entries[base]
	if n == nil {
		n = &node{}
		dir.change(change{name: base, to: n})
	}
	n.data = nil
	if last {
		return nil, fail("create", name, ErrPowerCut)
	}
	return &memFile{fs: m, node: n, name: name}, nil
}

// Mkdir makes a folder, unless there is one.
func (m *MemFS) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find(name); err == nil && !m.off {
		return nil // nothing to do, also on a disk that takes nothing
	}
	last, err := m.begin("mkdir", name)
	if err != nil {
		return fail("mkdir", name, err)
	}
	dir, base, err := m.parent(name)
	if err != nil {
		return fail("mkdir", name, err)
	}
	dir.change(change{name: base, to: newDir()})
	return done(last)
}

// Link gives a file a second name.
func (m *MemFS) Link(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, err := m.begin("link", newname)
	if err != nil {
		return fail("link", newname, err)
	}
	from, err := m.find(oldname)
	if err != nil {
		return fail("link", oldname, err)
	}
	dir, base, err := m.parent(newname)
	if err != nil {
		return fail("link", newname, err)
	}
	if dir.entries[base] != nil {
		return fail("link", newname, fs.ErrExist)
	}
	dir.change(change{name: base, to: from})
	return done(last)
}

// Rename moves an entry within its folder, replacing a file or an empty folder.
func (m *MemFS) Rename(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, err := m.begin("rename", newname)
	if err != nil {
		return fail("rename", oldname, err)
	}
	if path.Dir(oldname) != path.Dir(newname) {
		return fail("rename", oldname, errors.ErrUnsupported)
	}
	dir, base, err := m.parent(oldname)
	if err != nil {
		return fail("rename", oldname, err)
	}
	n := dir.entries[base]
	if n == nil {
		return fail("rename", oldname, fs.ErrNotExist)
	}
	if at := dir.entries[path.Base(newname)]; at != nil && at.dir && len(at.entries) > 0 {
		return fail("rename", newname, fs.ErrExist)
	}
	dir.change(change{name: path.Base(newname), to: n, from: base})
	return done(last)
}

// RemoveAll removes an entry with all below it, each as a change of its own.
func (m *MemFS) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, err := m.begin("remove", name)
	if err != nil {
		return fail("remove", name, err)
	}
	dir, base, err := m.parent(name)
	if err != nil || dir.entries[base] == nil {
		return done(last)
	}
	dir.entries[base].empty()
	dir.change(change{name: base})
	return done(last)
}

func (n *node) empty() {
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		n.entries[name].empty()
		n.change(change{name: name})
	}
}

// Sync makes a file's bytes or a folder's entries durable.
func (m *MemFS) Sync(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return fail("sync", name, err)
	}
	return m.sync(n, name)
}

func (m *MemFS) sync(n *node, name string) error {
	if n.clean() && !m.off {
		return nil // there is nothing to write, also on a disk that takes nothing
	}
	last, err := m.begin("sync", name)
	if err != nil {
		return fail("sync", name, err)
	}
	if last {
		return fail("sync", name, ErrPowerCut)
	}
	if n.dir {
		n.synced, n.pending = maps.Clone(n.entries), nil
	} else {
		n.durable = slices.Clone(n.data)
	}
	return nil
}

// clean says whether all of it was synced.
func (n *node) clean() bool {
	return len(n.pending) == 0 && slices.Equal(n.data, n.durable)
}

// memFile is a file open for writing.
type memFile struct {
	fs   *MemFS
	node *node
	name string
}

func (f *memFile) Write(p []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	last, err := f.fs.begin("write", f.name)
	n := f.fs.free(len(p))
	switch {
	case f.fs.off && !last:
		return 0, fail("write", f.name, ErrPowerCut)
	case err != nil:
		n = min(n, len(p)/2)
	case n < len(p):
		err = syscall.ENOSPC
	case last:
		err = ErrPowerCut
	}
	f.node.data = append(slices.Clip(f.node.data), p[:n]...)
	if err != nil {
		return n, fail("write", f.name, err)
	}
	return n, nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.fs.sync(f.node, f.name)
}

func (f *memFile) Close() error { return nil }

// Open opens a file or folder for reading. Reading fails too once the power is
// off, but it is not an operation at which it can go.
func (m *MemFS) Open(name string) (fs.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return nil, fail("open", name, ErrPowerCut)
	}
	n, err := m.find(name)
	if err != nil {
		return nil, fail("open", name, err)
	}
	r := &reading{info: info{name: path.Base(name), size: int64(len(n.data)), dir: n.dir}, rest: n.data} // never changed in place
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		r.entries = append(r.entries, fs.FileInfoToDirEntry(info{name: name, dir: n.entries[name].dir}))
	}
	return r, nil
}

// Corrupt changes one bit of a file's content, as a failing card does.
func (m *MemFS) Corrupt(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil || n.dir || len(n.data) == 0 {
		return fail("corrupt", name, errors.Join(err, fs.ErrInvalid))
	}
	n.data = slices.Clone(n.data)
	n.data[len(n.data)/2] ^= 1
	n.durable = n.data
	return nil
}

// reading is a file or folder as it was when opened.
type reading struct {
	info    info
	rest    []byte
	entries []fs.DirEntry
}

var _ fs.ReadDirFile = (*reading)(nil)

func (r *reading) Stat() (fs.FileInfo, error) { return r.info, nil }
func (r *reading) Close() error               { return nil }

func (r *reading) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *reading) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 {
		return nil, errors.ErrUnsupported
	}
	return r.entries, nil
}

type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.dir }
func (i info) Sys() any           { return nil }

func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
