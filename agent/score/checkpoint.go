package score

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// checkpointFormat is the version of the checkpoint file. History:
//
//	1  2026-11-23  first
//	2  2026-11-23  state of the format, rejects, counts, completion
const checkpointFormat = 2

// maxCheckpoint bounds a checkpoint file in bytes. The largest part is what
// Parquet knows of its row groups, some kilobytes each.
const maxCheckpoint = 256 << 20

// checkpoint says up to where the unfinished output holds the input, exactly.
// It is written after the output is synced: whatever the output has beyond it
// is cut off before going on.
type checkpoint struct {
	Format  int      `json:"format"`
	Job     string   `json:"job"` // digest of everything that decides the result
	Input   position `json:"input"`
	Output  int64    `json:"output"`           // bytes
	Rejects int64    `json:"rejects"`          // bytes
	State   []byte   `json:"state,omitempty"`  // of the output's format
	Counts  []byte   `json:"counts,omitempty"` // protocol.Window with what was compared so far
	Summary Summary  `json:"summary"`
	// Replace says that the run may replace files that were there before.
	Replace bool `json:"replace,omitempty"`
	// Complete says that the files lack nothing but their names.
	Complete bool `json:"complete,omitempty"`
}

// checkpointSuffix marks the checkpoint of an output.
const checkpointSuffix = ".checkpoint"

func checkpointPath(cfg *Config) string { return cfg.Output + checkpointSuffix }

// jobDigest stands for model, input and options. Length and name stand for the
// input, with the time of its last change: reading it all again would cost what
// resuming saves.
func jobDigest(cfg *Config) (string, error) {
	raw, err := json.Marshal(struct {
		Identity            string
		Schema              *release.Schema
		Baseline            *sketch.Baseline
		Name                string
		Size, Modified      int64
		In, Out, Header, On string
		Keep                []string
		Batch               int
		Rejects             bool
	}{
		cfg.Identity, cfg.Schema, cfg.Baseline, filepath.Base(cfg.Input.Name), cfg.Input.Size, cfg.Input.Modified.UnixNano(),
		cfg.InFormat, cfg.OutFormat, cfg.Header, cfg.OnError, cfg.Keep, cfg.Batch, cfg.Rejects != "",
	})
	if err != nil {
		return "", fmt.Errorf("encode job: %w", err)
	}
	return release.DigestOf(raw).String(), nil
}

// readCheckpoint finds where an interrupted run can go on, nil for nowhere.
func readCheckpoint(cfg *Config) (*checkpoint, error) {
	if !cfg.Resume {
		return nil, nil //nolint:nilnil // none is asked for
	}
	if _, ok := cfg.Input.Reader.(io.Seeker); !ok || cfg.Output == "-" {
		return nil, fmt.Errorf("%w: input and output must be files", ErrCheckpoint)
	}
	raw, err := readAll(checkpointPath(cfg), maxCheckpoint)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing was interrupted
	}
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	cp := &checkpoint{}
	if err := json.Unmarshal(raw, cp); err != nil || cp.Format != checkpointFormat {
		return nil, fmt.Errorf("%w: %s is not a checkpoint of this version; start anew without --resume", ErrCheckpoint, checkpointPath(cfg))
	}
	job, err := jobDigest(cfg)
	if err != nil {
		return nil, err
	}
	if cp.Job != job {
		return nil, fmt.Errorf("%w: the interrupted run had another input, model or other options; repeat them or start anew without --resume", ErrCheckpoint)
	}
	return cp, nil
}

// publish gives the files of a run their names that a kill kept it from giving.
func (cp *checkpoint) publish(cfg *Config) error {
	var parts []part
	if cfg.Rejects != "" {
		parts = append(parts, part{cfg.Rejects, cp.Rejects})
	}
	if cfg.Output != "-" {
		parts = append(parts, part{cfg.Output, cp.Output})
	}
	for _, p := range parts {
		if err := p.publish(); err != nil {
			return err
		}
	}
	return removeCheckpoint(cfg)
}

// removeCheckpoint forgets an interrupted run, durably: what is left of it must
// not be taken for the beginning of another.
func removeCheckpoint(cfg *Config) error {
	if cfg.Output == "-" {
		return nil
	}
	err := os.Remove(checkpointPath(cfg))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove checkpoint: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(cfg.Output))
}

// maxUnsettled is how many times the checkpoint interval rows may wait for the
// rest of their row group.
const maxUnsettled = 30

// checkpoint writes down how far the output is, when it is time to or force
// says so. Unless forced, waiting for the disk is left to a goroutine, which
// collect asks for later: rows go on meanwhile.
func (o *output) checkpoint(j *job, force bool) error {
	if o.file == nil {
		return nil
	}
	if busy, err := o.collect(force); busy || err != nil || o.broken {
		return err
	}
	since := time.Since(o.at)
	settled := o.encoder.settled()
	if !force && (since < o.cfg.Checkpoint || !settled && since < maxUnsettled*o.cfg.Checkpoint) {
		return nil
	}
	if !settled {
		if err := o.failed(o.encoder.settle(o.file)); err != nil {
			return err
		}
	}
	cp, err := o.snapshot(j.end, &j.summary, j.drift)
	if err != nil {
		return err
	}
	o.at, o.saved = time.Now(), true
	if force {
		return o.store(cp)
	}
	o.storing = make(chan error, 1)
	go func() { o.storing <- o.store(cp) }()
	return nil
}

// collect takes the result of a checkpoint that is being written. busy means that
// it is not there yet, and that nobody waits.
func (o *output) collect(wait bool) (busy bool, err error) {
	if o.storing == nil {
		return false, nil
	}
	if wait {
		err = <-o.storing
	} else {
		select {
		case err = <-o.storing:
		default:
			return true, nil
		}
	}
	o.storing = nil
	return false, err
}

// snapshot is a checkpoint of what was written so far.
func (o *output) snapshot(in position, s *Summary, d *drift) (*checkpoint, error) {
	cp := &checkpoint{Format: checkpointFormat, Job: o.job, Input: in, Output: o.file.offset, Summary: *s, Replace: o.cfg.Replace}
	cp.Summary.Errors = slices.Clone(s.Errors)
	if o.rejects != nil {
		cp.Rejects = o.rejects.offset
	}
	var err error
	if cp.State, err = o.encoder.state(); err != nil {
		return nil, err
	}
	cp.Counts, err = d.encode()
	return cp, err
}

// store syncs the files, which hold at least what the checkpoint says, and writes
// the checkpoint.
func (o *output) store(cp *checkpoint) error {
	if err := o.sync(); err != nil {
		return err
	}
	if o.rejects != nil {
		if err := atomicfile.SyncDir(filepath.Dir(o.cfg.Rejects)); err != nil {
			return fmt.Errorf("%w: %w", errWrite, err)
		}
	}
	raw, err := json.Marshal(cp)
	if err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	if err := atomicfile.Write(checkpointPath(o.cfg), raw); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

func readAll(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
