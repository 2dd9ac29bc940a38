package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of onnx.proto that a perceptron needs.
const (
	modelIR, modelProducer, modelGraph, modelOpset           = 1, 2, 7, 8
	graphNode, graphName, graphInitializer                   = 1, 2, 5
	graphInput, graphOutput                                  = 11, 12
	nodeInput, nodeOutput, nodeOp                            = 1, 2, 4
	tensorDims, tensorType, tensorName, tensorRaw            = 1, 2, 8, 9
	valueName, valueType, typeTensor, elemType, typeShape    = 1, 2, 1, 1, 2
	shapeDim, dimValue, dimParam, opsetVersion, floatElement = 1, 1, 2, 2, 1
)

// perceptron is an ONNX file of a multi-layer perceptron with ReLU between its
// layers and random weights: a model of a chosen cost.
func perceptron(sizes ...int) []byte {
	rnd := rand.New(rand.NewPCG(1, uint64(len(sizes)))) //nolint:gosec // weights, not secrets
	var g []byte
	g = text(g, graphName, "perceptron")
	from := "X"
	for i := 1; i < len(sizes); i++ {
		w, b, sum, to := fmt.Sprintf("W%d", i), fmt.Sprintf("B%d", i), fmt.Sprintf("S%d", i), fmt.Sprintf("R%d", i)
		g = message(g, graphInitializer, weights(rnd, w, sizes[i-1], sizes[i]))
		g = message(g, graphInitializer, weights(rnd, b, sizes[i]))
		g = message(g, graphNode, node("MatMul", "M"+w, from, w))
		if i == len(sizes)-1 {
			sum = "Y"
		}
		g = message(g, graphNode, node("Add", sum, "M"+w, b))
		if i < len(sizes)-1 {
			g = message(g, graphNode, node("Relu", to, sum))
		}
		from = to
	}
	g = message(g, graphInput, value("X", sizes[0]))
	g = message(g, graphOutput, value("Y", sizes[len(sizes)-1]))

	var m []byte
	m = number64(m, modelIR, 8)
	m = text(m, modelProducer, "vedette bench")
	m = message(m, modelGraph, g)
	return message(m, modelOpset, number64(nil, opsetVersion, 15))
}

func weights(rnd *rand.Rand, name string, dims ...int) []byte {
	n := 1
	var t []byte
	for _, d := range dims {
		t = number64(t, tensorDims, d)
		n *= d
	}
	raw := make([]byte, 0, 4*n)
	scale := 1 / math.Sqrt(float64(dims[0]))
	for range n {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(rnd.NormFloat64()*scale)))
	}
	t = number64(t, tensorType, floatElement)
	t = text(t, tensorName, name)
	return message(t, tensorRaw, raw)
}

func node(op, output string, inputs ...string) []byte {
	var n []byte
	for _, in := range inputs {
		n = text(n, nodeInput, in)
	}
	n = text(n, nodeOutput, output)
	return text(n, nodeOp, op)
}

// value is a float tensor of any number of rows.
func value(name string, width int) []byte {
	shape := message(nil, shapeDim, text(nil, dimParam, "N"))
	shape = message(shape, shapeDim, number64(nil, dimValue, width))
	tensor := message(number64(nil, elemType, floatElement), typeShape, shape)
	return message(text(nil, valueName, name), valueType, message(nil, typeTensor, tensor))
}

func message(to []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, field, protowire.BytesType), m)
}

func text(to []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, field, protowire.BytesType), s)
}

func number64(to []byte, field protowire.Number, v int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(to, field, protowire.VarintType), uint64(v)) //nolint:gosec // sizes and versions
}
