package score

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

// place is a file that a run reads or writes.
type place struct {
	role string // in an error
	path string
	abs  string      // without links on the way to it, empty for an input
	info os.FileInfo // nil where nothing is there
}

// newPlace finds out what is at the path.
func newPlace(role, path string) place {
	p := place{role: role, path: path, abs: path}
	if abs, err := filepath.Abs(path); err == nil {
		p.abs = abs
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(p.abs)); err == nil {
		p.abs = filepath.Join(dir, filepath.Base(p.abs))
	}
	if info, err := os.Stat(path); err == nil {
		p.info = info
	}
	return p
}

func (p place) same(as place) bool {
	return p.abs == as.abs || p.info != nil && as.info != nil && os.SameFile(p.info, as.info)
}

// source is the input, which is there: what it is decides, not its name.
func (c *Config) source() place {
	p := place{role: "the input"}
	if f, ok := c.Input.Reader.(interface{ Stat() (os.FileInfo, error) }); ok {
		p.info, _ = f.Stat() // an input that cannot tell is like a stream
	}
	return p
}

// written are the files that the run would create or replace.
func (c *Config) written() []place {
	var list []place
	for _, f := range []struct {
		role, path string
		suffixes   []string
	}{
		{"the output", c.Output, []string{"", partSuffix, checkpointSuffix}},
		{"the list of rejects", c.Rejects, []string{"", partSuffix}},
		{"the report", c.Report, []string{"", partSuffix}},
	} {
		if f.path == "" || f.path == "-" {
			continue
		}
		for _, s := range f.suffixes {
			list = append(list, newPlace(f.role, f.path+s))
		}
	}
	return list
}

// checkFiles refuses a run that would overwrite its input, or one of its own
// results with another.
func (c *Config) checkFiles() error {
	seen := []place{c.source()}
	for _, p := range c.written() {
		for _, other := range seen {
			if p.same(other) {
				return fmt.Errorf("%w: %s (%s) would overwrite %s: name another file", ErrFiles, p.role, p.path, other.role)
			}
		}
		seen = append(seen, p)
	}
	return nil
}

// checkTaken refuses to replace what is there already, unless that is asked for.
func (c *Config) checkTaken(cp *checkpoint) error {
	if c.Replace {
		return nil
	}
	for _, path := range []string{c.Output, c.Rejects, c.Report} {
		if path == "" || path == "-" || !exists(path) {
			continue
		}
		if cp != nil && cp.Complete && path != c.Report && !exists(path+partSuffix) {
			continue // the run itself named it, and was killed before the next name
		}
		if c.Resume && cp == nil {
			return fmt.Errorf("%w: %s is there already and nothing is left to resume: no interrupted run left a checkpoint; replace it with --force, or name another file", ErrFiles, path)
		}
		return fmt.Errorf("%w: %s is there already; replace it with --force, or name another file", ErrFiles, path)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// writeFile puts a file at path in one step, for others to read like the results.
func writeFile(path string, data []byte) error {
	p, err := openPart(path, 0)
	if err != nil {
		return err
	}
	_, err = p.Write(data)
	if err = errors.Join(err, p.f.Sync(), p.f.Close()); err != nil {
		return err
	}
	return atomicfile.Rename(path+partSuffix, path)
}
