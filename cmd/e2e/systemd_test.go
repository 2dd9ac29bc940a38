package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// bootScript starts systemd in namespaces and cgroups of its own: $1 is the root
// to boot, $2 the name of the cgroup. Below it systemd makes what it needs, and
// sees nothing above.
const bootScript = `
root=$1 group=$2
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	mkdir /sys/fs/cgroup/$group && echo $$ >/sys/fs/cgroup/$group/cgroup.procs || exit 1
else
	for h in systemd memory pids unified; do
		[ ! -d /sys/fs/cgroup/$h ] || { mkdir /sys/fs/cgroup/$h/$group && echo $$ >/sys/fs/cgroup/$h/$group/cgroup.procs; } || exit 1
	done
fi
exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup sh -ec '
	root=$1
	mount --make-rprivate /
	mount --bind "$root" "$root"
	mount -t proc proc "$root/proc"
	mount -t sysfs sysfs "$root/sys"
	mount -t tmpfs tmpfs "$root/run"
	mount --bind /dev "$root/dev"
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
	else
		mount -t tmpfs -o mode=755 cgroups "$root/sys/fs/cgroup"
		mkdir "$root/sys/fs/cgroup/systemd"
		mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
		for h in memory pids; do
			mkdir "$root/sys/fs/cgroup/$h"
			mount -t cgroup -o $h cgroup "$root/sys/fs/cgroup/$h"
		done
	fi
	exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" /lib/systemd/systemd --system systemd.unit=multi-user.target
' boot "$root"
`

// booted is a Debian in which systemd runs.
type booted struct {
	*debian

	systemd int // its process
}

// boot starts the Debian's systemd, or skips where the machine lets nobody.
func (d *debian) boot() *booted {
	d.t.Helper()
	group := "vedette-test-" + strconv.Itoa(os.Getpid())
	machine := d.launch("systemd", exec.CommandContext(context.Background(), "sh", "-c", bootScript, "boot", d.root, group))
	d.t.Cleanup(func() {
		machine.kill()
		err := removeGroups(group)
		for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); err = removeGroups(group) {
			time.Sleep(50 * time.Millisecond) // what ran there is ending
		}
		if err != nil {
			d.t.Error(err)
		}
	})
	b := &booted{debian: d}
	var said string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err := machine.died(); err != nil {
			d.t.Skipf("needs a machine on which systemd may run in namespaces: %v", err)
		}
		pid := strconv.Itoa(machine.cmd.Process.Pid)
		children, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
		if err != nil || len(strings.Fields(string(children))) != 1 {
			continue
		}
		if b.systemd, err = strconv.Atoi(strings.Fields(string(children))[0]); err != nil {
			d.t.Fatal(err)
		}
		if said = b.ctl("is-system-running").out; said == "running\n" || said == "degraded\n" {
			return b
		}
	}
	d.t.Skipf("needs a machine on which systemd may run in namespaces; here it is %q\n%s", said, machine.said())
	return nil
}

// removeGroups removes what the machine has left of its cgroups.
func removeGroups(group string) error {
	for _, pattern := range []string{"/sys/fs/cgroup/" + group, "/sys/fs/cgroup/*/" + group} {
		tops, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, top := range tops {
			var dirs []string
			_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error { // what cannot be read cannot be removed, below
				if err == nil && e.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for _, dir := range slices.Backward(dirs) {
				if err := os.Remove(dir); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// exec runs a command as root beside systemd.
func (b *booted) exec(stdin, name string, args ...string) outcome {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(b.systemd), "--all", "--root", "--wd", name}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run() // the exit code tells
	return outcome{b.t, name + " " + strings.Join(args, " "), cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

func (b *booted) ctl(args ...string) outcome {
	b.t.Helper()
	return b.exec("", "systemctl", args...)
}

// unit is what systemd says of the service.
func (b *booted) unit() map[string]string {
	b.t.Helper()
	p := map[string]string{}
	out := b.ctl("show", "vedette-agent", "--property=ActiveState,SubState,Result,MainPID,NRestarts,StatusText,ConditionResult,ExecMainStatus").ok()
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		p[name] = value
	}
	return p
}

// becomes waits until the service is as wanted.
func (b *booted) becomes(what string, want map[string]string) map[string]string {
	b.t.Helper()
	var p map[string]string
	b.watch(100*time.Millisecond, time.Minute, "the service to be "+what, func() error {
		p = b.unit()
		for name, value := range want {
			if !strings.Contains(p[name], value) || name == "NRestarts" && p[name] != value {
				return fmt.Errorf("it is %v", p)
			}
		}
		return nil
	})
	return p
}

// signal sends a signal to the agent.
func (b *booted) signal(signal string) {
	b.t.Helper()
	b.ctl("kill", "--kill-whom=main", "--signal="+signal, "vedette-agent").ok()
}

// The hardened unit under a real systemd: it waits for its enrolment, lets ONNX
// Runtime work, comes back after a crash and after the watchdog, gives up on a
// wrong configuration, and is restarted by an upgrade.
func TestPackageUnderSystemd(t *testing.T) {
	if os.Getenv(packagesAsked) == "" {
		t.Skip("takes minutes and a mirror: make test-package")
	}
	p := newPlant(t)
	p.settings()
	want := p.published("1")
	d := newDebian(p, "systemd", "systemd-sysv", "dbus")
	old, newer := d.offer("1.0.0"), d.offer("1.1.0")
	b := d.boot()

	b.exec("", "sh", old+"/install.sh").ok()
	if b.ctl("is-enabled", "vedette-agent").out != "enabled\n" {
		t.Error("the service does not start with the system")
	}
	b.ctl("start", "vedette-agent").ok()
	b.becomes("waiting for its enrolment", map[string]string{"ActiveState": "inactive", "ConditionResult": "no"})

	c := &camera{plant: p, id: "cam-1", listen: freeAddress(t)}
	d.configure(c.listen)
	b.exec(p.token("cam-1")+"\n", "sh", old+"/install.sh", "--enrol").ok()
	b.becomes("connected", map[string]string{"ActiveState": "active", "StatusText": "as cam-1, connected"})
	p.ends(p.rollOut("1"), operator.RolloutCompleted)
	b.becomes("serving", map[string]string{"StatusText": "serving digits 1 as cam-1, connected"})
	c.agent = &program{t: t} // whose end systemd sees
	if err := c.infer(); err != nil {
		t.Error(err)
	}
	if o := b.exec("", "vedette-agent", "doctor"); o.code != 0 || !strings.Contains(o.out, "it runs: serving digits 1") {
		t.Errorf("doctor: %d\n%s", o.code, o.out)
	}
	u, err := c.update()
	if err != nil || u.Active != want.String() {
		t.Errorf("serves %+v, %v", u, err)
	}

	b.signal("KILL")
	b.becomes("back after a crash", map[string]string{"ActiveState": "active", "NRestarts": "1", "StatusText": "serving digits 1"})
	b.override("WatchdogSec=3s")
	b.becomes("served by the watchdog", map[string]string{"ActiveState": "active", "StatusText": "connected"})
	b.signal("STOP")
	b.becomes("back after the watchdog", map[string]string{"ActiveState": "active", "NRestarts": "1"})
	b.override("")

	before := b.unit()["MainPID"]
	b.exec("", "sh", newer+"/install.sh").ok()
	if after := b.becomes("upgraded", map[string]string{"ActiveState": "active", "StatusText": "connected"}); after["MainPID"] == before {
		t.Error("the upgrade did not restart the service")
	}
	d.configure("nowhere")
	if o := b.ctl("restart", "vedette-agent"); o.code == 0 {
		t.Error("the service starts with a wrong configuration")
	}
	b.becomes("left alone with a wrong configuration", map[string]string{"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"})
	if o := b.exec("", "vedette-agent", "doctor", "--offline"); o.code != 1 || !strings.Contains(o.out, "listen is set twice") {
		t.Errorf("doctor: %d\n%s", o.code, o.out)
	}
	b.exec("", "dpkg", "--purge", "vedette-agent").ok()
	d.is("/var/lib/vedette", false)
	if o := b.ctl("cat", "vedette-agent"); o.code == 0 {
		t.Errorf("the service is still there:\n%s", o.out)
	}
}

// override changes the unit as an operator does, and restarts the service.
func (b *booted) override(setting string) {
	b.t.Helper()
	dir := b.at("/etc/systemd/system/vedette-agent.service.d")
	if err := os.RemoveAll(dir); err != nil {
		b.t.Fatal(err)
	}
	if setting != "" {
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "test.conf"), []byte("[Service]\n"+setting+"\n"), 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	b.ctl("daemon-reload").ok()
	b.ctl("restart", "vedette-agent").ok()
}
