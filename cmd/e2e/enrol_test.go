package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/identity"
	"github.com/vedette-edge/vedette/agent/pull"
	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/broker"
	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/deviceapi"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// doors are the two places where devices meet the control plane.
type doors struct {
	t         *testing.T
	ca        *access.CA
	broker    *broker.Broker
	authority *access.Authority
	blobs     *artifact.Store
	api       *deviceapi.Server
}

// acquaintances takes note of no device.
type acquaintances struct{}

func (acquaintances) Enrolled(context.Context, string, map[string]string) error { return nil }

// rootOnly has one metadata file.
type rootOnly []byte

func (r rootOnly) TrustMetadata(name string) ([]byte, error) {
	if name != "root.1" {
		return nil, trust.ErrNotFound
	}
	return r, nil
}

var rootJSON = rootOnly(`{"signed":{}}`)

func openDoors(t *testing.T) *doors {
	t.Helper()
	d := &doors{t: t, ca: brokertest.CA(t)}
	d.broker = brokertest.StartAt(t, t.TempDir(), d.ca)
	bucket, err := kvstore.Open(t.Context(), d.broker.Conn(), "ACCESS")
	if err != nil {
		t.Fatal(err)
	}
	if d.authority, err = access.Open(t.Context(), access.Config{CA: d.ca, Dir: t.TempDir(), Bucket: bucket, Cut: d.broker.Disconnect}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.authority.Close)
	if d.blobs, err = artifact.Open(t.Context(), d.broker.Conn(), artifact.Config{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.blobs.Close)
	d.broker.Open(d.authority)
	d.api = deviceapi.New(deviceapi.Config{CA: d.ca, Access: d.authority, Fleet: acquaintances{}, Trust: rootJSON, Blobs: d.blobs})
	if err := d.api.Start(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.api.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return d
}

// token is what an operator would print, assembled as the CLI does.
func (d *doors) token(c operator.EnrolTokenCreate) string {
	d.t.Helper()
	c.DeviceAPI, c.MQTT = "https://"+d.api.Addr(), []string{"mqtts://" + d.broker.MQTTAddr()}
	s, err := d.authority.CreateEnrolToken(d.t.Context(), c)
	if err != nil {
		d.t.Fatal(err)
	}
	token := protocol.EnrolmentToken{
		DeviceAPI: s.DeviceAPI, MQTT: s.MQTT, Root: release.DigestOf(rootJSON), Secret: s.Secret, Expires: s.Expires,
	}
	if _, err := hex.Decode(token.CA[:], []byte(s.CASHA256)); err != nil {
		d.t.Fatal(err)
	}
	text, err := token.Encode()
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

// handshake connects to the broker; the answer to CONNECT says whether the
// device may come in.
func (d *doors) handshake(i *identity.Identity) error {
	conn, err := tls.Dial("tcp", d.broker.MQTTAddr(), i.TLS())
	if err != nil {
		return err
	}
	defer conn.Close()
	id := i.Device()
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, byte(len(id))}, id...)
	if _, err := conn.Write(append([]byte{0x10, byte(len(body))}, body...)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if answer[3] != 0 {
		return errors.New("the broker refuses the connection")
	}
	return nil
}

func (d *doors) source(i *identity.Identity) *pull.HTTP {
	transport := &http.Transport{TLSClientConfig: i.TLS()}
	d.t.Cleanup(transport.CloseIdleConnections)
	return &pull.HTTP{Client: &http.Client{Transport: transport}, Base: i.DeviceAPI()}
}

// A device's way in, and out again: both sides as they are.
func TestDeviceComesInAndIsSentAway(t *testing.T) {
	d, dir := openDoors(t), t.TempDir()
	token := d.token(operator.EnrolTokenCreate{Device: "cam-1"})
	i, err := identity.Enrol(t.Context(), dir, token, identity.Options{Root: release.DigestOf(rootJSON)})
	if err != nil {
		t.Fatal(err)
	}
	if i.Device() != "cam-1" || i.MQTT()[0] != "mqtts://"+d.broker.MQTTAddr() || i.RootDigest() != release.DigestOf(rootJSON) {
		t.Errorf("enrolled as %s at %v", i.Device(), i.MQTT())
	}
	if err := d.handshake(i); err != nil {
		t.Errorf("connect: %v", err)
	}
	d.reads(i)
	if err := i.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if i, err = identity.Load(dir); err != nil {
		t.Fatal(err)
	}
	if err := d.handshake(i); err != nil {
		t.Errorf("connect after renewal: %v", err)
	}
	d.reads(i)
	if err := i.Admitted(t.Context()); err != nil {
		t.Errorf("a device in good standing asks whether it is taken: %v", err)
	}
	if err := d.authority.RevokeDevice(t.Context(), "cam-1", "stolen"); err != nil {
		t.Fatal(err)
	}
	if err := d.handshake(i); err == nil {
		t.Error("a revoked device may connect")
	}
	if err := i.Renew(t.Context()); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("renewal of a revoked device: got %v, want ErrRevoked", err)
	}
	if err := i.Admitted(t.Context()); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("a revoked device asks whether it is taken: got %v, want ErrRevoked", err)
	}
	if _, err := d.source(i).Metadata(t.Context(), "root.1", 1000); !errors.Is(err, pull.ErrRefused) {
		t.Errorf("metadata for a revoked device: got %v, want ErrRefused", err)
	}
}

// reads fetches metadata and a blob from its middle.
func (d *doors) reads(i *identity.Identity) {
	d.t.Helper()
	data := bytes.Repeat([]byte("weights "), 100_000)
	if err := d.blobs.PutBytes(d.t.Context(), data); err != nil {
		d.t.Fatal(err)
	}
	source := d.source(i)
	if got, err := source.Metadata(d.t.Context(), "root.1", 1000); err != nil || !bytes.Equal(got, rootJSON) {
		d.t.Errorf("metadata: %q, %v", got, err)
	}
	if _, err := source.Metadata(d.t.Context(), "root.2", 1000); !errors.Is(err, trust.ErrNotFound) {
		d.t.Errorf("metadata that is not there: got %v, want ErrNotFound", err)
	}
	body, err := source.Open(d.t.Context(), release.DigestOf(data), 300_001)
	if err != nil {
		d.t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data[300_001:]) {
		d.t.Errorf("blob from its middle: %d bytes, %v", len(got), err)
	}
}

// Each refusal reaches the person at the device with what to do about it.
func TestRefusedEnrolmentsSayWhy(t *testing.T) {
	d, other := openDoors(t), openDoors(t)
	enrol := func(token string, opts identity.Options) error {
		_, err := identity.Enrol(t.Context(), t.TempDir(), token, opts)
		return err
	}
	used := d.token(operator.EnrolTokenCreate{})
	if err := enrol(used, identity.Options{Device: "cam-1"}); err != nil {
		t.Fatal(err)
	}
	parsed, err := protocol.ParseToken(d.token(operator.EnrolTokenCreate{}))
	if err != nil {
		t.Fatal(err)
	}
	change := func(fn func(*protocol.EnrolmentToken)) string {
		changed := *parsed
		fn(&changed)
		text, err := changed.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, c := range map[string]struct {
		token string
		opts  identity.Options
		want  error
	}{
		"used":         {used, identity.Options{Device: "cam-2"}, identity.ErrTokenUsed},
		"taken id":     {d.token(operator.EnrolTokenCreate{}), identity.Options{Device: "cam-1"}, identity.ErrDeviceExists},
		"wrong secret": {change(func(e *protocol.EnrolmentToken) { e.Secret = "e1.000000000000.x" }), identity.Options{Device: "cam-3"}, identity.ErrToken},
		"other server": {change(func(e *protocol.EnrolmentToken) { e.DeviceAPI = "https://" + other.api.Addr() }), identity.Options{Device: "cam-3"}, identity.ErrWrongCA},
		"other root":   {d.token(operator.EnrolTokenCreate{}), identity.Options{Device: "cam-3", Root: release.DigestOf([]byte("x"))}, identity.ErrRoot},
	} {
		if err := enrol(c.token, c.opts); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	// The id can be taken over by who is told so, and then the old device is out.
	dir := t.TempDir()
	old, err := identity.Enrol(t.Context(), dir, d.token(operator.EnrolTokenCreate{Device: "cam-9"}), identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := enrol(d.token(operator.EnrolTokenCreate{Device: "cam-9", Replace: true}), identity.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := d.handshake(old); err == nil {
		t.Error("the replaced device may connect")
	}
}
