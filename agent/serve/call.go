package serve

import (
	"fmt"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/inference"
)

// fromCall takes a request out of its message, sharing numbers with it.
func fromCall(in *inference.ModelInferRequest) (*request, error) {
	req := &request{}
	req.Model, req.Version, req.ID = in.GetModelName(), in.GetModelVersion(), in.GetId()
	req.Key = in.GetParameters()["key"].GetStringParam()
	raw := in.GetRawInputContents()
	req.binary = len(raw) > 0
	if p, ok := in.GetParameters()["binary_data_output"]; ok {
		req.binary = p.GetBoolParam()
	}
	var err error
	if req.timeout, err = timeoutOf(microseconds(in.GetParameters()["timeout"])); err != nil {
		return nil, err
	}
	if err := req.wantAll(in.GetOutputs()); err != nil {
		return nil, err
	}
	if n := len(in.GetInputs()); n > maxTensors || len(raw) > 0 && len(raw) != n {
		return nil, &infer.InputError{Row: -1, Reason: fmt.Sprintf("%d inputs and %d raw contents; there are at most %d inputs, with contents of their own or all of them raw", n, len(raw), maxTensors)}
	}
	for i, t := range in.GetInputs() {
		tensor := infer.Tensor{Name: t.GetName(), Datatype: t.GetDatatype(), Shape: t.GetShape()}
		if len(tensor.Shape) > maxRank {
			return nil, inputError(tensor.Name, "a shape has more than %d dimensions", maxRank)
		}
		if len(raw) > 0 {
			if t.GetContents() != nil {
				return nil, inputError(tensor.Name, "has both contents and raw contents")
			}
			err = decodeBinary(&tensor, raw[i])
		} else {
			err = fromContents(&tensor, t.GetContents())
		}
		if err != nil {
			return nil, err
		}
		req.Inputs = append(req.Inputs, tensor)
	}
	return req, nil
}

// microseconds reads a parameter that clients send as either kind of number.
func microseconds(p *inference.InferParameter) int64 {
	if u, ok := p.GetParameterChoice().(*inference.InferParameter_Uint64Param); ok {
		return int64(min(u.Uint64Param, 1<<62))
	}
	return p.GetInt64Param()
}

func (r *request) wantAll(outputs []*inference.ModelInferRequest_InferRequestedOutputTensor) error {
	for _, o := range outputs {
		p, says := o.GetParameters()["binary_data"]
		if err := r.want(o.GetName(), p.GetBoolParam(), says); err != nil {
			return err
		}
	}
	return nil
}

// fromContents takes the elements out of the field that the datatype names.
func fromContents(t *infer.Tensor, c *inference.InferTensorContents) (err error) {
	ok := true
	switch t.Datatype {
	case "BOOL":
		t.Data = c.GetBoolContents()
	case "INT8":
		t.Data, ok = narrow[int8](c.GetIntContents())
	case "INT16":
		t.Data, ok = narrow[int16](c.GetIntContents())
	case "INT32":
		t.Data = c.GetIntContents()
	case "INT64":
		t.Data = c.GetInt64Contents()
	case "UINT8":
		t.Data, ok = narrow[uint8](c.GetUintContents())
	case "UINT16":
		t.Data, ok = narrow[uint16](c.GetUintContents())
	case "UINT32":
		t.Data = c.GetUintContents()
	case "UINT64":
		t.Data = c.GetUint64Contents()
	case "FP32":
		t.Data = c.GetFp32Contents()
	case "FP64":
		t.Data = c.GetFp64Contents()
	case "BYTES":
		t.Data = texts(c.GetBytesContents())
	case "FP16", "BF16":
		err = inputError(t.Name, "%s has no contents of its own: send it raw", t.Datatype)
	default:
		err = inputError(t.Name, "datatype %q is not supported", t.Datatype)
	}
	if !ok {
		err = inputError(t.Name, "an element is out of the range of %s", t.Datatype)
	}
	return err
}

// narrow converts to the smaller type that the datatype means; false when an
// element does not fit.
func narrow[T int8 | int16 | uint8 | uint16, F int32 | uint32](from []F) ([]T, bool) {
	to := make([]T, len(from))
	for i, v := range from {
		to[i] = T(v)
		if F(to[i]) != v {
			return nil, false
		}
	}
	return to, true
}

func widen[T int32 | uint32, F int8 | int16 | uint8 | uint16](from []F) []T {
	to := make([]T, len(from))
	for i, v := range from {
		to[i] = T(v)
	}
	return to
}

func texts(from [][]byte) []string {
	to := make([]string, len(from))
	for i, b := range from {
		to[i] = string(b)
	}
	return to
}

// toCall puts an answer into its message: raw all of it or none.
func toCall(req *request, resp *infer.Response) *inference.ModelInferResponse {
	out := &inference.ModelInferResponse{ModelName: resp.Model, ModelVersion: resp.Version, Id: resp.ID}
	if resp.Role == infer.RoleShare {
		out.Parameters = map[string]*inference.InferParameter{
			"role":    {ParameterChoice: &inference.InferParameter_StringParam{StringParam: resp.Role}},
			"release": {ParameterChoice: &inference.InferParameter_StringParam{StringParam: resp.Release.String()}},
		}
	}
	raw := false
	for i := range resp.Outputs {
		raw = raw || req.wantsBinary(&resp.Outputs[i])
	}
	for i := range resp.Outputs {
		t := &resp.Outputs[i]
		tensor := &inference.ModelInferResponse_InferOutputTensor{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape}
		if raw {
			out.RawOutputContents = append(out.RawOutputContents, appendBinary(make([]byte, 0, binarySize(t)), t))
		} else {
			tensor.Contents = toContents(t)
		}
		out.Outputs = append(out.Outputs, tensor)
	}
	return out
}

// toContents puts the elements into the field that the datatype names.
func toContents(t *infer.Tensor) *inference.InferTensorContents {
	switch d := t.Data.(type) {
	case []bool:
		return &inference.InferTensorContents{BoolContents: d}
	case []int8:
		return &inference.InferTensorContents{IntContents: widen[int32](d)}
	case []int16:
		return &inference.InferTensorContents{IntContents: widen[int32](d)}
	case []int32:
		return &inference.InferTensorContents{IntContents: d}
	case []int64:
		return &inference.InferTensorContents{Int64Contents: d}
	case []uint8:
		return &inference.InferTensorContents{UintContents: widen[uint32](d)}
	case []uint16:
		return &inference.InferTensorContents{UintContents: widen[uint32](d)}
	case []uint32:
		return &inference.InferTensorContents{UintContents: d}
	case []uint64:
		return &inference.InferTensorContents{Uint64Contents: d}
	case []float32:
		return &inference.InferTensorContents{Fp32Contents: d}
	case []float64:
		return &inference.InferTensorContents{Fp64Contents: d}
	case []string:
		c := &inference.InferTensorContents{BytesContents: make([][]byte, len(d))}
		for i, s := range d {
			c.BytesContents[i] = []byte(s)
		}
		return c
	}
	return &inference.InferTensorContents{}
}
