package mlflow

import (
	"context"
	"errors"
	"io"
	"maps"
	"mime"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/vedette-edge/vedette/controlplane/tracking"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Tags that say whether devices can run a version.
const (
	tagDeployable = operator.TagDeployable
	tagReason     = operator.TagNotDeployable
)

// maxMLmodel bounds the description of a model, bytes.
const maxMLmodel = 1 << 20

// verdict is whether devices can run what was logged. Without known it is not
// decided: there is nothing to look at yet.
type verdict struct {
	known, deployable bool
	reason            string
}

func (v verdict) into(tags map[string]string) {
	if !v.known {
		return
	}
	tags[tagDeployable], tags[tagReason] = strconv.FormatBool(v.deployable), v.reason
}

// mlmodel is what is read of an MLmodel file.
type mlmodel struct {
	Flavors map[string]flavor `yaml:"flavors"`
}

// flavor is one way to load a model; data is the file of the ONNX one.
type flavor struct {
	Data any `yaml:"data"`
}

// examine looks at the artifacts of a model. Only an ONNX graph runs on
// devices; a pickle is code, and nobody signs code that cannot be read.
func (s *Server) examine(ctx context.Context, uri string) (verdict, error) {
	base, ok := proxyPath(uri)
	if !ok {
		return verdict{known: true, reason: "its artifacts are not kept by this server: log the model here to deploy it"}, nil
	}
	text, err := s.readSmall(ctx, base+"/MLmodel")
	if e, ok := errors.AsType[*tracking.Error](err); ok && e.Code == tracking.NotFound {
		return verdict{}, nil
	}
	if err != nil {
		return verdict{}, err
	}
	var m mlmodel
	if err := yaml.Unmarshal(text, &m); err != nil {
		return verdict{known: true, reason: "its MLmodel file cannot be read: log the model again"}, nil //nolint:nilerr // a fault of what was logged
	}
	return s.judge(ctx, base, &m)
}

func (s *Server) judge(ctx context.Context, base string, m *mlmodel) (verdict, error) {
	onnx, ok := m.Flavors["onnx"]
	if !ok {
		return verdict{known: true, reason: notPortable(slices.Sorted(maps.Keys(m.Flavors)))}, nil
	}
	name, _ := onnx.Data.(string)
	if name == "" {
		name = "model.onnx"
	}
	graph, err := cleanPath(name)
	if err != nil {
		return verdict{known: true, reason: "its MLmodel file names no graph: log the model again with mlflow.onnx.log_model"}, nil //nolint:nilerr // a fault of what was logged
	}
	_, err = s.cfg.Files.Stat(ctx, join(base, graph))
	if e, ok := errors.AsType[*tracking.Error](err); ok && e.Code == tracking.NotFound {
		return verdict{known: true, reason: "its graph " + name + " was not uploaded: log the model again"}, nil
	}
	if err != nil {
		return verdict{}, err
	}
	return verdict{known: true, deployable: true, reason: "it has an ONNX graph"}, nil
}

func notPortable(flavors []string) string {
	flavors = slices.DeleteFunc(flavors, func(f string) bool { return f == "python_function" })
	what := strings.Join(flavors, " and ")
	if what == "" {
		what = "Python code"
	}
	return "it is only a pickle (" + what + "), and devices run ONNX graphs: convert it and log it with mlflow.onnx.log_model"
}

func (s *Server) readSmall(ctx context.Context, path string) ([]byte, error) {
	f, _, err := s.cfg.Files.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxMLmodel))
}

// decide looks again at a version that was registered before its artifacts were
// there. That it fails is no reason not to show the version.
func (s *Server) decide(ctx context.Context, v *tracking.ModelVersion) {
	if v.Tags[tagDeployable] != "" {
		return
	}
	found, err := s.examine(ctx, v.ArtifactURI)
	if err != nil || !found.known {
		return
	}
	tags := maps.Clone(v.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	found.into(tags)
	for _, key := range []string{tagDeployable, tagReason} {
		value := tags[key]
		if err := s.cfg.Store.SetVersionTag(ctx, v.Name, v.Version, key, &value); err != nil {
			s.cfg.Log.Warn("whether a version is deployable was not kept", "model", v.Name, "version", v.Version, "error", err)
			return
		}
	}
	v.Tags = tags
}

// statusText says in a version's status what its tags say.
func statusText(v *tracking.ModelVersion) string {
	switch v.Tags[tagDeployable] {
	case "true":
		return ""
	case "false":
		return "Registered, but not deployable: " + v.Tags[tagReason]
	}
	return "Registered; no MLmodel file has been logged yet, so whether devices can run it is not known"
}

// contentDisposition names a file for whoever saves it.
func contentDisposition(name string) string {
	if value := mime.FormatMediaType("attachment", map[string]string{"filename": name}); value != "" {
		return value
	}
	return "attachment"
}
