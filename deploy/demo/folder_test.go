package demo

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClaim(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	leave, err := claim(t.Context(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(dir, "keys")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(t.Context(), dir, ""); err == nil || !strings.Contains(err.Error(), "another demo runs") {
		t.Errorf("second demo in a folder: got %v", err)
	}
	leave()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := claim(t.Context(), dir, taken.Addr().String()); err == nil || !strings.Contains(err.Error(), "--http") {
		t.Errorf("dashboard's address taken: got %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("a demo that could not start removed what was there: %v", err)
	}
	if leave, err = claim(t.Context(), dir, ""); err != nil {
		t.Fatal(err)
	}
	defer leave()
	if _, err := os.Stat(kept); err == nil {
		t.Error("a new demo kept what the old one left")
	}
}

func TestClaimLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "thesis.txt")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(t.Context(), dir, ""); err == nil {
		t.Error("a folder that is not a demo's was taken")
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
}
