package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

func enrol(t *testing.T, p *plane, dir string) *Identity {
	t.Helper()
	i, err := Enrol(t.Context(), dir, p.token(), Options{Device: "cam-1"})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestEnrolIsKept(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	made := enrol(t, p, dir)
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []*Identity{made, loaded} {
		if i.Device() != "cam-1" || i.DeviceAPI() != p.server.URL || i.RootDigest() != root ||
			!slices.Equal(i.MQTT(), []string{"mqtts://127.0.0.1:8883"}) || i.CASHA256() != sha256.Sum256(p.ca.Raw) {
			t.Errorf("identity is %+v", i.now())
		}
	}
	if len(p.peers) > 0 {
		t.Error("a device that enrols has no certificate to show")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v; want 0600", e.Name(), info.Mode(), err)
		}
	}
	if want := []string{stateFile, timeFile}; !slices.Equal(names, want) {
		t.Errorf("files are %v, want %v", names, want)
	}
}

func TestTLSShowsTheCertificateAndPinsTheCA(t *testing.T) {
	p, other := newPlane(t), newPlane(t)
	i := enrol(t, p, t.TempDir())
	conn, err := tls.Dial("tcp", "127.0.0.1:"+p.port(), i.TLS())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := tls.Dial("tcp", "127.0.0.1:"+other.port(), i.TLS()); err == nil {
		t.Error("a server of another CA was accepted")
	}
	c := client(DefaultTimeout, i.dial)
	if _, err := post(t.Context(), c, p.server.URL+protocol.RenewPath, protocol.RenewRequest{CSR: mustCSR(t)}); err != nil {
		t.Fatal(err)
	}
	if want := i.now().pair.Leaf.SerialNumber.String(); len(p.peers) != 1 || p.peers[0] != want {
		t.Errorf("server saw certificates %v, want %s", p.peers, want)
	}
}

func mustCSR(t *testing.T) string {
	t.Helper()
	csr, err := makeCSR(newKey(t), "cam-1")
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestEnrolRefusesServers(t *testing.T) {
	p, other := newPlane(t), newPlane(t)
	misnamed := newPlane(t)
	misnamed.server.Close()
	misnamed.serve([]string{"control.example"})
	// Shows the right CA in its chain, but its certificate is not signed by it.
	impostor := newPlane(t)
	chain := impostor.server.TLS.Certificates[0]
	chain.Certificate = [][]byte{chain.Certificate[0], p.ca.Raw}
	impostor.server.TLS.Certificates[0] = chain
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"another CA":         {p.tokenFor(other.server.URL), ErrWrongCA},
		"CA shown, not used": {p.tokenFor(impostor.server.URL), ErrWrongCA},
		"another name":       {misnamed.token(), ErrWrongServer},
		"no TLS":             {p.tokenFor(strings.Replace(plain.URL, "http", "https", 1)), ErrWrongCA},
		"nobody there":       {p.tokenFor("https://" + closedPort(t)), ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := Enrol(t.Context(), dir, c.token, Options{}); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if _, err := Load(dir); !errors.Is(err, ErrNotEnrolled) {
				t.Errorf("load: got %v, want ErrNotEnrolled", err)
			}
		})
	}
	for _, q := range []*plane{p, other, impostor, misnamed} {
		if len(q.asked) > 0 {
			t.Error("the token was sent to a server that was not proven")
		}
	}
}

// closedPort is an address that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestEnrolRefusesAnswers(t *testing.T) {
	other := newPlane(t)
	for name, change := range map[string]func(*protocol.EnrolResponse){
		"another CA":      func(a *protocol.EnrolResponse) { a.CA = encode(other.ca) },
		"no CA":           func(a *protocol.EnrolResponse) { a.CA = "" },
		"no certificate":  func(a *protocol.EnrolResponse) { a.Certificate = "" },
		"bad device id":   func(a *protocol.EnrolResponse) { a.Device = "../x" },
		"another id":      func(a *protocol.EnrolResponse) { a.Device = "cam-2" },
		"CA as device":    func(a *protocol.EnrolResponse) { a.Certificate = a.CA },
		"MQTT in clear":   func(a *protocol.EnrolResponse) { a.MQTT = []string{"mqtt://x:1883"} },
		"too many broker": func(a *protocol.EnrolResponse) { a.MQTT = slices.Repeat([]string{"mqtts://x:1"}, 9) },
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newPlane(t), t.TempDir()
			p.change = change
			if _, err := Enrol(t.Context(), dir, p.token(), Options{}); !errors.Is(err, ErrAnswer) && !errors.Is(err, ErrWrongCA) {
				t.Errorf("got %v, want a refused answer", err)
			}
			if _, err := Load(dir); !errors.Is(err, ErrNotEnrolled) {
				t.Errorf("load: got %v, want ErrNotEnrolled", err)
			}
		})
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	for code, want := range map[string]error{
		protocol.CodeTokenExpired: ErrTokenExpired,
		protocol.CodeTokenUsed:    ErrTokenUsed,
		protocol.CodeTokenUnknown: ErrToken,
		protocol.CodeTokenRevoked: ErrToken,
		protocol.CodeDeviceExists: ErrDeviceExists,
		protocol.CodeTooMany:      ErrServer,
		protocol.CodeUnavailable:  ErrServer,
	} {
		p := newPlane(t)
		p.fault = func(w http.ResponseWriter) bool {
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write([]byte(`{"code":"` + code + `","message":"why"}`))
			return true
		}
		if _, err := Enrol(t.Context(), t.TempDir(), p.token(), Options{}); !errors.Is(err, want) || !strings.Contains(err.Error(), "why") {
			t.Errorf("%s: got %v, want %v and the server's reason", code, err, want)
		}
	}
	for name, body := range map[string]string{"a page": "<html>", "nothing": "", "endless": strings.Repeat("x", 1<<20)} {
		for _, status := range []int{http.StatusOK, http.StatusForbidden} {
			p := newPlane(t)
			p.fault = func(w http.ResponseWriter) bool {
				w.WriteHeader(status)
				_, _ = w.Write([]byte(body))
				return true
			}
			if _, err := Enrol(t.Context(), t.TempDir(), p.token(), Options{}); !errors.Is(err, ErrAnswer) {
				t.Errorf("%s with status %d: got %v, want ErrAnswer", name, status, err)
			}
		}
	}
}

func TestEnrolRefusesOptions(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	for name, c := range map[string]struct {
		token string
		opts  Options
		want  error
	}{
		"half a token": {p.token()[:50], Options{}, protocol.ErrToken},
		"another root": {p.token(), Options{Root: release.DigestOf([]byte("other"))}, ErrRoot},
		"bad id":       {p.token(), Options{Device: "a/b"}, protocol.ErrDeviceID},
	} {
		if _, err := Enrol(t.Context(), dir, c.token, c.opts); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if _, err := Enrol(t.Context(), dir, p.token(), Options{Root: root}); err != nil {
		t.Fatal(err)
	}
	if _, err := Enrol(t.Context(), dir, p.token(), Options{}); !errors.Is(err, ErrEnrolled) {
		t.Errorf("enrolled twice: got %v, want ErrEnrolled", err)
	}
	p.set(func() { p.device = "cam-2" })
	if i, err := Enrol(t.Context(), dir, p.token(), Options{Replace: true}); err != nil || i.Device() != "cam-2" {
		t.Errorf("enrolled anew: %v", err)
	}
}

// The power is cut at each step of an enrolment; then it is tried again.
func TestEnrolmentAfterACut(t *testing.T) {
	t.Run("answer lost", func(t *testing.T) {
		p, dir := newPlane(t), t.TempDir()
		p.fault = func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) }
		if _, err := Enrol(t.Context(), dir, p.token(), Options{}); !errors.Is(err, ErrUnreachable) {
			t.Fatalf("got %v, want ErrUnreachable", err)
		}
		p.set(func() { p.fault = nil })
		enrol(t, p, dir)
		if len(p.keys) != 2 || p.keys[0] != p.keys[1] {
			t.Error("the second try has another key: the server cannot know it for the same device")
		}
	})
	t.Run("identity not renamed", func(t *testing.T) {
		p, dir := newPlane(t), t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "."+stateFile+".123"), []byte(`{"format":1`), 0o600); err != nil {
			t.Fatal(err)
		}
		enrol(t, p, dir)
	})
	t.Run("pending key torn", func(t *testing.T) {
		p, dir := newPlane(t), t.TempDir()
		for _, data := range [][]byte{{}, make([]byte, 200), []byte("-----BEGIN PRIVATE KEY-----\nMIG")} {
			if err := os.WriteFile(filepath.Join(dir, pendingFile), data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Enrol(t.Context(), dir, p.token(), Options{Replace: true}); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("pending key not removed", func(t *testing.T) {
		p, dir := newPlane(t), t.TempDir()
		i := enrol(t, p, dir)
		if err := os.WriteFile(filepath.Join(dir, pendingFile), []byte(i.now().Key), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err != nil {
			t.Error(err)
		}
		if err := i.Renew(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDamagedIdentityIsNotReplacedByItself(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	i := enrol(t, p, dir)
	path := filepath.Join(dir, stateFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := encodeKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	swapped := *i.now()
	swapped.Key = string(otherKey)
	if err := writeState(dir, &swapped); err != nil {
		t.Fatal(err)
	}
	wrongKey, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty": {}, "zeros": make([]byte, len(whole)), "half": whole[:len(whole)/2], "key of another": wrongKey,
		"another format": bytes.Replace(whole, []byte(`"format": 1`), []byte(`"format": 2`), 1),
		"another device": bytes.Replace(whole, []byte(`"cam-1"`), []byte(`"cam-2"`), 1),
		"much too long":  bytes.Repeat([]byte(" "), maxFile+1),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || errors.Is(err, ErrNotEnrolled) {
			t.Errorf("%s: got %v, want a damaged identity", name, err)
		}
		if _, err := Enrol(t.Context(), dir, p.token(), Options{}); err == nil {
			t.Errorf("%s: enrolled over it unasked", name)
		}
	}
	if _, err := Enrol(t.Context(), dir, p.token(), Options{Replace: true}); err != nil {
		t.Error(err)
	}
}

// A certificate that connects may be refused all the same.
func TestAdmitted(t *testing.T) {
	answer := func(status int, body string) func(http.ResponseWriter) bool {
		return func(w http.ResponseWriter) bool {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	p := newPlane(t)
	i := enrol(t, p, t.TempDir())
	<-p.asked
	for name, c := range map[string]struct {
		fault func(http.ResponseWriter) bool
		want  error
	}{
		"nothing published": {nil, nil},
		"published":         {answer(http.StatusOK, "{}"), nil},
		"revoked":           {answer(http.StatusForbidden, `{"code":"revoked","message":"stolen"}`), ErrRevoked},
		"in trouble":        {answer(http.StatusInternalServerError, `{"code":"internal","message":"a fault"}`), ErrServer},
		"a proxy":           {answer(http.StatusForbidden, "<html>"), ErrAnswer},
		"answer lost":       {func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) }, ErrUnreachable},
	} {
		p.set(func() { p.fault, p.peers = c.fault, nil })
		if err := i.Admitted(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if got, want := <-p.asked, protocol.TrustPath+"timestamp.json"; got != want {
			t.Errorf("%s: asked for %s, want %s", name, got, want)
		}
		p.set(func() {
			if want := []string{i.now().pair.Leaf.SerialNumber.String()}; !slices.Equal(p.peers, want) {
				t.Errorf("%s: asked as %v, want %v", name, p.peers, want)
			}
		})
	}
}

func TestRenewTakesANewKey(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	i := enrol(t, p, dir)
	before, cfg := i.now(), i.TLS()
	if err := i.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := i.now()
	if after.Cert == before.Cert || after.Key == before.Key || after.Device != before.Device || after.Root != before.Root {
		t.Error("renewal did not change certificate and key alone")
	}
	if !slices.Equal(p.peers, []string{before.pair.Leaf.SerialNumber.String()}) {
		t.Error("the renewal was not vouched for by the old certificate")
	}
	if cfg.Certificates[0].Leaf != before.pair.Leaf || i.TLS().Certificates[0].Leaf != after.pair.Leaf {
		t.Error("TLS does not give the certificate of its moment")
	}
	loaded, err := Load(dir)
	if err != nil || loaded.now().Cert != after.Cert {
		t.Errorf("the new certificate was not kept: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, pendingFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pending key is still there: %v", err)
	}
}

func TestFailedRenewalKeepsTheOldCertificate(t *testing.T) {
	for name, c := range map[string]struct {
		order func(*plane)
		want  error
	}{
		"revoked": {func(p *plane) {
			p.fault = func(w http.ResponseWriter) bool {
				w.WriteHeader(http.StatusForbidden)
				_, _ = w.Write([]byte(`{"code":"revoked","message":"why"}`))
				return true
			}
		}, ErrRevoked},
		"answer lost":  {func(p *plane) { p.fault = func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) } }, ErrUnreachable},
		"another name": {func(p *plane) { p.device = "cam-2" }, ErrAnswer},
		"no cert":      {func(p *plane) { p.change = func(a *protocol.EnrolResponse) { a.Certificate = "" } }, ErrAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newPlane(t), t.TempDir()
			i := enrol(t, p, dir)
			before := i.now()
			p.set(func() { c.order(p) })
			if err := i.Renew(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if i.now() != before {
				t.Error("the identity changed")
			}
			p.set(func() { p.fault, p.change, p.device = nil, nil, "cam-1" })
			if err := i.Renew(t.Context()); err != nil {
				t.Errorf("renewal after it: %v", err)
			}
		})
	}
}

// A certificate of which more than two thirds are over is renewed at once, and
// the next one only when its time comes.
func TestRunRenewsInTime(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	p.begins, p.lifetime = time.Now().Add(-80*time.Hour), 100*time.Hour
	i := enrol(t, p, dir)
	<-p.asked
	p.set(func() { p.begins = time.Now() })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	if path := <-p.asked; path != protocol.RenewPath {
		t.Errorf("asked for %s", path)
	}
	deadline := time.Now().Add(10 * time.Second)
	for time.Until(i.Expires()) < 99*time.Hour {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate was not taken")
		}
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("run ended with %v", err)
	}
	if len(p.asked) > 0 {
		t.Error("a fresh certificate was renewed")
	}
}

func TestRenewalIsSpread(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	i := enrol(t, p, dir)
	leaf := i.now().pair.Leaf
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	seen := map[time.Time]bool{}
	for range 100 {
		due := i.due()
		seen[due] = true
		share := float64(due.Sub(leaf.NotBefore)) / float64(life)
		if share < 0.64 || share > 0.70 {
			t.Errorf("due after %.2f of its life, want about 2/3", share)
		}
	}
	if len(seen) < 90 {
		t.Errorf("only %d different moments in 100", len(seen))
	}
	for failures := 1; failures < 100; failures++ {
		if wait := backoff(failures); wait < retryMin/2 || wait > retryMax+retryMin {
			t.Errorf("wait after %d failures is %s", failures, wait)
		}
	}
}

func TestClock(t *testing.T) { synctest.Test(t, testClock) }

func testClock(t *testing.T) {
	t.Helper()
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	limit := year(2036)
	open := func(dir string, now time.Time) *clock {
		return openClock(dir, Config{Now: func() time.Time { return now }}.withDefaults(), limit)
	}
	dir := t.TempDir()
	if got := open(dir, year(1970)).Now(); !got.Equal(buildTime()) {
		t.Errorf("without a clock: %s, want the build time", got)
	}
	if got := open(dir, year(2030)).Now(); !got.Equal(year(2030)) {
		t.Errorf("with a good clock: %s, want it", got)
	}
	c := open(dir, year(1970))
	for _, ms := range []int64{-1, 0, year(2000).UnixMilli(), year(2037).UnixMilli(), 1 << 62} {
		c.Trust(ms)
	}
	if got := c.Now(); !got.Equal(buildTime()) {
		t.Errorf("an unbelievable time was believed: %s", got)
	}
	c.Trust(year(2028).UnixMilli())
	if got := c.Now(); !got.Equal(year(2028)) {
		t.Errorf("told 2028: %s", got)
	}
	c.Trust(year(2027).UnixMilli())
	if got := open(dir, year(1970)).Now(); !got.Equal(year(2028)) {
		t.Errorf("after a restart: %s, want 2028", got)
	}
	for _, torn := range []string{"", "x", "99999999999999999999", "\x00\x00\x00\x00", "9999999999999999"} {
		if err := os.WriteFile(filepath.Join(dir, timeFile), []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := open(dir, year(1970)).Now(); !got.Equal(buildTime()) {
			t.Errorf("file %q: %s, want the build time", torn, got)
		}
	}
}

func TestTrustedTimeGoesOnAndIsSavedSeldom(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		// The bubble's clock begins in 2000, as a device's without a battery may.
		c := openClock(dir, Config{}.withDefaults(), time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC))
		told := time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)
		c.Trust(told.UnixMilli())
		saved := func() string {
			data, err := os.ReadFile(filepath.Join(dir, timeFile))
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
		first := saved()
		time.Sleep(time.Minute)
		if got, want := c.Now(), told.Add(time.Minute); !got.Equal(want) {
			t.Errorf("a minute later it is %s, want %s", got, want)
		}
		c.Trust(told.Add(2 * time.Minute).UnixMilli())
		if saved() != first {
			t.Error("saved again after two minutes")
		}
		c.Trust(told.Add(6 * time.Minute).UnixMilli())
		if saved() == first {
			t.Error("not saved after six minutes")
		}
	})
}

func TestLoadWithoutAnIdentity(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("got %v, want ErrNotEnrolled", err)
	}
}
