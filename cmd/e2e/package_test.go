package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// debian is a Debian of its own in a folder, where packages are installed as on
// a device. It has no systemd running.
type debian struct {
	*plant

	root string
}

// packagesAsked says that `make test-package` runs: making a Debian takes a
// minute and a mirror.
const packagesAsked = "VEDETTE_PACKAGES"

// newDebian makes one from this machine's mirror with some more packages, or
// skips.
func newDebian(p *plant, packages ...string) *debian {
	p.t.Helper()
	if os.Getuid() != 0 {
		p.t.Skip("needs root, to make a Debian of its own: sudo make test-package")
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		p.t.Skip("needs debootstrap: apt-get install debootstrap")
	}
	suite, mirror := distribution(p.t)
	d := &debian{plant: p, root: p.path("debian")}
	cmd := exec.CommandContext(p.t.Context(), "debootstrap", "--variant=minbase", "--include="+strings.Join(append(packages, "libstdc++6"), ","), suite, d.root, mirror)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("debootstrap %s from %s: %v\n%s", suite, mirror, err, out)
	}
	return d
}

// distribution is this machine's Debian and where it comes from.
func distribution(t *testing.T) (suite, mirror string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "apt-get", "indextargets", "--format", "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		t.Skipf("needs Debian with apt-get: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) == 4 && f[0] == "Debian" && f[1] == "main" && !strings.Contains(f[2], "-") {
			return f[2], f[3]
		}
	}
	t.Skip("needs a Debian mirror in apt's sources, and `apt-get update`")
	return "", ""
}

// inside prepares a command in the Debian, as root or another user. It is in the
// place of this process's child: signals reach it.
func (d *debian) inside(ctx context.Context, user, name string, args ...string) *exec.Cmd {
	const enter = `root=$1 user=$2; shift 2; mount -t proc proc "$root/proc" && exec chroot --userspec="$user" "$root" "$@"`
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "sh", "-c", enter, "enter", d.root, user + ":" + user, name}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"}
	return cmd
}

// run runs a command as root in the Debian to its end.
func (d *debian) run(stdin, name string, args ...string) outcome {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := d.inside(ctx, "root", name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		d.t.Fatalf("%s: %v", name, err)
	}
	return outcome{d.t, name + " " + strings.Join(args, " "), cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

func (d *debian) at(path string) string { return filepath.Join(d.root, path) }

// is checks whether there is something at a path.
func (d *debian) is(path string, want bool) {
	d.t.Helper()
	if _, err := os.Lstat(d.at(path)); errors.Is(err, fs.ErrNotExist) == want {
		d.t.Errorf("%s is there: %v, want %v", path, err == nil, want)
	}
}

// offer builds the packages of a version into the Debian's /srv.
func (d *debian) offer(version string) (folder string) {
	d.t.Helper()
	build, err := filepath.Abs(filepath.Join("..", "..", "deploy", "packages", "build.sh"))
	if err != nil {
		d.t.Fatal(err)
	}
	folder = "/srv/" + version
	cmd := exec.CommandContext(d.t.Context(), build, d.at(folder), "deb/"+runtime.GOARCH)
	cmd.Env = append(os.Environ(), "VERSION="+version, "WORK="+d.path("stage"))
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("build %s: %v\n%s", version, err, out)
	}
	return folder
}

// install runs the install script of a folder.
func (d *debian) install(folder, stdin string, flags ...string) string {
	d.t.Helper()
	o := d.run(stdin, "sh", append([]string{folder + "/install.sh"}, flags...)...)
	o.ok()
	return o.errOut
}

// version is what the installed agent says it is.
func (d *debian) version(want string) {
	d.t.Helper()
	if got := d.run("", "vedette-agent", "version").ok(); !strings.Contains(got, "vedette-agent "+want+"\n") || !strings.Contains(got, "/usr/lib/vedette/libonnxruntime.so.1") {
		d.t.Errorf("version: %q, want %s", got, want)
	}
}

// service starts the agent as systemd would: as its user, with the directory
// for its socket.
func (d *debian) service(c *camera) {
	d.t.Helper()
	d.run("", "install", "-d", "-o", "vedette", "-g", "vedette", "-m", "0750", "/run/vedette").ok()
	cmd := d.inside(context.Background(), "vedette", "/usr/bin/vedette-agent", "run")
	cmd.Env = append(cmd.Env, "VEDETTE_LISTEN="+c.listen)
	c.agent = d.launch("service", cmd)
	c.eventually(30*time.Second, "the service to answer", func() error {
		if err := c.agent.died(); err != nil {
			return err
		}
		_, err := c.status()
		return err
	})
}

// owned checks whom the state belongs to: nobody but the service may look in.
func (d *debian) owned() {
	d.t.Helper()
	want := strings.TrimSpace(d.run("", "id", "-u", "vedette").ok())
	err := filepath.WalkDir(d.at("/var/lib/vedette"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || strconv.FormatUint(uint64(st.Uid), 10) != want || info.Mode().Perm()&0o077 != 0 && e.IsDir() {
			d.t.Errorf("%s: mode %v, owner %d, want %s", path, info.Mode(), st.Uid, want)
		}
		return nil
	})
	if err != nil {
		d.t.Error(err)
	}
}

// A package lives through what a package goes through, with the agent at work:
// installed and enrolled by the script, upgraded, downgraded, removed, installed
// again and purged. State and an operator's configuration stay until the purge.
func TestPackageOnDebian(t *testing.T) {
	if os.Getenv(packagesAsked) == "" {
		t.Skip("takes minutes and a mirror: make test-package")
	}
	p := newPlant(t)
	p.settings()
	want := p.published("1")
	d := newDebian(p)
	old, newer := d.offer("1.0.0"), d.offer("1.1.0")

	said := d.install(old, p.token("cam-1")+"\n", "--enrol")
	if !strings.Contains(said, "installed vedette-agent_1.0.0") || !strings.Contains(said, "systemd does not run here") {
		t.Errorf("the script said\n%s", said)
	}
	d.version("1.0.0")
	d.owned()
	c := &camera{plant: p, id: "cam-1", state: d.at("/var/lib/vedette"), listen: freeAddress(t)}
	d.configure(c.listen)
	d.service(c)
	c.online()
	p.ends(p.rollOut("1"), operator.RolloutCompleted)
	c.serves(30*time.Second, want)
	d.healthy("serving digits 1", c)
	c.agent.stop()

	d.install(newer, "")
	d.version("1.1.0")
	d.service(c)
	c.serves(30*time.Second, want)
	c.agent.stop()

	d.install(old, "")
	d.version("1.0.0")
	d.configured(c.listen)
	d.service(c)
	c.serves(30*time.Second, want)
	c.agent.stop()
	d.owned()

	d.run("", "dpkg", "--remove", "vedette-agent").ok()
	d.is("/usr/bin/vedette-agent", false)
	d.is("/usr/lib/vedette/libonnxruntime.so.1", false)
	d.is("/var/lib/vedette/identity/identity.json", true)
	d.configured(c.listen)

	d.install(newer, "")
	d.service(c)
	c.serves(30*time.Second, want)
	c.agent.stop()

	d.run("", "dpkg", "--purge", "vedette-agent").ok()
	for _, path := range []string{"/var/lib/vedette", "/etc/vedette", "/run/vedette", "/usr/bin/vedette-agent", "/usr/lib/vedette"} {
		d.is(path, false)
	}
	if o := d.run("", "id", "vedette"); o.code == 0 {
		t.Errorf("the user is still there: %s", o.out)
	}
	if got := d.run("", "sh", "-c", "find / -xdev -name '*vedette*' -not -path '/srv/*' -not -path '/proc/*'").ok(); got != "" {
		t.Errorf("left behind:\n%s", got)
	}
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// configure changes the configuration as an operator does.
func (d *debian) configure(listen string) {
	d.t.Helper()
	f, err := os.OpenFile(d.at("/etc/vedette/agent.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(f, "listen: %s\n", listen); err != nil {
		d.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		d.t.Fatal(err)
	}
}

// configured checks that the operator's change is still there.
func (d *debian) configured(listen string) {
	d.t.Helper()
	raw, err := os.ReadFile(d.at("/etc/vedette/agent.yaml"))
	if err != nil || !strings.Contains(string(raw), "listen: "+listen+"\n") {
		d.t.Errorf("the operator's configuration is gone: %v\n%s", err, raw)
	}
}

// healthy checks that doctor and status find the agent where the configuration
// says, and nothing wrong with it.
func (d *debian) healthy(serving string, c *camera) {
	d.t.Helper()
	o := d.run("", "vedette-agent", "doctor")
	for _, part := range []string{"/etc/vedette/agent.yaml is valid", "can be written, and by nobody else", "takes the certificate of " + c.id, serving, " 0 failed"} {
		if !strings.Contains(o.ok(), part) {
			d.t.Errorf("doctor lacks %q:\n%s", part, o.out)
		}
	}
	if got := d.run("", "vedette-agent", "status").ok(); !strings.Contains(got, c.id) {
		d.t.Errorf("status: %s", got)
	}
	if got := d.run("", "vedette-agent", "status", "--socket", "/run/vedette/agent.sock").ok(); !strings.Contains(got, c.id) {
		d.t.Errorf("status over the socket: %s", got)
	}
}
