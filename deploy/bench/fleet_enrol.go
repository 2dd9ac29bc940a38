package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol"
)

// siteSize is how many devices are behind one address and enrol with one token:
// what the control plane lets one address enrol at once.
const siteSize = 50

// enrolling is how many sites enrol at the same time.
const enrolling = 8

// identity is what an agent keeps of its enrolment.
type identity struct {
	Device string   `json:"device"`
	Site   string   `json:"site"`
	Cert   string   `json:"certificate"`
	Key    []byte   `json:"key"` // PKCS #8
	CA     string   `json:"ca"`
	Root   []byte   `json:"root"`
	MQTT   []string `json:"mqtt"`
}

// enrol gets every agent its certificate, or takes those of an earlier run.
func (f *fleet) enrol(ctx context.Context) error {
	known, err := f.readIdentities()
	if err != nil {
		return err
	}
	known = known[:min(len(known), f.size.devices)]
	if missing := f.size.devices - len(known); missing > 0 {
		f.b.say("  enrolling %d devices", missing)
		began := time.Now()
		fresh, err := f.enrolFrom(ctx, len(known))
		if err != nil {
			return err
		}
		took := time.Since(began)
		f.b.add(Figure{
			Part: "fleet", What: "enrolments over HTTPS", Value: float64(missing) / took.Seconds(), Unit: "/s",
			Detail: fmt.Sprintf("%d in %.0f s: token, CSR, certificate", missing, took.Seconds()),
		})
		known = append(known, fresh...)
		if err := f.writeIdentities(known); err != nil {
			return err
		}
	}
	for i := range known {
		a, err := known[i].agent(f)
		if err != nil {
			return err
		}
		f.devices = append(f.devices, a)
	}
	// The control plane listens elsewhere in every run.
	where, err := os.ReadFile(f.b.path("control", "addresses.json"))
	if err != nil {
		return fmt.Errorf("find the broker: %w", err)
	}
	var at struct {
		MQTT string `json:"mqtt"`
	}
	if err := json.Unmarshal(where, &at); err != nil {
		return fmt.Errorf("find the broker: %w", err)
	}
	f.brokers, f.root = []string{"mqtts://" + at.MQTT}, known[0].Root
	f.ca = x509.NewCertPool()
	if !f.ca.AppendCertsFromPEM([]byte(known[0].CA)) {
		return errors.New("the control plane's CA is no certificate")
	}
	return nil
}

func (f *fleet) readIdentities() (list []identity, err error) {
	raw, err := os.ReadFile(f.identities())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("read the devices' identities: %w", err)
	}
	return list, nil
}

func (f *fleet) writeIdentities(list []identity) error {
	raw, err := json.Marshal(list)
	if err == nil {
		err = os.WriteFile(f.identities(), raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the devices' identities: %w", err)
	}
	return nil
}

func (i *identity) agent(f *fleet) (*agent, error) {
	key, err := x509.ParsePKCS8PrivateKey(i.Key)
	if err != nil {
		return nil, fmt.Errorf("read the key of %s: %w", i.Device, err)
	}
	block, _ := pem.Decode([]byte(i.Cert))
	if block == nil {
		return nil, fmt.Errorf("the certificate of %s cannot be read", i.Device)
	}
	return &agent{id: i.Device, site: i.Site, fleet: f, pair: tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}, nil
}

// enrolFrom enrols the devices from a number on, site by site.
func (f *fleet) enrolFrom(ctx context.Context, from int) ([]identity, error) {
	out := make([]identity, f.size.devices-from)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(enrolling)
	for begin := 0; begin < len(out); begin += siteSize {
		site := out[begin:min(begin+siteSize, len(out))]
		g.Go(func() error { return f.enrolSite(ctx, (from+begin)/siteSize, from+begin, site) })
	}
	return out, g.Wait()
}

func (f *fleet) enrolSite(ctx context.Context, number, first int, out []identity) error {
	site := fmt.Sprintf("site-%03d", number)
	text, err := f.plant.vedette(ctx, "device", "token", "create", "-q", "--uses", strconv.Itoa(len(out)), "--label", "site="+site, "--reason", "benchmark")
	if err != nil {
		return err
	}
	token, err := protocol.ParseToken(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	http := siteClient(number, token.CA)
	defer http.CloseIdleConnections()
	for i := range out {
		if out[i], err = enrolOne(ctx, http, token, fmt.Sprintf("dev-%05d", first+i)); err != nil {
			return err
		}
		out[i].Site = site
	}
	return nil
}

// siteClient speaks from an address of its own, as the devices behind one
// router do, to a server whose chain shows the CA that the token names.
func siteClient(number int, ca [sha256.Size]byte) *http.Client {
	from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(number>>8), byte(number))} //nolint:gosec // as many sites as there are files fit
	return &http.Client{
		Timeout: client.DefaultTimeout,
		Transport: &http.Transport{
			DialContext: (&net.Dialer{LocalAddr: from}).DialContext,
			TLSClientConfig: &tls.Config{
				MinVersion:         tls.VersionTLS12,
				InsecureSkipVerify: true, //nolint:gosec // the token's digest is compared instead
				VerifyConnection: func(cs tls.ConnectionState) error {
					if n := len(cs.PeerCertificates); n == 0 || sha256.Sum256(cs.PeerCertificates[n-1].Raw) != ca {
						return errors.New("another certificate authority answered than the token names")
					}
					return nil
				},
			},
		},
	}
}

func enrolOne(ctx context.Context, c *http.Client, t *protocol.EnrolmentToken, device string) (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: device}}, key)
	if err != nil {
		return identity{}, fmt.Errorf("make certificate request: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return identity{}, fmt.Errorf("encode key: %w", err)
	}
	answer, err := post(ctx, c, t.DeviceAPI+protocol.EnrolPath, protocol.EnrolRequest{
		Token: t.Secret, Device: device, CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	})
	if err != nil {
		return identity{}, fmt.Errorf("enrol %s: %w", device, err)
	}
	return identity{Device: answer.Device, Cert: answer.Certificate, Key: der, CA: answer.CA, Root: t.Root[:], MQTT: t.MQTT}, nil
}

func post(ctx context.Context, c *http.Client, url string, in protocol.EnrolRequest) (*protocol.EnrolResponse, error) {
	raw, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", res.Status, body)
	}
	out := &protocol.EnrolResponse{}
	return out, json.Unmarshal(body, out)
}
