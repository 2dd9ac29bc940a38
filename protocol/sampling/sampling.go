// Package sampling seals the rows that leave a device for labelling, and opens
// them again at the publisher's [P-10].
//
// Parties and keys: the publisher holds an age X25519 identity and writes its
// public half, the recipient, into the manifest that he signs. A device
// encrypts to the recipient of the release that predicted, so nobody but the
// publisher reads a row: neither the control plane, nor the broker, nor who
// takes the device's flash out. That a sample comes from the device it names is
// proven by the device's certificate on the way, as for everything it sends;
// age itself proves no sender. Nothing here replaces a signature.
package sampling

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// What can be wrong with a sample.
var (
	// ErrIdentity says that the sample was not sealed for this identity.
	ErrIdentity = errors.New("sample was sealed for another key: give the identity whose public half the manifest names")
	// ErrSample says that a sample is not what a device makes.
	ErrSample = errors.New("sample is not readable")
)

// Seal encrypts rows to an age X25519 recipient. They are nowhere but in memory
// before.
func Seal(rows *protocol.SampleRows, recipient string) ([]byte, error) {
	to, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, fmt.Errorf("read recipient of samples: %w", err)
	}
	plain, err := proto.Marshal(rows)
	if err != nil {
		return nil, fmt.Errorf("encode sampled rows: %w", err)
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		return nil, fmt.Errorf("encrypt sampled rows: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("encrypt sampled rows: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt sampled rows: %w", err)
	}
	return sealed.Bytes(), nil
}

// Open decrypts what Seal made, of at most protocol.MaxSample bytes.
func Open(sealed []byte, identities ...age.Identity) (*protocol.SampleRows, error) {
	if len(sealed) > protocol.MaxSample {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrSample, len(sealed), protocol.MaxSample)
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), identities...)
	var noMatch *age.NoIdentityMatchError
	switch {
	case errors.As(err, &noMatch):
		return nil, ErrIdentity
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrSample, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, protocol.MaxSample))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSample, err)
	}
	rows := &protocol.SampleRows{}
	if err := proto.Unmarshal(plain, rows); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSample, err)
	}
	return rows, nil
}
