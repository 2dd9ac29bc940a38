package score

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/release"
)

// checkpointFormat is the version of the checkpoint file. History:
//
//	1  2026-11-23  first
const checkpointFormat = 1

// maxCheckpoint bounds a checkpoint file in bytes.
const maxCheckpoint = 64 << 10

// checkpoint says up to where the unfinished output holds the input, exactly.
// It is written after the output is synced: whatever the output has beyond it
// is cut off before going on.
type checkpoint struct {
	Format  int      `json:"format"`
	Job     string   `json:"job"` // digest of everything that decides the result
	Input   position `json:"input"`
	Output  int64    `json:"output"` // bytes
	Summary Summary  `json:"summary"`
}

func checkpointPath(cfg *Config) string { return cfg.Output + ".checkpoint" }

// jobDigest stands for model, input and options. Length and name stand for the
// input: reading it all again would cost what resuming saves.
func jobDigest(cfg *Config) (string, error) {
	raw, err := json.Marshal(struct {
		Identity            string
		Schema              *release.Schema
		Name                string
		Size                int64
		In, Out, Header, On string
		Keep                []string
	}{cfg.Identity, cfg.Schema, filepath.Base(cfg.Input.Name), cfg.Input.Size, cfg.InFormat, cfg.OutFormat, cfg.Header, cfg.OnError, cfg.Keep})
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

// seek puts the input where the checkpoint is.
func (cp *checkpoint) seek(cfg *Config, p parser) error {
	s, ok := cfg.Input.Reader.(io.Seeker)
	if !ok {
		return fmt.Errorf("%w: the input is not a file", ErrCheckpoint)
	}
	if _, err := s.Seek(cp.Input.Offset, io.SeekStart); err != nil {
		return fmt.Errorf("seek input: %w", err)
	}
	p.seek(cp.Input)
	return nil
}

// checkpoint writes down how far the output is, at most every CheckpointEvery
// unless forced.
func (o *output) checkpoint(in position, s *Summary, force bool) error {
	if o.file == nil || !force && time.Since(o.at) < CheckpointEvery {
		return nil
	}
	if err := o.file.Sync(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	job, err := jobDigest(o.cfg)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(checkpoint{Format: checkpointFormat, Job: job, Input: in, Output: o.offset, Summary: *s})
	if err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	if err := atomicfile.Write(checkpointPath(o.cfg), raw); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	o.at = time.Now()
	return nil
}
