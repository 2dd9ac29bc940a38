package ledger

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// pack compresses a body for the blob store. What is said of many devices
// repeats itself: a body shrinks to a tenth of its size and less.
func pack(body []byte) ([]byte, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("compress ledger body: %w", err)
	}
	return enc.EncodeAll(body, nil), enc.Close()
}

// unpack is the body that pack was given, or ErrTooLarge when it would have more
// than limit bytes.
func unpack(stored []byte, limit int) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(limit))) //nolint:gosec // a positive constant
	if err != nil {
		return nil, fmt.Errorf("decompress ledger body: %w", err)
	}
	defer dec.Close()
	body, err := dec.DecodeAll(stored, nil)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, fmt.Errorf("decompress ledger body: %w: over %d bytes", ErrTooLarge, limit)
	case err != nil:
		return nil, fmt.Errorf("decompress ledger body: %w", err)
	}
	return body, nil
}
