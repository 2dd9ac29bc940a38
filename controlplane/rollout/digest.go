package rollout

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/bits"
)

// sum is a digest of a set that can be kept up to date: the SHA-256 of its
// members added up modulo 2^256 (Bellare and Micciancio 1997, AdHash). It shows
// that a replay has come to something else. That nobody has forged a record is
// shown by the hashes of the ledger's chain, not by this.
type sum [4]uint64

// add puts a member in.
func (s *sum) add(id string, v any) error { return s.with(id, v, bits.Add64) }

// remove takes a member out.
func (s *sum) remove(id string, v any) error { return s.with(id, v, bits.Sub64) }

func (s *sum) with(id string, v any, do func(x, y, carry uint64) (uint64, uint64)) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", id, err)
	}
	h := sha256.New()
	h.Write([]byte(id))
	h.Write([]byte{0})
	h.Write(raw)
	digest := h.Sum(nil)
	var carry uint64
	for i := range s {
		s[i], carry = do(s[i], binary.LittleEndian.Uint64(digest[8*i:]), carry)
	}
	return nil
}

// sumOf adds up all members.
func sumOf[T any](members map[string]*T) (*sum, error) {
	s := &sum{}
	for id, v := range members {
		if err := s.add(id, v); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Digest is the SHA-256, in hex, of a state and the facts it was decided on: of
// the state as Step returned it, its new orders without sequences. It costs
// what has changed since the state and the facts that Apply returned.
func Digest(s *State, f *Facts) (string, error) {
	devices, err := s.deviceSum()
	if err != nil {
		return "", fmt.Errorf("digest of rollout %s: %w", s.ID, err)
	}
	facts, err := f.deviceSum()
	if err != nil {
		return "", fmt.Errorf("digest of rollout %s: %w", s.ID, err)
	}
	rest := *s
	rest.Devices = nil
	h := sha256.New()
	// Map keys are sorted and times are in one form: the bytes are the same everywhere.
	if err := json.NewEncoder(h).Encode(&rest); err != nil {
		return "", fmt.Errorf("encode state of rollout %s: %w", s.ID, err)
	}
	for _, set := range []*sum{devices, facts} {
		for _, word := range set {
			h.Write(binary.LittleEndian.AppendUint64(nil, word))
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// deviceSum is the sum of the state's devices.
func (s *State) deviceSum() (*sum, error) {
	if s.summed == nil {
		return sumOf(s.Devices)
	}
	out := *s.summed
	return &out, exchange(&out, s.replaced, s.Devices)
}

// deviceSum is the sum of what is known of the devices.
func (f *Facts) deviceSum() (*sum, error) {
	if f.summed == nil {
		return sumOf(f.Devices)
	}
	return f.summed, nil
}

// exchange puts members in the place of those they replaced, nil for none.
func exchange[T any](s *sum, replaced, now map[string]*T) error {
	for id, was := range replaced {
		if was != nil {
			if err := s.remove(id, was); err != nil {
				return err
			}
		}
		if is := now[id]; is != nil {
			if err := s.add(id, is); err != nil {
				return err
			}
		}
	}
	return nil
}
