package packages_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// root is the top of the checkout.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// need skips a test without a tool, and says how to get it.
func need(t *testing.T, tool, debian string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("needs %s: apt-get install %s", tool, debian)
	}
}

// output runs a program to its end.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// build makes packages of this machine's architecture into a folder. The two
// passes of `make test` would build the same: the second leaves it to the first.
func build(t *testing.T, formats ...string) string {
	t.Helper()
	if os.Getenv("CGO_ENABLED") == "0" {
		t.Skip("the agent needs cgo")
	}
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skipf("there are no packages for %s", runtime.GOARCH)
	}
	if _, err := os.Stat(filepath.Join(root(t), "build", "onnxruntime", "libonnxruntime.so.1")); err != nil {
		t.Fatalf("%v: run `make setup`", err)
	}
	folder := t.TempDir()
	args := []string{folder}
	for _, f := range formats {
		args = append(args, f+"/"+runtime.GOARCH)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(root(t), "deploy", "packages", "build.sh"), args...)
	cmd.Env = append(os.Environ(), "WORK="+t.TempDir(), "VERSION=1.2.3", "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	return folder
}

// one finds the only file that the pattern names.
func one(t *testing.T, folder, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: found %v, %v; want one", pattern, found, err)
	}
	return found[0]
}

// contents is what every package installs.
var contents = []string{
	"/etc/vedette/agent.yaml",
	"/usr/bin/vedette-agent",
	"/usr/lib/systemd/system/vedette-agent.service",
	"/usr/lib/sysusers.d/vedette-agent.conf",
	"/usr/lib/vedette/libonnxruntime.so.1",
	"/usr/lib/vedette/libonnxruntime.so.1.sha256",
	"/usr/share/bash-completion/completions/vedette-agent",
	"/usr/share/doc/vedette-agent/copyright",
	"/usr/share/fish/vendor_completions.d/vedette-agent.fish",
	"/usr/share/man/man1/vedette-agent-doctor.1.gz",
	"/usr/share/man/man1/vedette-agent-run.1.gz",
	"/usr/share/man/man1/vedette-agent.1.gz",
	"/usr/share/vedette/accelerator.conf",
	"/usr/share/zsh/vendor-completions/_vedette-agent",
}

// The same commit gives the same bytes, and the packages hold what they should.
func TestPackages(t *testing.T) {
	folder := build(t, "deb", "rpm")
	t.Run("deb", func(t *testing.T) { checkDeb(t, one(t, folder, "*.deb")) })
	t.Run("rpm", func(t *testing.T) { checkRPM(t, one(t, folder, "*.rpm")) })
	t.Run("installed agent", func(t *testing.T) { checkUnpacked(t, one(t, folder, "*.deb")) })
	t.Run("again", func(t *testing.T) {
		again := build(t, "deb", "rpm")
		for _, file := range []string{"SHA256SUMS", "install.sh"} {
			a, err := os.ReadFile(filepath.Join(folder, file))
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(again, file))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a, b) {
				t.Errorf("%s differs between two builds:\n%s\n%s", file, a, b)
			}
		}
		if out := output(t, "sh", "-c", "cd '"+again+"' && sha256sum --strict -c SHA256SUMS"); strings.Count(out, ": OK") != 3 {
			t.Errorf("checksums: %s", out)
		}
	})
}

func checkDeb(t *testing.T, file string) {
	t.Helper()
	need(t, "dpkg-deb", "dpkg")
	list := output(t, "dpkg-deb", "--contents", file)
	for _, path := range contents {
		if !strings.Contains(list, " ."+path+"\n") {
			t.Errorf("the package lacks %s:\n%s", path, list)
		}
	}
	for line := range strings.SplitSeq(strings.TrimSpace(list), "\n") {
		if !strings.Contains(line, " root/root ") || strings.Contains(line[:10], "s") || line[8] == 'w' {
			t.Errorf("owner or mode: %s", line)
		}
	}
	for field, want := range map[string]string{"Version": "1.2.3-1", "Package": "vedette-agent", "Architecture": runtime.GOARCH} {
		if got := strings.TrimSpace(output(t, "dpkg-deb", "--field", file, field)); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	if depends := output(t, "dpkg-deb", "--field", file, "Depends"); !regexp.MustCompile(`libc6 \(>= 2\.\d+\), libstdc\+\+6`).MatchString(depends) {
		t.Errorf("depends on %q", depends)
	}
	if got := output(t, "dpkg-deb", "--info", file, "conffiles"); got != "/etc/vedette/agent.yaml\n" {
		t.Errorf("configuration files %q", got)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		path := filepath.Join(t.TempDir(), script)
		if err := os.WriteFile(path, []byte(output(t, "dpkg-deb", "--info", file, script)), 0o600); err != nil {
			t.Fatal(err)
		}
		output(t, "sh", "-n", path)
	}
}

func checkRPM(t *testing.T, file string) {
	t.Helper()
	need(t, "rpm", "rpm")
	list := strings.Split(output(t, "rpm", "-qlp", "--noplugins", file), "\n")
	for _, path := range contents {
		if !slices.Contains(list, path) {
			t.Errorf("the package lacks %s:\n%s", path, strings.Join(list, "\n"))
		}
	}
	format := "%{NAME} %{VERSION}-%{RELEASE} %{ARCH} %{BUILDHOST} %{BUILDTIME}\n"
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if got, want := output(t, "rpm", "-qp", "--queryformat", format, file), fmt.Sprintf("vedette-agent 1.2.3-1 %s vedette 1700000000\n", arch); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := output(t, "rpm", "-qcp", file); got != "/etc/vedette/agent.yaml\n" {
		t.Errorf("configuration files %q", got)
	}
	if got := output(t, "rpm", "-K", "--nosignature", file); !strings.Contains(got, "OK") {
		t.Errorf("digests: %s", got)
	}
}

// checkUnpacked runs what the package holds from where it was unpacked: the
// program finds its library, and takes the configuration that comes with it.
func checkUnpacked(t *testing.T, file string) {
	t.Helper()
	need(t, "dpkg-deb", "dpkg")
	dir := t.TempDir()
	output(t, "dpkg-deb", "--extract", file, dir)
	t.Setenv("VEDETTE_ONNXRUNTIME", "")
	agent := filepath.Join(dir, "usr", "bin", "vedette-agent")
	if got := output(t, agent, "version"); !strings.Contains(got, "vedette-agent 1.2.3\n") || !strings.Contains(got, filepath.Join(dir, "usr", "lib", "vedette", "libonnxruntime.so.1")) {
		t.Errorf("version: %s", got)
	}
	if got := output(t, agent, "run", "--check", "--config", filepath.Join(dir, "etc", "vedette", "agent.yaml")); !strings.Contains(got, "/run/vedette/agent.sock") {
		t.Errorf("configuration: %s", got)
	}
	if got := output(t, "sh", "-c", "gzip -dc '"+dir+"'/usr/share/man/man1/vedette-agent-run.1.gz"); !strings.Contains(got, "VEDETTE-AGENT-RUN") {
		t.Errorf("manual: %s", got)
	}
	sums := filepath.Join(dir, "usr", "lib", "vedette")
	output(t, "sh", "-c", "cd '"+sums+"' && sha256sum --strict -c libonnxruntime.so.1.sha256")
}

// What systemd 252 does not know yet and ignores.
var newer = regexp.MustCompile(`(?m)^.*Unknown key( name)? 'Restart(Steps|MaxDelaySec)' in section.*\n?`)

// systemd understands the unit, and finds it well shut off.
func TestUnit(t *testing.T) {
	need(t, "systemd-analyze", "systemd")
	raw, err := os.ReadFile(filepath.Join(root(t), "deploy", "systemd", "vedette-agent.service"))
	if err != nil {
		t.Fatal(err)
	}
	// The program and its manual are not installed here.
	text := regexp.MustCompile(`(?m)^(ExecStart=)\S+|^Documentation=.*\n`).ReplaceAllString(string(raw), "${1}")
	text = strings.Replace(text, "ExecStart= run", "ExecStart=/bin/true run", 1)
	unit := filepath.Join(t.TempDir(), "vedette-agent.service")
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dropIn := unit + ".d"
	if err := os.Mkdir(dropIn, 0o700); err != nil {
		t.Fatal(err)
	}
	accelerator, err := os.ReadFile(filepath.Join(root(t), "deploy", "systemd", "accelerator.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what      string
		dropIn    []byte
		threshold string
	}{{"as installed", nil, "15"}, {"with an accelerator", accelerator, "30"}} {
		if c.dropIn != nil {
			if err := os.WriteFile(filepath.Join(dropIn, "accelerator.conf"), c.dropIn, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, _ := exec.CommandContext(t.Context(), "systemd-analyze", "verify", unit).CombinedOutput() // what it says counts
		if left := newer.ReplaceAll(out, nil); len(bytes.TrimSpace(left)) > 0 {
			t.Errorf("%s: %s", c.what, left)
		}
		out, err = exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+c.threshold, unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s: more exposed than %s: %v\n%s", c.what, c.threshold, err, out)
		}
	}
}
