package serve

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"

	"github.com/vedette-edge/vedette/agent/infer"
)

// encodeResponse appends the answer to b: JSON, then the binary tensors. header
// is the length of the JSON, 0 when nothing is binary.
func encodeResponse(b []byte, req *request, resp *infer.Response) (out []byte, header int) {
	start, anyBinary := len(b), false
	b = append(b, `{"model_name":`...)
	b = appendText(b, resp.Model)
	b = append(b, `,"model_version":`...)
	b = appendText(b, resp.Version)
	b = append(b, `,"id":`...)
	b = appendText(b, resp.ID)
	if resp.Role == infer.RoleShare { // another version than the one that serves
		b = append(b, `,"parameters":{"role":"share","release":"`...)
		b = hex.AppendEncode(b, resp.Release[:])
		b = append(b, `"}`...)
	}
	b = append(b, `,"outputs":[`...)
	for i := range resp.Outputs {
		t := &resp.Outputs[i]
		if i > 0 {
			b = append(b, ',')
		}
		isBinary := req.wantsBinary(t)
		anyBinary = anyBinary || isBinary
		b = appendTensor(b, t, isBinary)
	}
	b = append(b, `]}`...)
	if !anyBinary {
		return b, 0
	}
	header = len(b) - start
	for i := range resp.Outputs {
		if t := &resp.Outputs[i]; req.wantsBinary(t) {
			b = appendBinary(b, t)
		}
	}
	return b, header
}

// wantsBinary reports whether an output goes out as binary. Half floats always
// do: they have no form in JSON.
func (r *request) wantsBinary(t *infer.Tensor) bool {
	if isHalf(t.Datatype) {
		return true
	}
	for _, f := range r.formats {
		if f.output == t.Name {
			return f.binary
		}
	}
	return r.binary
}

func appendTensor(b []byte, t *infer.Tensor, isBinary bool) []byte {
	b = append(b, `{"name":`...)
	b = appendText(b, t.Name)
	b = append(b, `,"datatype":`...)
	b = appendText(b, t.Datatype)
	b = append(b, `,"shape":[`...)
	for i, d := range t.Shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, d, 10)
	}
	if isBinary {
		b = append(b, `],"parameters":{"binary_data_size":`...)
		b = strconv.AppendInt(b, int64(binarySize(t)), 10)
		return append(b, `}}`...)
	}
	b = append(b, `],"data":[`...)
	b = appendData(b, t.Data)
	return append(b, `]}`...)
}

func appendData(b []byte, data any) []byte {
	switch d := data.(type) {
	case []float32:
		return appendList(b, d, func(b []byte, v float32) []byte { return appendFloat(b, float64(v), 32) })
	case []float64:
		return appendList(b, d, func(b []byte, v float64) []byte { return appendFloat(b, v, 64) })
	case []int64:
		return appendList(b, d, appendSigned)
	case []int32:
		return appendList(b, d, appendSigned)
	case []int16:
		return appendList(b, d, appendSigned)
	case []int8:
		return appendList(b, d, appendSigned)
	case []uint64:
		return appendList(b, d, appendUnsigned)
	case []uint32:
		return appendList(b, d, appendUnsigned)
	case []uint16:
		return appendList(b, d, appendUnsigned)
	case []uint8:
		return appendList(b, d, appendUnsigned)
	case []bool:
		return appendList(b, d, strconv.AppendBool)
	case []string:
		return appendList(b, d, appendText)
	}
	return b
}

func appendList[T any](b []byte, d []T, one func([]byte, T) []byte) []byte {
	for i, v := range d {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, v)
	}
	return b
}

func appendSigned[T int8 | int16 | int32 | int64](b []byte, v T) []byte {
	return strconv.AppendInt(b, int64(v), 10)
}

func appendUnsigned[T uint8 | uint16 | uint32 | uint64](b []byte, v T) []byte {
	return strconv.AppendUint(b, uint64(v), 10)
}

// appendFloat writes the shortest text that reads back the same. JSON has no
// NaN and no infinity: they are null, as a missing input is.
func appendFloat(b []byte, v float64, bits int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	form := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(b, v, form, -1, bits)
}

// appendText writes a JSON string; names and ids are plain almost always.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			raw, err := json.Marshal(s)
			if err != nil {
				return append(b, `""`...) // cannot happen: a string always encodes
			}
			return append(b, raw...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
