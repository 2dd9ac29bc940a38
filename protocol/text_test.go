package protocol

import "testing"

func TestBrief(t *testing.T) {
	for _, c := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 5, ""},
		{"as long", 7, "as long"},
		{"libcublasLt.so: cannot open shared object", 22, "libcublasLt.so: cannot…"},
		{"libcublasLt.so: cannot open shared object", 26, "libcublasLt.so: cannot…"},
		{"libcublasLt.so: cannot open shared object", 16, "libcublasLt.so…"},
		{"a libcublasLtWithoutAnySpace", 12, "a libcublasL…"},
		{"éééé", 5, "éé…"},
	} {
		if got := Brief(c.text, c.limit); got != c.want {
			t.Errorf("Brief(%q, %d) is %q, want %q", c.text, c.limit, got, c.want)
		}
	}
}

func TestLinkAndPowerForPeople(t *testing.T) {
	for got, want := range map[string]string{
		MeteredText(MeteredYes):     "metered",
		MeteredText(MeteredNo):      "not metered",
		MeteredText(""):             "not known whether metered",
		PowerText(PowerMains, 0):    "mains",
		PowerText(PowerBattery, 71): "battery, charged to 71%",
		PowerText("", 0):            "not known",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
