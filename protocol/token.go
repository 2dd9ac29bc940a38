package protocol

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// tokenPrefix names the kind and the version of the text, so that a wrong
	// paste is told from a damaged one.
	tokenPrefix = "vdt1_"
	// MaxToken bounds the text of an enrolment token in bytes.
	MaxToken = 4096
	// MaxMQTTURLs bounds the brokers that a device is told of.
	MaxMQTTURLs = 8

	maxURL       = 256
	maxSecret    = 128
	tokenSumSize = 4
)

// ErrToken says that a text is no enrolment token, or not a whole one.
var ErrToken = errors.New("not a whole enrolment token: copy it again, from \"vdt1_\" to its end")

// EnrolmentToken is all that a new device is given. Its text is a secret until
// it is used or expires.
//
// Two of its digests are roots of trust that do not come from the server at
// enrolment: CA pins the control plane's certificate authority, and Root, taken
// from the operator's own copy of root.json, pins who may sign models.
type EnrolmentToken struct {
	DeviceAPI string           // https://host:port of the device API
	MQTT      []string         // mqtts://host:port, at least one, in order of preference
	CA        [DigestSize]byte // SHA-256 of the CA certificate, DER
	Root      [DigestSize]byte // SHA-256 of root.json
	Secret    string           // given to the server once, which keeps a hash of it
	Expires   time.Time        // whole seconds; the server decides, this is for the message
}

// tokenText is the token as JSON. Names are short: people paste it.
type tokenText struct {
	DeviceAPI string   `json:"a"`
	MQTT      []string `json:"q"`
	CA        []byte   `json:"c"`
	Root      []byte   `json:"r"`
	Secret    string   `json:"s"`
	Expires   int64    `json:"x"` // Unix seconds
}

// Validate says what is wrong with the token's fields.
func (t *EnrolmentToken) Validate() error {
	if err := CheckDeviceAPI(t.DeviceAPI); err != nil {
		return err
	}
	if err := CheckMQTT(t.MQTT); err != nil {
		return err
	}
	switch {
	case t.CA == [DigestSize]byte{}:
		return errors.New("enrolment token: the CA's SHA-256 is missing")
	case t.Root == [DigestSize]byte{}:
		return errors.New("enrolment token: the SHA-256 of root.json is missing")
	case t.Secret == "" || len(t.Secret) > maxSecret:
		return fmt.Errorf("enrolment token: secret must have 1 to %d bytes", maxSecret)
	case t.Expires.Unix() <= 0:
		return errors.New("enrolment token: expiry is missing")
	}
	return nil
}

// CheckDeviceAPI refuses what is not https://host[:port].
func CheckDeviceAPI(text string) error { return checkURL("device API", text, "https") }

// CheckMQTT refuses a list of brokers that is empty, too long or not of
// mqtts://host:port.
func CheckMQTT(urls []string) error {
	if len(urls) == 0 || len(urls) > MaxMQTTURLs {
		return fmt.Errorf("MQTT: give 1 to %d URLs", MaxMQTTURLs)
	}
	for _, u := range urls {
		if err := checkURL("MQTT", u, "mqtts"); err != nil {
			return err
		}
	}
	return nil
}

func checkURL(what, text, scheme string) error {
	if len(text) > maxURL {
		return fmt.Errorf("%s URL is longer than %d bytes", what, maxURL)
	}
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("%s URL: %w", what, err)
	}
	bare := url.URL{Scheme: scheme, Host: u.Host}
	if u.Hostname() == "" || strings.TrimSuffix(text, "/") != bare.String() {
		return fmt.Errorf("%s URL must be %s://host:port: %q", what, scheme, text)
	}
	return nil
}

// Encode gives the token's text: a prefix, then base64 of its fields and of a
// checksum that finds a cut or mistyped text before it costs an attempt.
func (t *EnrolmentToken) Encode() (string, error) {
	if err := t.Validate(); err != nil {
		return "", err
	}
	data, err := json.Marshal(tokenText{ //nolint:gosec // the token's text is the secret
		DeviceAPI: t.DeviceAPI, MQTT: t.MQTT, CA: t.CA[:], Root: t.Root[:],
		Secret: t.Secret, Expires: t.Expires.Unix(),
	})
	if err != nil {
		return "", fmt.Errorf("encode enrolment token: %w", err)
	}
	sum := sha256.Sum256(data)
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(append(data, sum[:tokenSumSize]...))
	if len(text) > MaxToken {
		return "", fmt.Errorf("encode enrolment token: longer than %d bytes", MaxToken)
	}
	return text, nil
}

// ParseToken reads the text of an enrolment token. White space around it is
// ignored. Every text it accepts is the one that Encode gives.
func ParseToken(text string) (*EnrolmentToken, error) {
	text = strings.TrimSpace(text)
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) > MaxToken {
		return nil, ErrToken
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil || len(raw) <= tokenSumSize {
		return nil, ErrToken
	}
	data, sum := raw[:len(raw)-tokenSumSize], raw[len(raw)-tokenSumSize:]
	if want := sha256.Sum256(data); !bytes.Equal(sum, want[:tokenSumSize]) {
		return nil, ErrToken
	}
	t, err := decodeToken(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if again, err := t.Encode(); err != nil || again != text {
		return nil, fmt.Errorf("%w: %w", ErrToken, errors.Join(err, errTokenForm))
	}
	return t, nil
}

var errTokenForm = errors.New("it is not in its canonical form")

func decodeToken(data []byte) (*EnrolmentToken, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var in tokenText
	if err := dec.Decode(&in); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errTokenForm
	}
	if len(in.CA) != DigestSize || len(in.Root) != DigestSize {
		return nil, errors.New("a digest has the wrong length")
	}
	t := &EnrolmentToken{
		DeviceAPI: in.DeviceAPI, MQTT: slices.Clone(in.MQTT),
		Secret: in.Secret, Expires: time.Unix(in.Expires, 0).UTC(),
	}
	copy(t.CA[:], in.CA)
	copy(t.Root[:], in.Root)
	return t, nil
}
