// Command kserve asks a server of the Open Inference Protocol over gRPC with the
// client that KServe generated, and prints what it is told as JSON lines. It is
// a module of its own because that client's messages have the names of ours.
//
//	kserve TARGET
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	inference "github.com/kserve/modelmesh-serving/fvt/generated"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "kserve:", err)
		os.Exit(1)
	}
}

// line is one question with its answer.
type line struct {
	Ask    string `json:"ask"`
	Code   string `json:"code"`
	Answer any    `json:"answer,omitempty"`
}

func run(target string) error {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, out := inference.NewGRPCInferenceServiceClient(conn), json.NewEncoder(os.Stdout)
	tell := func(ask string, answer any, err error) error {
		if err != nil {
			answer = status.Convert(err).Message()
		}
		return out.Encode(line{ask, status.Code(err).String(), answer})
	}
	for _, ask := range []func() error{
		func() error {
			a, err := c.ServerLive(ctx, &inference.ServerLiveRequest{})
			return tell("live", a.GetLive(), err)
		},
		func() error {
			a, err := c.ServerReady(ctx, &inference.ServerReadyRequest{})
			return tell("ready", a.GetReady(), err)
		},
		func() error {
			a, err := c.ModelReady(ctx, &inference.ModelReadyRequest{Name: "adder"})
			return tell("model ready", a.GetReady(), err)
		},
		func() error {
			a, err := c.ModelReady(ctx, &inference.ModelReadyRequest{Name: "adder", Version: "v9"})
			return tell("other version", a.GetReady(), err)
		},
		func() error {
			a, err := c.ServerMetadata(ctx, &inference.ServerMetadataRequest{})
			return tell("server", a, err)
		},
		func() error {
			a, err := c.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: "adder", Version: "v1"})
			return tell("model", a, err)
		},
		func() error { a, err := c.ModelInfer(ctx, typed()); return tell("typed", a, err) },
		func() error { a, err := c.ModelInfer(ctx, raw()); return tell("raw", a, err) },
		func() error { a, err := c.ModelInfer(ctx, both()); return tell("both", a, err) },
	} {
		if err := ask(); err != nil {
			return err
		}
	}
	return nil
}

func typed() *inference.ModelInferRequest {
	return &inference.ModelInferRequest{
		ModelName: "adder", Id: "typed-1",
		Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: "X", Datatype: "FP32", Shape: []int64{2, 3}, Contents: &inference.InferTensorContents{Fp32Contents: []float32{1, 2, 3, -4, -5.5, 0.25}}},
			{Name: "note", Datatype: "BYTES", Shape: []int64{2}, Contents: &inference.InferTensorContents{BytesContents: [][]byte{[]byte("a"), []byte("bc")}}},
		},
	}
}

func raw() *inference.ModelInferRequest {
	r := typed()
	r.Id = "raw-1"
	for _, in := range r.Inputs {
		in.Contents = nil
	}
	var x []byte
	for _, v := range []float32{1, 2, 3, -4, -5.5, 0.25} {
		x = binary.LittleEndian.AppendUint32(x, math.Float32bits(v))
	}
	r.RawInputContents = [][]byte{x, []byte("\x01\x00\x00\x00a\x02\x00\x00\x00bc")}
	return r
}

func both() *inference.ModelInferRequest {
	r := typed()
	r.RawInputContents = raw().RawInputContents
	return r
}
