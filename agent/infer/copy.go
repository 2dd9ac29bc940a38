package infer

import "github.com/vedette-edge/vedette/protocol/release"

// copyTensors makes to a copy of from that shares nothing with it but strings,
// which nobody changes. It keeps the room that is there.
func copyTensors(to, from []Tensor) []Tensor {
	for len(to) < len(from) {
		to = append(to, Tensor{})
	}
	to = to[:len(from)]
	for i := range from {
		t := &to[i]
		t.Name, t.Datatype = from[i].Name, from[i].Datatype
		t.Shape = append(t.Shape[:0], from[i].Shape...)
		t.Data = copyData(t.Data, 0, from[i].Data)
	}
	return to
}

// copyData writes from behind the first at elements of to, in the room that is
// there.
func copyData(to any, at int, from any) any {
	switch d := from.(type) {
	case []bool:
		return refill(to, at, d)
	case []uint8:
		return refill(to, at, d)
	case []uint16:
		return refill(to, at, d)
	case []uint32:
		return refill(to, at, d)
	case []uint64:
		return refill(to, at, d)
	case []int8:
		return refill(to, at, d)
	case []int16:
		return refill(to, at, d)
	case []int32:
		return refill(to, at, d)
	case []int64:
		return refill(to, at, d)
	case []Float16:
		return refill(to, at, d)
	case []BFloat16:
		return refill(to, at, d)
	case []float32:
		return refill(to, at, d)
	case []float64:
		return refill(to, at, d)
	case []string:
		return refill(to, at, d)
	}
	return nil
}

func refill[T any](to any, at int, from []T) any {
	room, _ := to.([]T)
	return append(room[:at], from...)
}

// sizeOf is about how many bytes the tensors' data take.
func sizeOf(tensors []Tensor) (bytes int64) {
	for i := range tensors {
		t := &tensors[i]
		if s, ok := t.Data.([]string); ok {
			for _, v := range s {
				bytes += int64(len(v)) + 16 // and its header
			}
			continue
		}
		n, _ := dataLen(t.Datatype, t.Data)
		bytes += int64(n) * int64(release.ElementSize(t.Datatype))
	}
	return bytes
}
