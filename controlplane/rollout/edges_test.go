package rollout

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// The table of sharp edges names every script, and none that is not there.
func TestEdgesAreListed(t *testing.T) {
	table, err := os.ReadFile("testdata/edges/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllSubmatch(table, -1) {
		named = append(named, filepath.Join("testdata/edges", string(m[1])))
	}
	scripts := scriptFiles(t)
	for _, file := range scripts {
		if !slices.Contains(named, file) {
			t.Errorf("testdata/edges/README.md does not name %s", file)
		}
	}
	for _, file := range named {
		if !slices.Contains(scripts, file) {
			t.Errorf("testdata/edges/README.md names %s, which is not there", file)
		}
	}
}
