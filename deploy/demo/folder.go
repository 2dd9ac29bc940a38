package demo

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// claim makes a folder this run's own and removes what an earlier run left in
// it. A folder that another run uses, or that is not a demo's, is left alone,
// and so is everything when the dashboard's address (empty for any) is taken:
// a second demo must not cost the first one its keys. The function returned
// gives the folder back.
func claim(ctx context.Context, dir, http string) (leave func(), err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", filepath.Dir(dir), err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	leave = func() { _ = lock.Close() } // which unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		leave()
		return nil, fmt.Errorf("another demo runs in %s: stop it, or choose another folder with --dir", dir)
	}
	if err := freeAddress(ctx, http); err != nil {
		leave()
		return nil, err
	}
	if err := empty(dir); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// freeAddress finds out whether the dashboard can listen where it is asked to.
func freeAddress(ctx context.Context, addr string) error {
	if addr == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("the dashboard cannot listen: %w: choose another address with --http", err)
	}
	return l.Close()
}

// empty makes a folder, or removes what an earlier demo left in it.
func empty(dir string) error {
	mark := filepath.Join(dir, ".vedette-demo")
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		if _, err := os.Stat(mark); err != nil {
			return fmt.Errorf("%s is not empty and was not made by the demo: choose another folder", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("empty %s: %w", dir, err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return os.WriteFile(mark, nil, 0o600)
}
