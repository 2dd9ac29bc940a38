package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/identity"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Who may not come in is told why and what to do; who is sent away is out at
// once; and what a device sends that is too large costs that device its
// connection and nobody anything else.
func TestBadDevicesAreRefused(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	t.Run("tokens", p.refusedTokens)
	t.Run("revoked", p.revoked)
	t.Run("oversized message", p.oversized)
}

func (p *plant) refusedTokens(t *testing.T) {
	p = p.in(t)
	enrol := func(token, state string) outcome {
		return p.run("vedette-agent", "enrol", token, "--state", p.path(state))
	}
	used := p.token("cam-1")
	enrol(used, "cam-1").ok()
	enrol(used, "cam-2").refused("the control plane refused the token", "it was used already", "create a new one", "token_used")
	enrol(used[:len(used)-9], "cam-2").refused("not a whole enrolment token", "copy it again")

	taken := strings.TrimSpace(p.vedette("device", "token", "create", "-q").ok())
	p.run("vedette-agent", "enrol", taken, "--device", "cam-1", "--state", p.path("cam-2")).refused("the device id is taken", "--replace", "device_exists")

	withdrawn := p.token("cam-2")
	tokens, err := p.client.EnrolTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range tokens {
		if token.Device == "cam-2" {
			p.vedette("device", "token", "revoke", token.ID).ok()
		}
	}
	enrol(withdrawn, "cam-2").refused("the control plane refused the token", "create a new one")

	// What another control plane made, or somebody who wants to be one.
	forged := reworked(t, p.token("cam-3"), func(e *protocol.EnrolmentToken) { e.CA[0] ^= 1 })
	enrol(forged, "cam-2").refused("another certificate authority answered", "check the address")

	// The right token for the folder that was refused so often: it is whole.
	enrol(p.token("cam-2", "--replace"), "cam-2").ok()
	if got, err := p.client.Device(t.Context(), "cam-2"); err != nil || marked(got, operator.MarkRevoked) {
		t.Errorf("after all: %+v, %v", got, err)
	}
}

func marked(d *operator.DeviceDetail, kind string) bool {
	return slices.ContainsFunc(d.Marks, func(m operator.Mark) bool { return m.Kind == kind })
}

// reworked changes what a token says.
func reworked(t *testing.T, token string, change func(*protocol.EnrolmentToken)) string {
	t.Helper()
	parsed, err := protocol.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	change(parsed)
	text, err := parsed.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The shortest life a token can have is a minute.
func TestExpiredTokenIsRefused(t *testing.T) {
	t.Parallel()
	if os.Getenv("VEDETTE_FULL") != "1" {
		t.Skip("waits for a minute: run it with 'make test-full' (VEDETTE_FULL=1)")
	}
	p := newPlant(t)
	token := p.token("cam-1", "--ttl", "1m")
	p.eventually(2*time.Minute, "the token to expire", func() error {
		tokens, err := p.client.EnrolTokens(t.Context())
		if err == nil && (len(tokens) != 1 || time.Now().Before(tokens[0].Expires)) {
			err = errors.New("it has not")
		}
		return err
	})
	p.run("vedette-agent", "enrol", token, "--state", p.path("cam-1")).refused("the control plane refused the token", "expired", "create a new one")
	p.run("vedette-agent", "enrol", p.token("cam-1"), "--state", p.path("cam-1")).ok()
}

// revoked sends a connected device away.
func (p *plant) revoked(t *testing.T) {
	c := p.in(t).enrolled("cam-r", p.path("cam-r"))
	c.boot()
	c.online()
	c.vedette("device", "revoke", "cam-r", "--reason", "stolen").ok()
	c.eventually(20*time.Second, "the device to know why it is cut off", func() error {
		s, err := c.status()
		if err == nil && (s.Agent.Uplink.Connected || !strings.Contains(s.Agent.Uplink.Error, "not revoked")) {
			err = fmt.Errorf("uplink is %+v", s.Agent.Uplink)
		}
		return err
	})
	if log := c.agent.said(); !strings.Contains(log, "not revoked") {
		t.Errorf("the device's log does not say why it is cut off:\n%s", log)
	}
	got, err := c.client.Device(t.Context(), "cam-r")
	if err != nil || got.Presence != operator.Offline || !marked(got, operator.MarkRevoked) {
		t.Errorf("the revoked device: %+v, %v", got, err)
	}
	c.agent.stop()
	i, err := identity.Load(filepath.Join(c.state, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: i.TLS()}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get(i.DeviceAPI() + "/device/v1/trust/root.1.json")
	if err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("metadata for a revoked device: %s", res.Status)
		}
	}
}

// oversized sends what no agent would, with a device's own certificate.
func (p *plant) oversized(t *testing.T) {
	c := p.in(t).enrolled("cam-o", p.path("cam-o"))
	for what, size := range map[string]int{"a byte over the limit": protocol.MaxPayload + 1, "far over the limit": 4 << 20} {
		conn := c.mqtt()
		payload := bytes.Repeat([]byte{'x'}, size)
		// The write may fail half way: the broker does not read to the end.
		_ = publish(conn, protocol.UpTopic(c.id), payload)
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err := io.Copy(io.Discard, conn)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			t.Errorf("%s: the connection is not cut", what)
		}
	}
	if err := p.server.died(); err != nil {
		t.Fatal(err)
	}
	c.boot()
	c.online()
	c.agent.stop()
}

// mqtt connects as the device's agent would.
func (c *camera) mqtt() net.Conn {
	c.t.Helper()
	i, err := identity.Load(filepath.Join(c.state, "identity"))
	if err != nil {
		c.t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", c.where.MQTT, i.TLS())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	hello := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, byte(len(c.id))}, c.id...)
	answer := make([]byte, 4)
	if err := send(conn, 0x10, hello); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, answer); err != nil || answer[3] != 0 {
		c.t.Fatalf("connect: %v %v", answer, err)
	}
	return conn
}

// publish sends one message of QoS 1.
func publish(w io.Writer, topic string, payload []byte) error {
	body := append(binary.BigEndian.AppendUint16(nil, uint16(len(topic))), topic...)
	body = append(append(body, 0, 1), payload...)
	return send(w, 0x32, body)
}

func send(w io.Writer, header byte, body []byte) error {
	_, err := w.Write(append(binary.AppendUvarint([]byte{header}, uint64(len(body))), body...))
	return err
}

// A second control plane is refused, wherever it would meet the first one, and
// the first one does not notice.
func TestSecondControlPlaneIsRefused(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	second := func(data, http, devices, mqtt string) outcome {
		return p.run("vedette-control", "run", "--data", p.path(data), "--http", http, "--devices", devices, "--mqtt", mqtt)
	}
	const free = "127.0.0.1:0"
	second("second", p.where.HTTP, free, free).refused(p.where.HTTP, "another control plane may be running", "--http")
	second("second", free, p.where.Devices, free).refused(p.where.Devices, "another control plane may be running", "--devices")
	second("second", free, free, p.where.MQTT).refused(p.where.MQTT, "another control plane or broker may be running here", "choose another address")
	second("control", free, free, free).refused("in use by another process", fmt.Sprintf("process %d", p.server.cmd.Process.Pid), "another data directory")

	told := p.read("control", "addresses.json")
	if !strings.Contains(told, p.where.HTTP) {
		t.Errorf("the first one's addresses are now %s", told)
	}
	p.published("1")
	p.server.stop()
	if after := p.start("vedette-control", "run", "--data", p.path("second"), "--http", p.where.HTTP, "--devices", free, "--mqtt", free); after.died() == nil {
		p.eventually(20*time.Second, "the second to take over the port", func() error {
			_, err := os.Stat(p.path("second", "addresses.json"))
			return errors.Join(err, after.died())
		})
		after.stop()
	}
}

// A row with a missing or non-numeric field is named by number and column; it
// ends the run or is left out, as asked.
func TestBadRowsAreNamed(t *testing.T) {
	t.Parallel()
	p := &plant{t: t, bin: bin(t), dir: t.TempDir()}
	folder := p.profiled("1", "digits")
	rows, err := os.ReadFile(filepath.Join(models(t), "heldout.csv"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(rows)), "\n")[:6] // header and five rows
	spoil := func(line int, column, with string) string {
		spoilt := append([]string(nil), lines...)
		for i, name := range strings.Split(lines[0], ",") {
			fields := strings.Split(spoilt[line], ",")
			if name == column {
				fields[i] = with
				spoilt[line] = strings.Join(fields, ",")
			}
		}
		return strings.Join(spoilt, "\n") + "\n"
	}
	score := func(file, to string, more ...string) outcome {
		args := []string{
			"score", file, "--graph", filepath.Join(folder, "digits.onnx"), "--schema", filepath.Join(folder, "schema.json"), "--to", p.path(to),
		}
		return p.run("vedette-agent", append(args, more...)...)
	}
	for name, c := range map[string]struct{ file, says string }{
		"non-numeric": {spoil(3, "p05", "bright"), `row 3 (line 4), column "p05": "bright" is not a number`},
		"missing":     {spoil(5, "p63", ""), `row 5 (line 6), column "p63"`},
	} {
		file := p.write([]byte(c.file), name+".csv")
		score(file, name+".fail").refused(c.says, "--on-error")
		if _, err := os.Stat(p.path(name + ".fail")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: half an output is left: %v", name, err)
		}
		skipped := score(file, name+".skip", "--on-error", "skip")
		skipped.ok()
		if !strings.Contains(skipped.errOut, c.says) || !strings.Contains(skipped.errOut, "4 scored, 1 skipped") {
			t.Errorf("%s, skipped: the summary is\n%s", name, skipped.errOut)
		}
		if got := strings.Count(p.read(name+".skip"), "\n"); got != 5 {
			t.Errorf("%s, skipped: %d lines were written, want a header and 4 rows", name, got)
		}
	}
}
