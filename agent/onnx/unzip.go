package onnx

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of onnx.proto that unzip looks at.
const (
	modelGraph                          = 7
	graphNode, graphInput, graphOutput  = 1, 11, 12
	nodeInput, nodeOutput, nodeOperator = 1, 2, 4
	valueName, valueType                = 1, 2
	typeTensor, tensorElement, floats   = 1, 1, 1
)

// unzip takes the ZipMap nodes off the end of a model whose outputs are named in
// maps, so that a classifier gives the scores themselves: a ZipMap does nothing
// but put a row's numbers into a map, and reading maps back takes about 10 µs a
// row, more than most classifiers compute. It returns the model and the name of
// the scores for each output, nil when there is nothing to take off.
func unzip(model []byte, maps map[string]bool) (rewritten []byte, scores map[string]string) {
	ok := fields(model, func(n protowire.Number, field, body []byte) {
		if n != modelGraph {
			rewritten = append(rewritten, field...)
			return
		}
		var graph []byte
		graph, scores = unzipGraph(body, maps)
		rewritten = append(rewritten, bytesField(modelGraph, graph)...)
	})
	if !ok || len(scores) == 0 {
		return nil, nil
	}
	return rewritten, scores
}

func unzipGraph(graph []byte, maps map[string]bool) (rewritten []byte, scores map[string]string) {
	scores = map[string]string{}
	given := map[string]bool{} // inputs and outputs of the graph, which have their names already
	fields(graph, func(n protowire.Number, _, body []byte) {
		if n == graphInput || n == graphOutput {
			given[first(body, valueName)] = true
		}
	})
	fields(graph, func(n protowire.Number, field, body []byte) {
		if n == graphNode && first(body, nodeOperator) == "ZipMap" {
			from, to := first(body, nodeInput), first(body, nodeOutput)
			if maps[to] && from != "" && !given[from] {
				given[from], scores[to] = true, from
				return
			}
		}
		rewritten = append(rewritten, field...)
	})
	graph, rewritten = rewritten, nil
	fields(graph, func(n protowire.Number, field, body []byte) {
		if from := scores[first(body, valueName)]; n == graphOutput && from != "" {
			field = bytesField(graphOutput, floatValue(from))
		}
		rewritten = append(rewritten, field...)
	})
	return rewritten, scores
}

// floatValue is a ValueInfoProto of a tensor of FP32 whose shape is not said.
func floatValue(name string) []byte {
	element := protowire.AppendVarint(protowire.AppendTag(nil, tensorElement, protowire.VarintType), floats)
	return append(bytesField(valueName, []byte(name)), bytesField(valueType, bytesField(typeTensor, element))...)
}

func bytesField(n protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), body)
}

// first is the first text in field n of a message, empty for none.
func first(message []byte, n protowire.Number) (text string) {
	found := false
	fields(message, func(have protowire.Number, _, body []byte) {
		if have == n && !found {
			text, found = string(body), true
		}
	})
	return text
}

// fields calls fn with every field of a message, whole and its body alone, and
// says whether all could be read.
func fields(message []byte, fn func(n protowire.Number, field, body []byte)) bool {
	for len(message) > 0 {
		n, typ, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return false
		}
		size := protowire.ConsumeFieldValue(n, typ, message[tag:])
		if size < 0 {
			return false
		}
		var body []byte
		if typ == protowire.BytesType {
			body, _ = protowire.ConsumeBytes(message[tag:])
		}
		fn(n, message[:tag+size], body)
		message = message[tag+size:]
	}
	return true
}
