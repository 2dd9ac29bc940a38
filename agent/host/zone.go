package host

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// TimeZone is the IANA name of the device's time zone as it is set now, "" for
// not known.
func TimeZone() string {
	tz, set := os.LookupEnv("TZ")
	return timeZone("/", tz, set)
}

// timeZone looks where the C library does: the variable TZ, then the link
// /etc/localtime. Where that is a file, /etc/timezone has its name on Debian
// and its like; it comes last because changing the link alone leaves it stale.
func timeZone(root, tz string, set bool) string {
	if set && tz == "" {
		return "UTC"
	}
	tz = strings.TrimPrefix(tz, ":")
	if name := zoneOfPath(tz); zoneExists(name) {
		return name
	}
	if link, err := os.Readlink(filepath.Join(root, "etc/localtime")); err == nil {
		if name := zoneOfPath(link); zoneExists(name) {
			return name
		}
	}
	if name := strings.TrimSpace(readProc(filepath.Join(root, "etc/timezone"))); zoneExists(name) {
		return name
	}
	return ""
}

// zoneOfPath is the name of a zone from the path of its file; a name stays as
// it is.
func zoneOfPath(path string) string {
	if _, name, ok := strings.Cut(path, "/zoneinfo/"); ok {
		path = name
	}
	for _, kind := range []string{"posix/", "right/"} {
		path = strings.TrimPrefix(path, kind)
	}
	return path
}

// zoneExists tells a name from a rule such as CET-1CEST. A device without the
// zones' files still knows names of the form Area/Place.
func zoneExists(name string) bool {
	if !protocol.IsTimeZone(name) {
		return false
	}
	if _, err := time.LoadLocation(name); err == nil {
		return true
	}
	_, err := time.LoadLocation("Europe/London")
	return err != nil && strings.Contains(name, "/")
}
