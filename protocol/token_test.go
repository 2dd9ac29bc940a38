package protocol

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func validToken() *EnrolmentToken {
	return &EnrolmentToken{
		DeviceAPI: "https://fleet.example:8443",
		MQTT:      []string{"mqtts://fleet.example:8883", "mqtts://[2001:db8::1]:8883"},
		CA:        sha256.Sum256([]byte("ca")),
		Root:      sha256.Sum256([]byte("root")),
		Secret:    "t1.0123456789",
		Expires:   time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC),
	}
}

func TestTokenTextGivesTheTokenBack(t *testing.T) {
	want := validToken()
	text, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseToken("  " + text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTokenRefusesFields(t *testing.T) {
	for name, change := range map[string]func(*EnrolmentToken){
		"device API in the clear":   func(e *EnrolmentToken) { e.DeviceAPI = "http://fleet.example" },
		"device API with a path":    func(e *EnrolmentToken) { e.DeviceAPI = "https://fleet.example/x" },
		"device API with a user":    func(e *EnrolmentToken) { e.DeviceAPI = "https://u:p@fleet.example" },
		"device API without a host": func(e *EnrolmentToken) { e.DeviceAPI = "https://:8443" },
		"device API with a query":   func(e *EnrolmentToken) { e.DeviceAPI = "https://fleet.example?x" },
		"device API too long":       func(e *EnrolmentToken) { e.DeviceAPI = "https://" + strings.Repeat("a", 300) },
		"no MQTT URL":               func(e *EnrolmentToken) { e.MQTT = nil },
		"nine MQTT URLs":            func(e *EnrolmentToken) { e.MQTT = strings.Fields(strings.Repeat("mqtts://h:1 ", 9)) },
		"MQTT in the clear":         func(e *EnrolmentToken) { e.MQTT = []string{"mqtt://fleet.example:1883"} },
		"no CA":                     func(e *EnrolmentToken) { e.CA = [32]byte{} },
		"no root":                   func(e *EnrolmentToken) { e.Root = [32]byte{} },
		"no secret":                 func(e *EnrolmentToken) { e.Secret = "" },
		"secret too long":           func(e *EnrolmentToken) { e.Secret = strings.Repeat("s", 129) },
		"no expiry":                 func(e *EnrolmentToken) { e.Expires = time.Time{} },
	} {
		t.Run(name, func(t *testing.T) {
			e := validToken()
			change(e)
			if text, err := e.Encode(); err == nil {
				t.Errorf("encoded as %s", text)
			}
		})
	}
}

func TestTokenRefusesTexts(t *testing.T) {
	whole, err := validToken().Encode()
	if err != nil {
		t.Fatal(err)
	}
	withSum := func(json string) string {
		sum := sha256.Sum256([]byte(json))
		return tokenPrefix + base64.RawURLEncoding.EncodeToString(append([]byte(json), sum[:tokenSumSize]...))
	}
	for name, text := range map[string]string{
		"empty":         "",
		"prefix only":   "vdt1_",
		"other version": strings.Replace(whole, "vdt1_", "vdt2_", 1),
		"end cut off":   whole[:len(whole)-1],
		"half":          whole[:len(whole)/2],
		"mistyped":      whole[:20] + flip(whole[20]) + whole[21:],
		"line break":    whole[:30] + "\n" + whole[30:],
		"too long":      tokenPrefix + strings.Repeat("A", MaxToken),
		"unknown field": withSum(`{"a":"https://h","z":1}`),
		"two values":    withSum(`{} {}`),
		"no JSON":       withSum(`x`),
		"short digests": withSum(`{"a":"https://h","q":["mqtts://h:1"],"c":"AA==","r":"AA==","s":"s","x":1}`),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseToken(text); !errors.Is(err, ErrToken) {
				t.Errorf("got %v, want ErrToken", err)
			}
		})
	}
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func FuzzParseToken(f *testing.F) {
	text, err := validToken().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("vdt1_")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		again, err := token.Encode()
		if err != nil || again != strings.TrimSpace(text) {
			t.Errorf("parsed %q, encodes as %q (%v)", text, again, err)
		}
	})
}
