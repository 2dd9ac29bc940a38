package protocol

// Routes of the device HTTP API [P-6]. All but EnrolPath ask for the device's
// certificate.
const (
	EnrolPath = "/device/v1/enrol"  // POST EnrolRequest → EnrolResponse
	RenewPath = "/device/v1/renew"  // POST RenewRequest → EnrolResponse; the certificate may have expired
	TrustPath = "/device/v1/trust/" // GET TrustPath + name + ".json"
	BlobPath  = "/device/v1/blobs/" // GET BlobPath + SHA-256 in hex; Range
	// DeltaSuffix after a blob's path asks for a delta to it [P-7]: GET
	// …/delta?from=SHA-256,SHA-256,… → DeltaOffer, or 204 for none.
	DeltaSuffix = "/delta"
	// TruthPath gives the truths that wait for the device [P-9]: POST TruthTaken,
	// of the newest batch taken → the next TruthBatch, or 204 for none.
	TruthPath = "/device/v1/truths"
)

// MediaProtobuf is the media type of TruthTaken and TruthBatch.
const MediaProtobuf = "application/protobuf"

// Bounds of truths [P-9.4].
const (
	MaxTruths     = 2000      // in one batch
	MaxTruthBatch = 256 << 10 // bytes of one batch
	MaxTruthText  = 256       // bytes of an id or a label
)

// MaxSample bounds an encoded sample in bytes [P-10.3].
const MaxSample = 48 << 10

// Kinds of the events by which a device tells what became of a delta [P-7.6].
const (
	EventDeltaApplied = "delta_applied"
	EventDeltaFailed  = "delta_failed"
	// AttrDelta is the attribute that holds the delta's SHA-256 in hex.
	AttrDelta = "delta"
)

// MaxDeltaFrom is how many files a device may name as ones it has [P-7.1].
const MaxDeltaFrom = 8

// DeltaOffer names the delta that makes the file asked for of one that the
// device has. It is a blob like any other.
type DeltaOffer struct {
	From  string `json:"from"`  // SHA-256 in hex of the file to start from
	Delta string `json:"delta"` // SHA-256 in hex
	Size  int64  `json:"size"`  // of the delta, in bytes
}

// EnrolRequest asks for a device's first certificate.
type EnrolRequest struct {
	Token  string `json:"token"`            // EnrolmentToken.Secret
	Device string `json:"device,omitempty"` // id proposed; the token may fix another
	CSR    string `json:"csr"`              // PEM; ECDSA P-256
}

// EnrolResponse is the answer to both an enrolment and a renewal.
type EnrolResponse struct {
	Device      string   `json:"device"`
	Certificate string   `json:"certificate"`    // PEM, the device's
	CA          string   `json:"ca"`             // PEM
	MQTT        []string `json:"mqtt,omitempty"` // brokers; none: as before
	ServerMS    int64    `json:"server_ms"`
}

// RenewRequest asks for the next certificate.
type RenewRequest struct {
	CSR string `json:"csr"` // PEM; ECDSA P-256
}

// APIError is the body of every answer of the device API that is no success.
type APIError struct {
	Code    string `json:"code"`    // one of Code…; it does not change, messages do
	Message string `json:"message"` // for people
}

// Error returns message and code.
func (e *APIError) Error() string { return e.Message + " (" + e.Code + ")" }

// Codes of the device API.
const (
	CodeInvalid      = "invalid"       // the request is malformed
	CodeTokenUnknown = "token_unknown" // no such token, or a wrong secret
	CodeTokenExpired = "token_expired" //
	CodeTokenUsed    = "token_used"    // as often as it allows
	CodeTokenRevoked = "token_revoked" //
	CodeDeviceExists = "device_exists" // the id is taken, and the token may not replace it
	CodeCertificate  = "certificate"   // none, not of this CA, or expired too long ago
	CodeRevoked      = "revoked"       // the device or this certificate was revoked
	CodeNotFound     = "not_found"     //
	CodeTooLarge     = "too_large"     //
	CodeTooMany      = "too_many"      // requests; Retry-After says when
	CodeUnavailable  = "unavailable"   // the server is starting, stopping or out of disk
	CodeInternal     = "internal"      // a fault of the server
)
