package sampling

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"filippo.io/age"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSealedForOneAlone(t *testing.T) {
	mine, other := identity(t), identity(t)
	rows := &protocol.SampleRows{Rows: []*protocol.SampleRow{{Id: "abc-1/7", Stratum: "seven", Inputs: []*protocol.Array{{Name: "X", Datatype: "FP32", Raw: []byte("secret rows of pixels")}}}}}
	sealed, err := Seal(rows, mine.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("secret")) || bytes.Contains(sealed, []byte("abc-1")) {
		t.Error("the sealed rows can be read")
	}
	got, err := Open(sealed, other, mine)
	if err != nil || !proto.Equal(got, rows) {
		t.Errorf("got %v, %v, want %v", got, err, rows)
	}
	if _, err := Open(sealed, other); !errors.Is(err, ErrIdentity) {
		t.Errorf("another identity: got %v, want %v", err, ErrIdentity)
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for name, spoiled := range map[string][]byte{
		"nothing": {}, "no sample": []byte("rows"), "truncated": sealed[:len(sealed)-3], "changed": flipped,
		"too large": append(bytes.Clone(sealed), make([]byte, protocol.MaxSample)...),
	} {
		if _, err := Open(spoiled, mine); !errors.Is(err, ErrSample) {
			t.Errorf("%s: got %v, want %v", name, err, ErrSample)
		}
	}
	if _, err := Seal(rows, "age1nobody"); err == nil {
		t.Error("sealed for a recipient that is none")
	}
}

func TestNumbers(t *testing.T) {
	for datatype, tt := range map[string]struct {
		data any
		want []float64
	}{
		"FP32":   {[]float32{1.5, float32(math.Inf(-1))}, []float64{1.5, math.Inf(-1)}},
		"FP64":   {[]float64{0.1}, []float64{0.1}},
		"FP16":   {[]uint16{0x3c00, 0xc000, 0x0001, 0x7c00, 0x3555}, []float64{1, -2, math.Ldexp(1, -24), math.Inf(1), 0.333251953125}},
		"BF16":   {[]uint16{0x3f80, 0xc000}, []float64{1, -2}},
		"INT64":  {[]int64{-3, 1 << 40}, []float64{-3, 1 << 40}},
		"INT32":  {[]int32{-3}, []float64{-3}},
		"INT16":  {[]int16{-3}, []float64{-3}},
		"INT8":   {[]int8{-3}, []float64{-3}},
		"UINT64": {[]uint64{1 << 60}, []float64{1 << 60}},
		"UINT32": {[]uint32{1 << 31}, []float64{1 << 31}},
		"UINT16": {[]uint16{1 << 15}, []float64{1 << 15}},
		"UINT8":  {[]uint8{255}, []float64{255}},
		"BOOL":   {[]bool{true, false}, []float64{1, 0}},
	} {
		raw, err := binary.Append(nil, binary.LittleEndian, tt.data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Numbers(&protocol.Array{Name: "X", Datatype: datatype, Raw: raw})
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, %v, want %v", datatype, got, err, tt.want)
		}
	}
	for _, a := range []*protocol.Array{{Datatype: "FP32", Raw: []byte{1, 2, 3}}, {Datatype: "BYTES", Raw: []byte{1}}, {}} {
		if _, err := Numbers(a); !errors.Is(err, ErrSample) {
			t.Errorf("%v: got %v, want %v", a, err, ErrSample)
		}
	}
}
