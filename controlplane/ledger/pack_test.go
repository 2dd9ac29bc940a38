package ledger

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestPackIsUndone(t *testing.T) {
	noise := make([]byte, 3<<20)
	_, _ = rand.Read(noise) // never fails
	for name, body := range map[string][]byte{"text": []byte(strings.Repeat(`{"device":"a1"},`, 1<<20)), "noise": noise} {
		stored, err := pack(body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unpack(stored, len(body)); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s: got %d bytes, %v, want the %d packed", name, len(got), err, len(body))
		}
		if got, err := unpack(stored, len(body)-1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: with a lower limit got %d bytes, %v, want ErrTooLarge", name, len(got), err)
		}
		if _, err := unpack(stored[:len(stored)/2], len(body)); err == nil {
			t.Errorf("%s: half of what was stored was taken", name)
		}
	}
}

// spaces is a reader of white space without an end.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestLinesAreBounded(t *testing.T) {
	lines := 0
	count := func([]byte, Place) error { lines++; return nil }
	err := eachLine(io.MultiReader(strings.NewReader("short\n"), spaces{}), 1000, count)
	if !errors.Is(err, bufio.ErrTooLong) || lines != 1 {
		t.Errorf("got %v after %d lines, want ErrTooLong after one", err, lines)
	}
}
