package truth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// maxRejects is how many rejected rows an upload remembers, maxBehind how many
// devices it names that truths wait for.
const (
	maxRejects = 20
	maxBehind  = 100
)

// chunkResult is what became of one chunk, as an upload remembers it.
type chunkResult struct {
	Queued   int `json:"q"`
	Rejected int `json:"r,omitempty"`
}

// record is one upload as it is kept.
type record struct {
	Model   string                 `json:"model"`
	Name    string                 `json:"name,omitempty"`
	Actor   string                 `json:"actor"`
	Reason  string                 `json:"reason,omitempty"`
	At      time.Time              `json:"at"`
	Chunks  map[string]chunkResult `json:"chunks,omitempty"`
	Rejects []operator.TruthReject `json:"rejects,omitempty"`
}

func (s *Service) loadUpload(id string, value []byte) error {
	r := &record{}
	if err := json.Unmarshal(value, r); err != nil {
		return err
	}
	s.uploads[id] = r
	return nil
}

// Begin makes an upload, or finds the one of that id; fresh says that there was none.
func (s *Service) Begin(ctx context.Context, actor, model string, b operator.TruthBegin) (u operator.TruthUpload, fresh bool, err error) {
	if !isHex(b.ID, 8) {
		return u, false, fmt.Errorf("%w: id of the upload must be 8 to 64 hex digits", ErrChunk)
	}
	s.pushing.Lock()
	defer s.pushing.Unlock()
	if u, err = s.Upload(model, b.ID); err == nil || !errors.Is(err, ErrUpload) {
		return u, false, err
	}
	r := &record{Model: model, Name: b.Name, Actor: actor, Reason: b.Reason, At: s.cfg.Now().UTC()}
	if err := s.save(ctx, b.ID, r); err != nil {
		return u, false, err
	}
	u, err = s.Upload(model, b.ID)
	return u, true, err
}

func isHex(text string, least int) bool {
	_, err := hex.DecodeString(text)
	return err == nil && len(text) >= least && len(text) <= 64 && text == strings.ToLower(text)
}

// save writes an upload down and then shows it.
func (s *Service) save(ctx context.Context, id string, r *record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode upload: %w", err)
	}
	if _, err := s.bucket.Put(ctx, kvstore.Key(uploadKeys, id), raw); err != nil {
		return fmt.Errorf("write upload: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uploads[id] = r
	return nil
}

// Push queues the truths of one chunk for their devices and lets those know. A
// chunk that was taken whole changes nothing when it comes again; one of which rows were
// rejected is tried again, and queued for those devices only that did not take
// theirs. Rows of no device are rejected one by one.
func (s *Service) Push(ctx context.Context, model, upload, chunk string, rows []operator.TruthRow) (out operator.TruthChunkResult, err error) {
	if !isHex(chunk, 16) || len(rows) == 0 || len(rows) > operator.MaxTruthRows {
		return out, fmt.Errorf("%w: it needs a name of 16 to 64 hex digits and 1 to %d rows", ErrChunk, operator.MaxTruthRows)
	}
	s.pushing.Lock()
	defer s.pushing.Unlock()
	s.mu.Lock()
	r := s.uploads[upload]
	s.mu.Unlock()
	if r == nil || r.Model != model {
		return out, ErrUpload
	}
	if done, ok := r.Chunks[chunk]; ok && done.Rejected == 0 {
		return operator.TruthChunkResult{Queued: done.Queued, Rejected: done.Rejected}, nil
	}
	byDevice, rejects := s.route(model, rows)
	for _, device := range slices.Sorted(maps.Keys(byDevice)) {
		full, err := s.enqueue(ctx, device, model, upload, chunk, byDevice[device])
		if err != nil {
			return out, err
		}
		out.Queued += len(byDevice[device]) - len(full)
		rejects = append(rejects, full...)
	}
	slices.SortFunc(rejects, func(a, b operator.TruthReject) int { return cmp.Compare(a.Line, b.Line) })
	out.Rejected, out.Rejects = len(rejects), rejects
	return out, s.save(ctx, upload, r.with(chunk, rows, &out))
}

// with is the upload after one more chunk, perhaps again. The record itself is
// read by others.
func (r *record) with(chunk string, rows []operator.TruthRow, done *operator.TruthChunkResult) *record {
	next := *r
	next.Chunks = maps.Clone(r.Chunks)
	if next.Chunks == nil {
		next.Chunks = map[string]chunkResult{}
	}
	next.Chunks[chunk] = chunkResult{Queued: done.Queued, Rejected: done.Rejected}
	first, last := rows[0].Line, rows[len(rows)-1].Line
	before := slices.DeleteFunc(slices.Clone(r.Rejects), func(old operator.TruthReject) bool { return old.Line >= first && old.Line <= last })
	next.Rejects = slices.Concat(before, done.Rejects)
	next.Rejects = next.Rejects[:min(len(next.Rejects), maxRejects)]
	return &next
}

// route finds the device of each row.
func (s *Service) route(model string, rows []operator.TruthRow) (map[string][]operator.TruthRow, []operator.TruthReject) {
	byDevice := map[string][]operator.TruthRow{}
	var rejects []operator.TruthReject
	for _, row := range rows {
		device, reason := s.deviceOf(model, &row)
		if reason != "" {
			rejects = append(rejects, operator.TruthReject{Line: row.Line, Reason: reason})
			continue
		}
		byDevice[device] = append(byDevice[device], row)
	}
	return byDevice, rejects
}

// deviceOf finds the device of a row, or says why there is none.
func (s *Service) deviceOf(model string, row *operator.TruthRow) (device, reason string) {
	switch {
	case !isText(row.ID):
		return "", fmt.Sprintf("the id must be 1 to %d bytes of UTF-8", protocol.MaxTruthText)
	case !isText(row.Label):
		return "", fmt.Sprintf("the label must be 1 to %d bytes of UTF-8", protocol.MaxTruthText)
	}
	device = row.Device
	if device == "" {
		if device = s.maker(row.ID); device == "" {
			return "", fmt.Sprintf("no device is known to have made prediction %.64q in the last day: name it in a column", row.ID)
		}
	}
	switch known, has := s.devices.Has(device, model); {
	case !known:
		return "", fmt.Sprintf("there is no device %.63q", device)
	case !has:
		return "", fmt.Sprintf("device %s does not have model %s", device, model)
	}
	return device, ""
}

func isText(text string) bool {
	return text != "" && len(text) <= protocol.MaxTruthText && utf8.ValidString(text)
}

// maker is the device whose agent has made ids that begin like this one [P-9.2].
func (s *Service) maker(id string) string {
	i := strings.IndexByte(id, '-')
	if i < 0 {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.prefixes[id[:i+1]]
}

// enqueue adds truths to a device's queue and lets it know. When there is no
// room for all of them it takes none and returns why, row by row: so a chunk that comes
// again finds a queue that has all of it or nothing.
func (s *Service) enqueue(ctx context.Context, device, model, upload, chunk string, rows []operator.TruthRow) (full []operator.TruthReject, err error) {
	now := s.cfg.Now()
	sum := sha256.Sum256([]byte(upload + " " + chunk))
	name := sum[:8]
	err = s.change(ctx, device, func(q *protocol.TruthQueue) bool {
		full = nil
		if slices.ContainsFunc(q.GetChunks(), func(c []byte) bool { return bytes.Equal(c, name) }) {
			return false
		}
		expire(q, now)
		before, newest := q.GetWaiting(), q.GetNewest()
		rest := rows
		for n := 1; n > 0 && len(rest) > 0; rest = rest[n:] {
			n = queueBatch(q, model, upload, rest, now)
		}
		if len(rest) > 0 {
			q.Waiting, q.Newest = before, newest
			full = tooMany(device, rows)
			return true
		}
		q.Chunks = append(q.GetChunks(), name)
		q.Chunks = q.Chunks[max(0, len(q.Chunks)-maxChunks):]
		return true
	})
	if err == nil && len(full) == 0 {
		s.cfg.Tell(device)
	}
	return full, err
}

func tooMany(device string, rows []operator.TruthRow) (out []operator.TruthReject) {
	for _, row := range rows {
		out = append(out, operator.TruthReject{
			Line: row.Line, Reason: fmt.Sprintf("too many truths wait for device %s: upload the file again when it has taken some", device),
		})
	}
	return out
}

// queueBatch makes a batch of the first rows, as far as there is room, and says
// how many those were.
func queueBatch(q *protocol.TruthQueue, model, upload string, rows []operator.TruthRow, now time.Time) (n int) {
	waiting := 0
	for _, b := range q.GetWaiting() {
		waiting += len(b.GetTruths())
	}
	const overhead = 512 // bytes of a batch beside its truths
	room := min(maxQueue-proto.Size(q), protocol.MaxTruthBatch) - overhead
	b := &protocol.TruthBatch{
		// Milliseconds rise even where a restored server has forgotten a number.
		Seq: max(q.GetNewest()+1, uint64(max(0, now.UnixMilli()))), Upload: upload, Model: model,
		ExpiresMs: now.Add(Wait).UnixMilli(),
	}
	for _, row := range rows[:min(len(rows), protocol.MaxTruths, max(0, MaxWaiting-waiting))] {
		t := &protocol.Truth{Id: row.ID, Label: row.Label}
		if room -= proto.Size(t) + 4; room < 0 {
			break
		}
		b.Truths = append(b.Truths, t)
	}
	if len(b.GetTruths()) > 0 {
		q.Waiting, q.Newest = append(q.GetWaiting(), b), b.GetSeq()
	}
	return len(b.GetTruths())
}

// Upload says how far an upload is.
func (s *Service) Upload(model, id string) (operator.TruthUpload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.uploads[id]
	if r == nil || r.Model != model {
		return operator.TruthUpload{}, ErrUpload
	}
	u := s.view(id, r)
	for name, c := range r.Chunks {
		if c.Rejected == 0 {
			u.Chunks = append(u.Chunks, name)
		}
	}
	slices.Sort(u.Chunks)
	return u, nil
}

// Uploads lists the uploads of a model, newest first.
func (s *Service) Uploads(model string) []operator.TruthUpload {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []operator.TruthUpload{}
	for id, r := range s.uploads {
		if r.Model == model {
			out = append(out, s.view(id, r))
		}
	}
	slices.SortFunc(out, func(a, b operator.TruthUpload) int { return cmp.Or(b.At.Compare(a.At), strings.Compare(a.ID, b.ID)) })
	return out
}

// view joins an upload with what became of it on the devices. The caller holds mu.
func (s *Service) view(id string, r *record) operator.TruthUpload {
	u := operator.TruthUpload{ID: id, Model: r.Model, Name: r.Name, Actor: r.Actor, Reason: r.Reason, At: r.At, Rejects: r.Rejects}
	for _, c := range r.Chunks {
		u.Queued += uint64(max(0, c.Queued))
		u.Rejected += uint64(max(0, c.Rejected))
	}
	for device, q := range s.queues {
		waiting, met := q.waiting[id], false
		if waiting > 0 {
			u.Waiting += waiting
			u.Behind = append(u.Behind, device)
		}
		for _, d := range q.done {
			if d.GetUpload() == id {
				add(&u.TruthCounts, d)
				met = true
			}
		}
		if met || waiting > 0 {
			u.Devices++
		}
	}
	slices.Sort(u.Behind)
	u.Behind = u.Behind[:min(len(u.Behind), maxBehind)]
	return u
}

func add(c *operator.TruthCounts, d *protocol.TruthDone) {
	c.Matched += d.GetTaken().GetMatched()
	c.Unmatched += d.GetTaken().GetUnmatched()
	c.Repeated += d.GetTaken().GetRepeated()
	c.Refused += d.GetTaken().GetRefused()
	c.Expired += d.GetExpired()
}

// forgetUploads drops the uploads that are too old to be asked for.
func (s *Service) forgetUploads(ctx context.Context, now time.Time) error {
	s.mu.Lock()
	var old []string
	for id, r := range s.uploads {
		if now.Sub(r.At) > keepResults {
			old = append(old, id)
		}
	}
	s.mu.Unlock()
	for _, id := range old {
		if err := s.bucket.Delete(ctx, kvstore.Key(uploadKeys, id)); err != nil {
			return fmt.Errorf("forget upload: %w", err)
		}
		s.mu.Lock()
		delete(s.uploads, id)
		s.mu.Unlock()
	}
	return nil
}
