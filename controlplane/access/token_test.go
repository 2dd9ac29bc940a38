package access

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func TestFirstAdminToken(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(b.dir, AdminTokenFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode is %v, %v; want 0600", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Authenticate(t.Context(), strings.TrimSpace(string(text)))
	if err != nil || p.Role != operator.Admin || p.Name != "admin" {
		t.Errorf("principal is %+v, %v", p, err)
	}
	b.Close()
	b.open()
	if again, err := os.ReadFile(path); err != nil || string(again) != string(text) {
		t.Errorf("the second start wrote another token, %v", err)
	}
	if all := mustList(t, b.Tokens); len(all) != 1 || all[0].LastUsed.IsZero() {
		t.Errorf("tokens are %+v; want one that was used", all)
	}
}

func TestOperatorTokens(t *testing.T) {
	b := newBench(t)
	made, err := b.CreateToken(t.Context(), operator.TokenCreate{Name: " ada ", Role: operator.Operator, TTL: release.Duration(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Authenticate(t.Context(), made.Secret)
	if want := (operator.Principal{Name: "ada", Role: operator.Operator, Token: made.ID}); err != nil || p != want {
		t.Errorf("got %+v, %v; want %+v", p, err, want)
	}
	unknown := made.Secret[:len(made.Secret)-2] + "xx"
	for name, text := range map[string]string{
		"wrong secret": unknown, "cut off": made.Secret[:20], "empty": "", "no prefix": strings.TrimPrefix(made.Secret, operatorPrefix),
		"unknown id": operatorPrefix + "000000000000.x", "id of another kind": operatorPrefix + "zz.x",
	} {
		if _, err := b.Authenticate(t.Context(), text); operator.CodeOf(err) != operator.Unauthorized {
			t.Errorf("%s: got %v, want unauthorized", name, err)
		}
	}
	b.pass(time.Hour)
	if _, err := b.Authenticate(t.Context(), made.Secret); operator.CodeOf(err) != operator.Unauthorized || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: got %v", err)
	}
}

func TestTokenCreateRefuses(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]operator.TokenCreate{
		"no name":      {Role: operator.Viewer},
		"blank name":   {Name: "  ", Role: operator.Viewer},
		"long name":    {Name: strings.Repeat("a", 65), Role: operator.Viewer},
		"escapes":      {Name: "ada\x1b[2J", Role: operator.Viewer},
		"no role":      {Name: "ada"},
		"unknown role": {Name: "ada", Role: "root"},
		"negative TTL": {Name: "ada", Role: operator.Viewer, TTL: -1},
	} {
		if _, err := b.CreateToken(t.Context(), c); operator.CodeOf(err) != operator.Invalid {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
	}
	for name, c := range map[string]operator.EnrolTokenCreate{
		"bad device":          {Device: "a/b"},
		"device used twice":   {Device: "cam-1", Uses: 2},
		"reason that escapes": {Reason: "\x1b[2J"},
		"negative uses":       {Uses: -1},
		"too many uses":       {Uses: MaxEnrolUses + 1},
		"short life":          {TTL: release.Duration(time.Second)},
		"long life":           {TTL: release.Duration(2 * MaxEnrolTTL)},
		"label without name":  {Labels: map[string]string{"": "x"}},
		"label too long":      {Labels: map[string]string{"x": strings.Repeat("x", 300)}},
		"label of HTML":       {Labels: map[string]string{"site": "<b>x</b>"}},
		"label with a space":  {Labels: map[string]string{"a b": "c d"}},
		"label of a path":     {Labels: map[string]string{"site": "../.."}},
		"device API in clear": {DeviceAPI: "http://x"},
		"MQTT in clear":       {MQTT: []string{"mqtt://x:1883"}},
		"MQTT without a host": {MQTT: []string{"mqtts://:8883"}},
	} {
		if _, err := b.CreateEnrolToken(t.Context(), c); operator.CodeOf(err) != operator.Invalid {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
	}
}

func TestRevokedTokenIsRefused(t *testing.T) {
	b := newBench(t)
	made, err := b.CreateToken(t.Context(), operator.TokenCreate{Name: "ada", Role: operator.Admin})
	if err != nil {
		t.Fatal(err)
	}
	first := mustList(t, b.Tokens)
	admin := first[0].ID
	if admin == made.ID {
		admin = first[1].ID
	}
	if err := b.RevokeToken(t.Context(), admin); err != nil {
		t.Fatal(err)
	}
	if err := b.RevokeToken(t.Context(), made.ID); operator.CodeOf(err) != operator.Conflict {
		t.Errorf("last admin: got %v, want conflict", err)
	}
	if err := b.RevokeToken(t.Context(), "none"); operator.CodeOf(err) != operator.NotFound {
		t.Errorf("unknown: got %v, want not found", err)
	}
	if _, err := b.Authenticate(t.Context(), made.Secret); err != nil {
		t.Errorf("the last admin: %v", err)
	}
	viewer, err := b.CreateToken(t.Context(), operator.TokenCreate{Name: "bob", Role: operator.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.RevokeToken(t.Context(), viewer.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Authenticate(t.Context(), viewer.Secret); operator.CodeOf(err) != operator.Unauthorized || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("got %v, want unauthorized, revoked", err)
	}
}

// No secret, and nothing it could be found by but its hash, is kept or listed.
func TestSecretsAreNotKept(t *testing.T) {
	b := newBench(t)
	made, err := b.CreateToken(t.Context(), operator.TokenCreate{Name: "ada", Role: operator.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	enrol := b.token(operator.EnrolTokenCreate{})
	entries, err := b.bucket.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{made.Secret, enrol.Secret} {
		_, secret, ok := strings.Cut(text[3:], ".")
		if !ok {
			t.Fatalf("secret has no two parts")
		}
		for _, e := range entries {
			if strings.Contains(string(e.Value), secret) {
				t.Errorf("%s keeps the secret", e.Key)
			}
		}
	}
}
