// Package brokertest starts a real broker for tests of other packages: on free
// ports of the loopback address, in a directory of the test.
package brokertest

import (
	"crypto/x509"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/controlplane/broker"
)

// AdmitAll is an Admission that lets every device in.
type AdmitAll struct{}

var _ broker.Admission = AdmitAll{}

// Admit implements broker.Admission.
func (AdmitAll) Admit(string, *x509.Certificate) error { return nil }

// Start runs a broker with an empty store until the test ends. Devices are not
// let in until the test calls Open.
func Start(tb testing.TB) *broker.Broker {
	tb.Helper()
	return StartAt(tb, tb.TempDir(), CA(tb))
}

// CA makes a device CA that lives as long as the test.
func CA(tb testing.TB) *access.CA {
	tb.Helper()
	ca, err := access.OpenCA(tb.TempDir(), access.DefaultHosts(), nil)
	if err != nil {
		tb.Fatalf("make device CA: %v", err)
	}
	return ca
}

// StartAt runs a broker on a store that may have been used before. The test may
// Close it early, for example to start it again.
func StartAt(tb testing.TB, dir string, ca *access.CA) *broker.Broker {
	tb.Helper()
	b, err := broker.Start(broker.Config{Dir: dir, MQTT: "127.0.0.1:0", TLS: ca.ServerTLS()})
	if err != nil {
		tb.Fatalf("start broker: %v", err)
	}
	tb.Cleanup(b.Close)
	return b
}
