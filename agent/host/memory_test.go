package host

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// residentText is how many KiB of code are mapped.
func residentText(t *testing.T) (kib int) {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip("this system does not say what is resident:", err)
	}
	mapping := regexp.MustCompile(`(?m)^\S+ r-xp .* /.*\n(?:\S+: .*\n)*?Rss: +(\d+) kB`)
	for _, m := range mapping.FindAllSubmatch(smaps, -1) {
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		kib += n
	}
	return kib
}

func TestTrim(t *testing.T) {
	before := residentText(t)
	if before == 0 {
		t.Fatal("no code is resident, which cannot be")
	}
	for range 3 { // and what was given back still runs
		if err := Trim(); err != nil {
			t.Fatal(err)
		}
		if after := residentText(t); after > before {
			t.Errorf("code resident after: %d KiB, before %d KiB", after, before)
		}
	}
}

func TestTextMappings(t *testing.T) {
	for line, want := range map[string]bool{
		"00402000-00a79000 r-xp 00002000 fe:00 10498884    /usr/bin/vedette-agent": true,
		"00a79000-01231000 r--p 00679000 fe:00 10498884    /usr/bin/vedette-agent": false, // relocated data may be among it
		"7ffe8d7e4000-7ffe8d7e6000 r-xp 00000000 00:00 0   [vdso]":                 false,
		"7f0000000000-7f0000001000 r-xp 00000000 00:00 0":                          false, // made at run time: it has no file to come back from
		"00a79000-00402000 r-xp 00002000 fe:00 10498884    /usr/bin/vedette-agent": false,
		"rubbish r-xp 0 0 0 /x": false,
	} {
		if _, _, got := code(line); got != want {
			t.Errorf("%q: got %v, want %v", line, got, want)
		}
	}
}
