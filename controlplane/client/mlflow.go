package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Paths of the MLflow REST API.
const (
	mlflowPath    = "/api/2.0/mlflow/"
	artifactsPath = "/api/2.0/mlflow-artifacts/artifacts"
	artifactsURI  = "mlflow-artifacts:/"
)

// Registered is one registered version of a model, as the MLflow API shows it.
type Registered struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Source  string `json:"source"`
	Run     string `json:"run_id"`
	ModelID string `json:"model_id"`
	User    string `json:"user_id"`
	Tags    Pairs  `json:"tags"`
}

// MLflowRun is a training run, as the MLflow API shows it.
type MLflowRun struct {
	Info struct {
		ID          string `json:"run_id"`
		Name        string `json:"run_name"`
		User        string `json:"user_id"`
		ArtifactURI string `json:"artifact_uri"`
	} `json:"info"`
	Data struct {
		Metrics []RunMetric `json:"metrics"`
		Params  Pairs       `json:"params"`
		Tags    Pairs       `json:"tags"`
	} `json:"data"`
	Inputs struct {
		Datasets []struct {
			Dataset struct {
				Name   string `json:"name"`
				Digest string `json:"digest"`
			} `json:"dataset"`
		} `json:"dataset_inputs"`
	} `json:"inputs"`
}

// RunMetric is the newest value of a metric. What is no number in JSON, such as
// NaN, is nil.
type RunMetric struct {
	Key   string
	Value *float64
}

// UnmarshalJSON takes values that MLflow writes as text for none.
func (m *RunMetric) UnmarshalJSON(b []byte) error {
	var wire struct {
		Key   string          `json:"key"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(b, &wire); err != nil {
		return err
	}
	m.Key = wire.Key
	var value float64
	if json.Unmarshal(wire.Value, &value) == nil {
		m.Value = &value
	}
	return nil
}

// Pairs are tags or parameters.
type Pairs map[string]string

// UnmarshalJSON reads MLflow's list of keys and values.
func (p *Pairs) UnmarshalJSON(b []byte) error {
	var list []struct{ Key, Value string }
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	*p = make(Pairs, len(list))
	for _, kv := range list {
		(*p)[kv.Key] = kv.Value
	}
	return nil
}

// SearchRegistered finds registered versions by an MLflow filter, all pages.
func (c *Client) SearchRegistered(ctx context.Context, filter string) ([]Registered, error) {
	var all []Registered
	query := url.Values{"filter": {filter}, "max_results": {"1000"}, "order_by": {"name", "version_number"}}
	for {
		var page struct {
			Versions []Registered `json:"model_versions"`
			Next     string       `json:"next_page_token"`
		}
		if err := c.mlflow(ctx, http.MethodGet, "model-versions/search", query, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Versions...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("page_token", page.Next)
	}
}

// RegisteredVersion is one registered version of a model.
func (c *Client) RegisteredVersion(ctx context.Context, name, version string) (*Registered, error) {
	var reply struct {
		Version Registered `json:"model_version"`
	}
	err := c.mlflow(ctx, http.MethodGet, "model-versions/get", url.Values{"name": {name}, "version": {version}}, nil, &reply)
	if err != nil {
		return nil, err
	}
	return &reply.Version, nil
}

// ArtifactURI is where the files of a registered version lie.
func (c *Client) ArtifactURI(ctx context.Context, name, version string) (string, error) {
	var reply struct {
		URI string `json:"artifact_uri"`
	}
	err := c.mlflow(ctx, http.MethodGet, "model-versions/get-download-uri", url.Values{"name": {name}, "version": {version}}, nil, &reply)
	return reply.URI, err
}

// MLflowRun reads a training run.
func (c *Client) MLflowRun(ctx context.Context, id string) (*MLflowRun, error) {
	var reply struct {
		Run MLflowRun `json:"run"`
	}
	if err := c.mlflow(ctx, http.MethodGet, "runs/get", url.Values{"run_id": {id}}, nil, &reply); err != nil {
		return nil, err
	}
	return &reply.Run, nil
}

// TagRegistered sets a tag of a registered version; an empty value removes it.
func (c *Client) TagRegistered(ctx context.Context, name, version, key, value string) error {
	body := map[string]string{"name": name, "version": version, "key": key}
	if value == "" {
		err := c.mlflow(ctx, http.MethodDelete, "model-versions/delete-tag", nil, body, nil)
		if operator.CodeOf(err) == operator.NotFound {
			return nil
		}
		return err
	}
	body["value"] = value
	return c.mlflow(ctx, http.MethodPost, "model-versions/set-tag", nil, body, nil)
}

// Logged is one file or folder of the artifact proxy.
type Logged struct {
	Path string `json:"path"` // base name
	Dir  bool   `json:"is_dir"`
	Size int64  `json:"file_size"`
}

// ErrElsewhere says that artifacts are not kept by this server.
var ErrElsewhere = errors.New("artifacts lie outside of this server")

// proxied is the path of an artifact URI below the proxy.
func proxied(uri, below string) (string, error) {
	rest, ok := strings.CutPrefix(uri, artifactsURI)
	if !ok || strings.HasPrefix(rest, "/") {
		return "", fmt.Errorf("%w: %.200s", ErrElsewhere, uri)
	}
	return strings.Trim(strings.TrimSuffix(rest, "/")+"/"+below, "/"), nil
}

// LoggedFiles lists a folder below an artifact URI; one that is not there is empty.
func (c *Client) LoggedFiles(ctx context.Context, uri, below string) ([]Logged, error) {
	at, err := proxied(uri, below)
	if err != nil {
		return nil, err
	}
	var reply struct {
		Files []Logged `json:"files"`
	}
	err = c.retry(ctx, func() error {
		return c.exchangeMLflow(ctx, http.MethodGet, artifactsPath, url.Values{"path": {at}}, nil, &reply)
	})
	if operator.CodeOf(err) == operator.NotFound {
		return nil, nil
	}
	return reply.Files, err
}

// LoggedFile opens a file below an artifact URI from an offset on and tells its
// whole size and digest. The caller closes it. It is tried once.
func (c *Client) LoggedFile(ctx context.Context, uri, below string, offset int64) (content io.ReadCloser, size int64, d release.Digest, err error) {
	at, err := proxied(uri, below)
	if err != nil {
		return nil, 0, d, err
	}
	req, err := c.mlflowRequest(ctx, http.MethodGet, artifactsPath+path(strings.Split(at, "/")...), nil, nil)
	if err != nil {
		return nil, 0, d, err
	}
	return c.open(req, offset, mlflowRefusal)
}

// open asks for a file from an offset on, whose ETag is its digest.
func (c *Client) open(req *http.Request, offset int64, refusal func(*http.Response) error) (content io.ReadCloser, size int64, d release.Digest, err error) {
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, 0, d, c.unreachable(req.Context(), err)
	}
	if size, err = wholeSize(res, offset); err == nil {
		d, err = release.ParseDigest(strings.Trim(res.Header.Get("ETag"), `"`))
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		err = refusal(res)
	}
	if err != nil {
		return nil, 0, d, errors.Join(err, res.Body.Close())
	}
	return res.Body, size, d, nil
}

// wholeSize is the size of the file of which a response brings the rest.
func wholeSize(res *http.Response, offset int64) (int64, error) {
	if offset == 0 && res.StatusCode == http.StatusOK {
		return res.ContentLength, nil
	}
	at, size, ok := strings.Cut(strings.TrimPrefix(res.Header.Get("Content-Range"), "bytes "), "/")
	if !ok || !strings.HasPrefix(at, strconv.FormatInt(offset, 10)+"-") {
		return 0, operator.Errorf(operator.UnknownResponse, "asked for bytes from %d on, the server answered %s", offset, res.Status)
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0, operator.Errorf(operator.UnknownResponse, "size of a file: %w", err)
	}
	return n, nil
}

// mlflow calls the MLflow API; reads are tried again.
func (c *Client) mlflow(ctx context.Context, method, name string, query url.Values, body, result any) error {
	one := func() error {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return c.exchangeMLflow(ctx, method, mlflowPath+name, query, body, result)
	}
	if method != http.MethodGet {
		return one()
	}
	return c.retry(ctx, one)
}

func (c *Client) mlflowRequest(ctx context.Context, method, at string, query url.Values, body any) (*http.Request, error) {
	var content io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		content = bytes.NewReader(encoded)
	}
	target := c.base.String() + at
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "make request: %w", err)
	}
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

func (c *Client) exchangeMLflow(ctx context.Context, method, at string, query url.Values, body, result any) error {
	req, err := c.mlflowRequest(ctx, method, at, query, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return mlflowRefusal(res)
	}
	if result == nil {
		return nil
	}
	return decodeReply(res, result)
}

// mlflowCodes are the codes of the operator API that statuses of the MLflow API
// stand for.
var mlflowCodes = map[int]operator.Code{
	http.StatusBadRequest: operator.Invalid, http.StatusUnauthorized: operator.Unauthorized, http.StatusForbidden: operator.Forbidden,
	http.StatusNotFound: operator.NotFound, http.StatusConflict: operator.Conflict, http.StatusTooManyRequests: operator.TooMany,
	http.StatusServiceUnavailable: operator.Unavailable,
}

func mlflowRefusal(res *http.Response) error {
	var body struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, operator.MaxBody))
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	if err != nil || body.Code == "" {
		return operator.Errorf(operator.UnknownResponse, "the server answered %q, which is not the MLflow API", res.Status).
			WithHint("check the server URL, and any proxy between")
	}
	code, ok := mlflowCodes[res.StatusCode]
	if !ok {
		code = operator.UnknownResponse
	}
	e := operator.Errorf(code, "%s", body.Message)
	if code == operator.Unauthorized {
		return e.WithHint("set a valid token: vedette login, --token-file FILE or VEDETTE_TOKEN")
	}
	return e
}
