// Package mlflow is the MLflow REST API, as its 2.x and 3.x clients speak it: it
// decodes a request, checks who makes it, calls package tracking, and encodes
// what comes back in the forms those clients expect. Artifacts go through it to
// the blob store as streams.
//
// Parties: a data scientist's client holds an operator token, sent as a bearer
// token (MLFLOW_TRACKING_TOKEN) or as the password of basic authentication. These
// paths take no cookies, so another site cannot make a browser send one.
package mlflow
