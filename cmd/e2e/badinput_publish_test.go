package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// What must not be published is not, wherever it is noticed: by the publisher's
// own program, or by the control plane when another program is used. Afterwards
// the registry holds nothing of it, and what is right can still be published.
func TestBadReleasesAreRefused(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	t.Run("by the publisher's program", p.refusedByProgram)
	t.Run("by the control plane", p.refusedByServer)
	if p.published("1").IsZero() {
		t.Error("what is right was not published")
	}
	detail, err := p.client.Model(t.Context(), "digits")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range detail.List {
		names = append(names, v.Version)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"1", "other"}) {
		t.Errorf("the registry holds versions %q, want the two that were right", names)
	}
}

// in is the plant as a subtest sees it.
func (p *plant) in(t *testing.T) *plant {
	t.Helper()
	q := *p
	q.t = t
	return &q
}

func (p *plant) refusedByProgram(t *testing.T) {
	p = p.in(t)
	push := func(folder string, more ...string) outcome {
		return p.vedette(append([]string{"model", "push", folder, "--model", "digits", "--version", filepath.Base(folder)}, more...)...)
	}

	// Nobody who may sign is here, or somebody who may not.
	p.folderOf("viewer", "root.json")
	push(p.profiled("1", "unsigned"), "--keys", p.path("viewer")).refused(
		"is not signed by enough keys yet: it needs 1 of targets keys", `next: send it to their holders, who run "vedette key sign FILE"`)
	p.folderOf("stranger", "root.json")
	p.vedette("key", "new", "mallory", "--keys", p.path("stranger"), "-q").ok()
	push(p.profiled("1", "foreign"), "--keys", p.path("stranger")).refused("is not signed by enough keys yet", "next: send it to their holders")
	p.vedette("key", "sign", p.path("foreign", "targets.json"), "--keys", p.path("stranger")).refused("none of these keys may sign", "next:")

	// The graph is another one than was packed.
	tampered := p.profiled("1", "tampered")
	p.vedette("model", "pack", tampered, "--model", "digits", "--version", "tampered").ok()
	p.change("wrong", "tampered", "digits.onnx")
	p.vedette("model", "push", tampered).refused("digits.onnx was changed after", `next: pack the folder again with "vedette model pack"`)

	// The manifest wants to be unpacked elsewhere.
	escaping := p.profiled("1", "escaping")
	p.vedette("model", "pack", escaping, "--model", "digits", "--version", "escaping").ok()
	p.write([]byte(strings.ReplaceAll(p.read("escaping", "manifest.json"), `"baseline.json"`, `"../baseline.json"`)), "escaping", "manifest.json")
	p.vedette("model", "push", escaping).refused(`file "../baseline.json": must have a plain name`, `next: nobody writes a manifest by hand: pack the folder again`)

	// The graph does not take what the schema says.
	mismatched := p.profiled("1", "mismatched")
	schema := p.read("mismatched", "schema.json")
	p.write([]byte(strings.ReplaceAll(schema, `"X"`, `"pixels"`)), "mismatched", "schema.json")
	push(mismatched).refused("graph does not match the schema", `input "pixels" is not in the graph, which has [X FP32 [-1 64]]`, `next: make schema, baseline and golden vectors from this very graph: "vedette-agent profile"`)
	p.write([]byte(strings.ReplaceAll(schema, `"INT64"`, `"FP32"`)), "mismatched", "schema.json")
	push(mismatched).refused(`output "label" is INT64 in the graph and FP32 in the schema`, "next:")
}

// folderOf makes a publisher's folder with some of the real one's files.
func (p *plant) folderOf(name string, files ...string) {
	p.t.Helper()
	if err := os.MkdirAll(p.path(name), 0o700); err != nil {
		p.t.Fatal(err)
	}
	for _, f := range files {
		p.write([]byte(p.read("keys", f)), name, f)
	}
}

// change overwrites a few bytes in the middle of a file.
func (p *plant) change(with string, parts ...string) {
	p.t.Helper()
	f, err := os.OpenFile(p.path(parts...), os.O_RDWR, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(with), info.Size()/2)
	if err := errors.Join(err, f.Close()); err != nil {
		p.t.Fatal(err)
	}
}

// refusedByServer speaks to the control plane as another program would.
func (p *plant) refusedByServer(t *testing.T) {
	p = p.in(t)
	folder := p.profiled("2", "other") // nobody has uploaded its graph
	p.vedette("model", "pack", folder, "--model", "digits", "--version", "other").ok()
	targets := []byte(p.read("other", "targets.json"))
	key, err := trust.ReadKey(p.path("keys", "targets.key"))
	if err != nil {
		t.Fatal(err)
	}
	mallory, err := trust.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	signed := p.signed(targets, key)

	p.publishRefused("not signed", targets, operator.TrustRefused, "signature")
	p.publishRefused("signed by a key the root does not name", p.signed(targets, mallory), operator.TrustRefused, "signature")
	p.publishRefused("without its files", signed, operator.BlobMissing, "other")

	graph := []byte(p.read("other", "digits.onnx"))
	p.uploadForeign(graph, p.uploadCut(graph))
	p.publishRefused("with half a file", signed, operator.BlobMissing, "other")
	p.publishEscaping(targets, key)

	p.vedette("model", "push", folder).ok() // goes on with what is there
}

func (p *plant) signed(targets []byte, keys ...*trust.Key) []byte {
	p.t.Helper()
	doc, err := trust.Sign(targets, keys...)
	if err != nil {
		p.t.Fatal(err)
	}
	return doc
}

func (p *plant) publishRefused(what string, targets []byte, code operator.Code, part string) {
	p.t.Helper()
	_, err := p.client.Publish(p.t.Context(), operator.TargetsUpload{Targets: targets, Previous: 1})
	if operator.CodeOf(err) != code || !strings.Contains(err.Error(), part) {
		p.t.Errorf("targets %s: got %q (%s), want %s and %q in it", what, err, operator.CodeOf(err), code, part)
	}
}

// cut is a connection that breaks: it gives some bytes, then fails.
type cut struct {
	io.Reader
}

var errCut = errors.New("the cable is out")

func (c cut) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if errors.Is(err, io.EOF) {
		err = errCut
	}
	return n, err
}

// uploadCut loses the connection in the middle of an upload: what came is kept,
// and the upload goes on there and nowhere else. It returns how much that is.
func (p *plant) uploadCut(content []byte) (kept int64) {
	p.t.Helper()
	ctx, d, half := p.t.Context(), release.DigestOf(content), len(content)/2
	_, err := p.client.UploadChunk(ctx, d, int64(len(content)), 0, cut{bytes.NewReader(content[:half])})
	if err == nil {
		p.t.Error("an upload that was cut is taken as whole")
	}
	p.eventually(10*time.Second, "what came to be kept", func() error {
		up, err := p.client.BlobStatus(ctx, d)
		if err == nil && (up.Complete || up.Offset <= 0 || up.Offset > int64(half)) {
			err = fmt.Errorf("kept is %+v of %d bytes sent", up, half)
		}
		if err == nil {
			kept = up.Offset
		}
		return err
	})
	if err := p.chunk(content, content, 0); operator.CodeOf(err) != operator.OffsetMismatch {
		p.t.Errorf("an upload from the start: got %v, want %s", err, operator.OffsetMismatch)
	}
	return kept
}

// chunk sends a part of a blob when the server has noticed that the connection
// before is broken.
func (p *plant) chunk(blob, part []byte, offset int64) (err error) {
	p.t.Helper()
	p.eventually(10*time.Second, "the upload to be free", func() error {
		_, err = p.client.UploadChunk(p.t.Context(), release.DigestOf(blob), int64(len(blob)), offset, bytes.NewReader(part))
		if operator.CodeOf(err) == operator.Unavailable {
			return err
		}
		return nil
	})
	return err
}

// uploadForeign sends other content under the digest of what is half there: it
// is thrown away as a whole, and the right content is still taken.
func (p *plant) uploadForeign(content []byte, kept int64) {
	p.t.Helper()
	ctx, d, size := p.t.Context(), release.DigestOf(content), int64(len(content))
	foreign := bytes.Repeat([]byte{'x'}, int(size-kept))
	err := p.chunk(content, foreign, kept)
	if operator.CodeOf(err) != operator.DigestMismatch || !strings.Contains(err.Error(), d.String()) {
		p.t.Errorf("foreign content: got %v, want %s that names the digest", err, operator.DigestMismatch)
	}
	if up, err := p.client.BlobStatus(ctx, d); err != nil || up.Complete || up.Offset != 0 {
		p.t.Errorf("of foreign content is kept: %+v, %v", up, err)
	}
	if err := p.chunk(content, content[:size/2], 0); err != nil {
		p.t.Errorf("right content after foreign: %v", err)
	}
}

// publishEscaping has the real publisher's key sign a manifest that names a
// file outside its folder: a signature does not make it right.
func (p *plant) publishEscaping(targets []byte, key *trust.Key) {
	p.t.Helper()
	manifest := p.read("other", "manifest.json")
	escaping := strings.ReplaceAll(manifest, `"baseline.json"`, `"../eline.json"`) // of the same length
	was, is := release.DigestOf([]byte(manifest)), release.DigestOf([]byte(escaping))
	if _, err := p.client.UploadChunk(p.t.Context(), is, int64(len(escaping)), 0, strings.NewReader(escaping)); err != nil {
		p.t.Fatal(err)
	}
	doc := bytes.ReplaceAll(targets, []byte(was.String()), []byte(is.String()))
	p.publishRefused("of a manifest with ../", p.signed(doc, key), operator.Invalid, `"../eline.json"`)
}
