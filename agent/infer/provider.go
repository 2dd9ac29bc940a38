package infer

import (
	"errors"

	"github.com/vedette-edge/vedette/protocol/release"
)

// ErrProvider says that an execution provider cannot be used here, or not for
// the variant asked for. Runtimes wrap it.
var ErrProvider = errors.New("no such execution provider here")

// Candidates puts what a runtime offers into the order of trying: the CPU, which
// is what all others have to beat, those that a device's accelerators are known
// to run on, then the rest. The provider that computes in somebody's cloud is
// none for a device.
func Candidates(offered, preferred []string) []string {
	list := []string{release.CPUProvider}
	add := func(name string) {
		for _, have := range list {
			if release.SameProvider(have, name) {
				return
			}
		}
		if !release.SameProvider(name, "Azure") {
			list = append(list, name)
		}
	}
	for _, want := range preferred {
		for _, name := range offered {
			if release.SameProvider(want, name) {
				add(name)
			}
		}
	}
	for _, name := range offered {
		add(name)
	}
	return list
}
