// Package inference is the Open Inference Protocol v2 over gRPC as generated
// code: messages, client and server. The server itself is in agent/serve.
package inference
