package packages_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// shop is a web server of packages, as build.sh lays them out.
type shop struct {
	t      *testing.T
	folder string
	url    string
	deb    string // name of the package for this machine
	env    []string
}

// openShop offers a package whose content is not looked at: what is tested ends
// before it is installed.
func openShop(t *testing.T) *shop {
	t.Helper()
	need(t, "dpkg", "dpkg")
	need(t, "curl", "curl")
	arch := map[string]string{"amd64": "amd64", "arm64": "arm64"}[runtime.GOARCH]
	if arch == "" {
		t.Skipf("there are no packages for %s", runtime.GOARCH)
	}
	s := &shop{t: t, folder: t.TempDir(), deb: "vedette-agent_1.2.3+git1.abc-1_" + arch + ".deb"}
	s.put(s.deb, strings.Repeat("package ", 1000))
	s.put("vedette-agent_1.2.3+git1.abc-1_riscv64.deb", "another")
	s.put("vedette-agent-1.2.3+git1.abc-1.x86_64.rpm", "another")
	s.sign()
	server := httptest.NewServer(http.FileServer(http.Dir(s.folder)))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *shop) path(name string) string { return filepath.Join(s.folder, name) }

func (s *shop) put(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// sign lists what is there with its checksums.
func (s *shop) sign() {
	s.t.Helper()
	names, err := filepath.Glob(s.path("vedette-agent*"))
	if err != nil {
		s.t.Fatal(err)
	}
	var sums strings.Builder
	for _, n := range names {
		raw, err := os.ReadFile(n)
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(raw), filepath.Base(n))
	}
	s.put("SHA256SUMS", sums.String())
}

// install runs the script with the plainest shell there is.
func (s *shop) install(args ...string) (code int, out string) {
	s.t.Helper()
	shell := "sh"
	if _, err := exec.LookPath("dash"); err == nil {
		shell = "dash"
	}
	cmd := exec.CommandContext(s.t.Context(), shell, append([]string{filepath.Join(root(s.t), "deploy", "install.sh")}, args...)...)
	cmd.Dir = s.t.TempDir()
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + s.t.TempDir()}, s.env...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), said.String()
}

// fetched is what the script left in a folder.
func (s *shop) fetched(folder string) []string {
	s.t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestInstallScriptTakesThePackageOfThisMachine(t *testing.T) {
	s := openShop(t)
	for what, from := range map[string]string{"server": s.url, "server with a slash": s.url + "/", "folder": s.folder} {
		to := filepath.Join(t.TempDir(), "here")
		code, out := s.install("--from", from, "--download", to)
		if got := s.fetched(to); code != 0 || len(got) != 1 || got[0] != s.deb {
			t.Errorf("%s: exit code %d, fetched %v, want %s\n%s", what, code, got, s.deb, out)
		}
		if !strings.Contains(out, "verified, nothing installed") {
			t.Errorf("%s: %s", what, out)
		}
	}
	if code, out := s.install("--help"); code != 0 || !strings.Contains(out, "--enrol") || !strings.Contains(out, "never from the command line") {
		t.Errorf("--help: %d\n%s", code, out)
	}
}

// The script of the folder finds its packages beside it.
func TestInstallScriptBesideItsPackages(t *testing.T) {
	s := openShop(t)
	raw, err := os.ReadFile(filepath.Join(root(t), "deploy", "install.sh"))
	if err != nil {
		t.Fatal(err)
	}
	s.put("install.sh", string(raw))
	to := t.TempDir()
	output(t, "sh", s.path("install.sh"), "--download", to)
	if got := s.fetched(to); len(got) != 1 || got[0] != s.deb {
		t.Errorf("fetched %v", got)
	}
}

// Nothing gets by whose checksum is not the listed one.
func TestInstallScriptRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(s *shop)
		args []string // after --from URL
		want string
	}{
		"tampered": {func(s *shop) { s.put(s.deb, strings.Repeat("package!", 1000)) }, nil, "is not the listed one: it is damaged or was tampered with"},
		"cut off":  {func(s *shop) { s.put(s.deb, "package ") }, nil, "is not the listed one"},
		"empty":    {func(s *shop) { s.put(s.deb, "") }, nil, "is not the listed one"},
		"no checksums": {func(s *shop) {
			if err := os.Remove(s.path("SHA256SUMS")); err != nil {
				s.t.Fatal(err)
			}
		}, nil, "cannot get"},
		"empty checksums": {func(s *shop) { s.put("SHA256SUMS", "") }, nil, "holds no checksums"},
		"a page instead":  {func(s *shop) { s.put("SHA256SUMS", "<html>sign in</html>") }, nil, "holds no checksums"},
		"short checksum":  {func(s *shop) { s.put("SHA256SUMS", "abc  "+s.deb+"\n") }, nil, "holds no checksums"},
		"not listed":      {func(s *shop) { s.put("SHA256SUMS", strings.Repeat("a", 64)+"  other.deb\n") }, nil, "lists no package"},
		"listed, not here": {func(s *shop) {
			s.put("SHA256SUMS", strings.Repeat("a", 64)+"  "+strings.Replace(s.deb, "abc", "abd", 1)+"\n")
		}, nil, "cannot get"},
		"a way out of the folder": {func(s *shop) {
			s.put("SHA256SUMS", strings.Repeat("a", 64)+"  ../"+s.deb+"\n")
		}, nil, "lists no package"},
		"several": {func(s *shop) {
			s.put(strings.Replace(s.deb, "1.2.3", "1.3.0", 1), "newer")
			s.sign()
		}, nil, "choose one with --version"},
		"two checksums of one": {func(s *shop) {
			raw, err := os.ReadFile(s.path("SHA256SUMS"))
			if err != nil {
				s.t.Fatal(err)
			}
			s.put("SHA256SUMS", string(raw)+strings.Repeat("a", 64)+"  "+s.deb+"\n")
		}, nil, "is not the listed one"},
		"no such version":      {func(*shop) {}, []string{"--version", "9.9"}, "lists no package of version 9.9"},
		"no value":             {func(*shop) {}, []string{"--version"}, "--version needs a value"},
		"token as an argument": {func(*shop) {}, []string{"--token", "x"}, "not understood"},
	} {
		s := openShop(t)
		c.do(s)
		to := filepath.Join(t.TempDir(), "here")
		code, out := s.install(append([]string{"--from", s.url, "--download", to}, c.args...)...)
		if code != 1 || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit code %d, want 1 and %q\n%s", name, code, c.want, out)
		}
		if got := s.fetched(to); len(got) > 0 {
			t.Errorf("%s: left %v", name, got)
		}
	}
}

func TestInstallScriptChoosesAVersion(t *testing.T) {
	s := openShop(t)
	newer := strings.Replace(s.deb, "1.2.3+git1.abc", "1.3.0", 1)
	s.put(newer, "newer")
	s.sign()
	for version, want := range map[string]string{"1.3.0": newer, "1.3.0-1": newer, "1.2.3+git1.abc": s.deb} {
		to := t.TempDir()
		code, out := s.install("--from", s.url, "--version", version, "--download", to)
		if got := s.fetched(to); code != 0 || len(got) != 1 || got[0] != want {
			t.Errorf("%s: exit code %d, fetched %v, want %s\n%s", version, code, got, want, out)
		}
	}
}

// Over plain http only checksums that came another way count.
func TestInstallScriptDistrustsPlainHTTP(t *testing.T) {
	s := openShop(t)
	if code, out := s.install("--from", "http://packages.invalid", "--download", t.TempDir()); code != 1 || !strings.Contains(out, "bring the checksums with --sums") {
		t.Errorf("plain http: %d\n%s", code, out)
	}
	trusted := filepath.Join(t.TempDir(), "sums")
	raw, err := os.ReadFile(s.path("SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trusted, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s.put(s.deb, "exchanged")
	s.sign() // together with its checksum
	if code, out := s.install("--from", s.url, "--sums", trusted, "--download", t.TempDir()); code != 1 || !strings.Contains(out, "tampered") {
		t.Errorf("exchanged package and checksums: %d\n%s", code, out)
	}
}

// A server that hangs up half way leaves nothing behind.
func TestInstallScriptMeetsACutConnection(t *testing.T) {
	s := openShop(t)
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ".deb") {
			http.ServeFile(w, r, s.path(filepath.Base(r.URL.Path)))
			return
		}
		w.Header().Set("Content-Length", "8000")
		_, _ = w.Write([]byte("package ")) // the rest never comes
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			_ = conn.(*net.TCPConn).SetLinger(0) // hang up at once
			conn.Close()
		}
	}))
	defer cut.Close()
	to := filepath.Join(t.TempDir(), "here")
	code, out := s.install("--from", cut.URL, "--download", to)
	if got := s.fetched(to); code != 1 || len(got) > 0 || !strings.Contains(out, "cannot get") {
		t.Errorf("exit code %d, left %v\n%s", code, got, out)
	}
}

// A line that is there twice, as after a careless >>, is one package.
func TestInstallScriptReadsALineTwice(t *testing.T) {
	s := openShop(t)
	raw, err := os.ReadFile(s.path("SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	s.put("SHA256SUMS", string(raw)+string(raw))
	to := t.TempDir()
	if code, out := s.install("--from", s.url, "--download", to); code != 0 || len(s.fetched(to)) != 1 {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// Who pipes the script into a shell and names no place is shown the whole line.
func TestInstallScriptSaysHowItIsPiped(t *testing.T) {
	s := openShop(t)
	if code, out := s.install(); code != 1 || !strings.Contains(out, "| sh -s -- --from https://") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// An https place stays https: a redirect into the clear ends the installation,
// with curl and where only wget is there.
func TestInstallScriptStaysOnHTTPS(t *testing.T) {
	for _, client := range []string{"curl", "wget"} {
		t.Run(client, func(t *testing.T) {
			s := openShop(t)
			need(t, client, client)
			s.only(client)
			for _, c := range []struct {
				what, to string // where the server sends callers; empty serves
				ok       bool
			}{
				{"https", "", true},
				{"to http", s.url, false},
				{"to https", s.secure("").URL, client == "curl"},
			} {
				server := s.secure(c.to)
				s.trust(client, server)
				to := filepath.Join(t.TempDir(), "here")
				code, out := s.install("--from", server.URL, "--download", to)
				if got := s.fetched(to); (code == 0) != c.ok || (len(got) == 1) != c.ok {
					t.Errorf("%s: exit code %d, fetched %v, want success %v\n%s", c.what, code, got, c.ok, out)
				}
				if !c.ok && !strings.Contains(out, "from https to plain http") {
					t.Errorf("%s: %s", c.what, out)
				}
			}
		})
	}
}

// secure serves the shop over https, or sends callers to another address.
func (s *shop) secure(to string) *httptest.Server {
	h := http.FileServer(http.Dir(s.folder))
	if to != "" {
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to+r.URL.Path, http.StatusFound)
		})
	}
	server := httptest.NewTLSServer(h)
	s.t.Cleanup(server.Close)
	return server
}

// trust makes the client believe the certificate of test servers.
func (s *shop) trust(client string, server *httptest.Server) {
	s.t.Helper()
	folder := s.t.TempDir()
	ca, wgetrc := filepath.Join(folder, "ca.pem"), filepath.Join(folder, "wgetrc")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for path, content := range map[string][]byte{ca: cert, wgetrc: []byte("ca_certificate = " + ca + "\n")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	s.env = append(s.env, map[string]string{"curl": "CURL_CA_BUNDLE=" + ca, "wget": "WGETRC=" + wgetrc}[client])
}

// only leaves the script the tools it needs and one client to download with.
func (s *shop) only(client string) {
	s.t.Helper()
	folder := s.t.TempDir()
	for _, tool := range []string{client, "sh", "dpkg", "uname", "sed", "grep", "tr", "sort", "cut", "sha256sum", "mktemp", "rm", "mkdir", "mv", "cp", "dirname"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			s.t.Skipf("needs %s: %v", tool, err)
		}
		if err := os.Symlink(path, filepath.Join(folder, tool)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.env = append(s.env, "PATH="+folder)
}
