package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/inference"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Bounds of a gRPC connection. Its buffers are small because a device has many
// callers with little to say rather than one with much.
const (
	grpcBuffer  = 8 << 10 // bytes, for reading and for writing each
	grpcStreams = 64      // calls at once
)

// rpc is the Open Inference Protocol over gRPC.
type rpc struct {
	inference.UnimplementedGRPCInferenceServiceServer
	server *Server
}

var _ inference.GRPCInferenceServiceServer = (*rpc)(nil)

// newGRPC makes the gRPC server, with the standard's health service.
func (s *Server) newGRPC() *grpc.Server {
	g := grpc.NewServer(
		grpc.ReadBufferSize(grpcBuffer), grpc.WriteBufferSize(grpcBuffer),
		grpc.MaxRecvMsgSize(int(s.cfg.MaxBody)), grpc.MaxHeaderListSize(maxHeader), grpc.MaxConcurrentStreams(grpcStreams),
		grpc.ConnectionTimeout(bodyTimeout), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout}),
		grpc.UnaryInterceptor(s.intercept),
	)
	inference.RegisterGRPCInferenceServiceServer(g, &rpc{server: s})
	grpc_health_v1.RegisterHealthServer(g, &health{server: s})
	return g
}

// serveGRPC serves the listeners of gRPC, if there are any.
func (s *Server) serveGRPC() {
	if len(s.grpcListeners) == 0 {
		return
	}
	s.grpc = s.newGRPC()
	for _, l := range s.grpcListeners {
		s.wg.Go(func() {
			if err := s.grpc.Serve(netutil.LimitListener(l, s.cfg.Connections)); err != nil && !errors.Is(err, net.ErrClosed) {
				s.cfg.Log.Error("serving predictions ended", "address", l.Addr().String(), "error", err)
			}
		})
	}
}

// stopGRPC waits for the calls in progress until ctx ends and then cuts them.
func (s *Server) stopGRPC(ctx context.Context) {
	if s.grpc == nil {
		return
	}
	stop := context.AfterFunc(ctx, s.grpc.Stop)
	defer stop()
	s.grpc.GracefulStop()
}

// intercept counts and times calls and turns errors and panics into statuses.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, fmt.Errorf("a request made the server panic: %v", p)
		}
		err = s.statusOf(err)
		s.metrics.call(info.FullMethod, status.Code(err), time.Since(start))
	}()
	return next(ctx, req)
}

// statusOf is an error as gRPC tells it, with the time after which to try again.
func (s *Server) statusOf(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	v := verdictOf(err)
	if v.code == codes.Internal {
		s.cfg.Log.Warn("a request failed", "error", err)
	}
	st := status.New(v.code, err.Error())
	if v.after > 0 {
		if more, detailErr := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(v.after)}); detailErr == nil {
			st = more
		}
	}
	return st.Err()
}

// ServerLive answers as long as the process does.
func (*rpc) ServerLive(context.Context, *inference.ServerLiveRequest) (*inference.ServerLiveResponse, error) {
	return &inference.ServerLiveResponse{Live: true}, nil
}

// ServerReady says whether any model answers.
func (g *rpc) ServerReady(context.Context, *inference.ServerReadyRequest) (*inference.ServerReadyResponse, error) {
	return &inference.ServerReadyResponse{Ready: g.server.isReady()}, nil
}

// ModelReady says whether the model answers, in the version asked for.
func (g *rpc) ModelReady(_ context.Context, req *inference.ModelReadyRequest) (*inference.ModelReadyResponse, error) {
	_, err := g.server.serving(req.GetName(), req.GetVersion())
	if err != nil && verdictOf(err).status != http.StatusServiceUnavailable {
		return nil, err
	}
	return &inference.ModelReadyResponse{Ready: err == nil}, nil
}

// ServerMetadata names this server.
func (g *rpc) ServerMetadata(context.Context, *inference.ServerMetadataRequest) (*inference.ServerMetadataResponse, error) {
	return &inference.ServerMetadataResponse{Name: serverName, Version: g.server.cfg.Version, Extensions: extensions}, nil
}

// ModelMetadata describes a model.
func (g *rpc) ModelMetadata(_ context.Context, req *inference.ModelMetadataRequest) (*inference.ModelMetadataResponse, error) {
	m, err := g.server.serving(req.GetName(), req.GetVersion())
	if err != nil {
		return nil, err
	}
	return &inference.ModelMetadataResponse{
		Name: m.Model, Versions: []string{m.Version}, Platform: platform,
		Inputs: described(m.Schema.Inputs), Outputs: described(m.Schema.Outputs),
	}, nil
}

func described(ts []release.Tensor) []*inference.ModelMetadataResponse_TensorMetadata {
	list := make([]*inference.ModelMetadataResponse_TensorMetadata, len(ts))
	for i, t := range ts {
		list[i] = &inference.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape}
	}
	return list
}

// ModelInfer computes a prediction. The call's own deadline bounds the wait.
func (g *rpc) ModelInfer(ctx context.Context, in *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	req, err := fromCall(in)
	if err != nil {
		return nil, err
	}
	start, resp := time.Now(), &infer.Response{}
	err = g.server.answer(ctx, req, resp)
	if g.server.traces != nil {
		g.server.traces.span(ctx, callHeaders(ctx), &req.Request, resp, start, err)
	}
	if err != nil {
		return nil, err
	}
	return toCall(req, resp), nil
}

// callHeaders are the metadata that came with a call.
func callHeaders(ctx context.Context) carrier {
	return func(key string) string {
		if v := metadata.ValueFromIncomingContext(ctx, key); len(v) > 0 {
			return v[0]
		}
		return ""
	}
}

// health is the health service of gRPC: of the whole server under an empty name,
// of a model under its own.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	server *Server
}

// Check answers for one name. Watching is not offered: clients then ask again.
func (h *health) Check(_ context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	state := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	switch name := req.GetService(); name {
	case "", inference.GRPCInferenceService_ServiceDesc.ServiceName:
		if h.server.isReady() {
			state = grpc_health_v1.HealthCheckResponse_SERVING
		}
	default:
		_, err := h.server.serving(name, "")
		if err != nil && verdictOf(err).status != http.StatusServiceUnavailable {
			return nil, err
		}
		if err == nil {
			state = grpc_health_v1.HealthCheckResponse_SERVING
		}
	}
	return &grpc_health_v1.HealthCheckResponse{Status: state}, nil
}
