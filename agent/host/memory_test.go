package host

import (
	"os"
	"regexp"
	"strconv"
	"strings"
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

func TestWhatComesBack(t *testing.T) {
	for entry, want := range map[string]bool{
		"00402000-00a79000 r-xp 00002000 fe:00 10498884    /usr/bin/vedette-agent\nRss: 8 kB\nAnonymous:             0 kB": true,
		"00402000-00a79000 r-xp 00002000 fe:00 10498884    /usr/bin/vedette-agent\nRss: 8 kB\nAnonymous:             4 kB": false, // a debugger's breakpoint
		"00402000-00a79000 r-xp 00002000 fe:00 10498884    /usr/bin/vedette-agent":                                         false, // nothing is known of it
		"00a79000-01231000 r--p 00679000 fe:00 10498884    /usr/bin/vedette-agent\nAnonymous:             0 kB":            true,
		"00a79000-01231000 r--p 00679000 fe:00 10498884    /usr/bin/vedette-agent\nAnonymous:             4 kB":            false, // relocated
		"00a79000-01231000 r--p 00679000 fe:00 10498884    /usr/lib/libother.so\nAnonymous:             0 kB":              false,
		"00a79000-01231000 rw-p 00679000 fe:00 10498884    /usr/bin/vedette-agent\nAnonymous:             0 kB":            false,
		"7ffe8d7e4000-7ffe8d7e6000 r-xp 00000000 00:00 0   [vdso]\nAnonymous:             0 kB":                            false,
		"7f0000000000-7f0000001000 r-xp 00000000 00:00 0  \nAnonymous:             0 kB":                                   false, // made at run time
		"00a79000-00402000 r-xp 00002000 fe:00 10498884    /usr/bin/vedette-agent\nAnonymous:             0 kB":            false,
		"rubbish r-xp 0 0 0 /x\nAnonymous:             0 kB":                                                               false,
	} {
		list, err := mappings(strings.NewReader(entry))
		if err != nil || len(list) != 1 {
			t.Fatalf("%q: got %v, %v", entry, list, err)
		}
		if got := list[0].comesBack("/usr/bin/vedette-agent"); got != want {
			t.Errorf("%q: got %v, want %v", entry, got, want)
		}
	}
}
