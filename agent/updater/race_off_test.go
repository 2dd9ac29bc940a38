//go:build !race

package updater_test

const raced = false
