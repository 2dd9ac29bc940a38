package dashboard

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func (f *fleet) Truths(_ context.Context, model string) (*operator.Truths, error) {
	counts := operator.TruthCounts{Queued: 1240, Rejected: 3, Waiting: 120, Matched: 1104, Unmatched: 9, Repeated: 4, Refused: 2, Expired: 1}
	return &operator.Truths{Model: model, TruthCounts: counts, Uploads: []operator.TruthUpload{{
		TruthCounts: counts, ID: "0f9c", Model: model, Name: f.text("night-shift.csv"), Actor: f.text("ann"), Reason: f.text("read by hand"),
		At: now.Add(-time.Hour), Devices: 7, Behind: []string{"cam-b2", "cam-c1"},
	}}}, nil
}

func (f *fleet) Samples(_ context.Context, model string, _ operator.SampleQuery) (*operator.Samples, error) {
	return &operator.Samples{
		Model: model, Samples: 96, Rows: 1130, Bytes: 700_000, Oldest: now.Add(-24 * time.Hour), Newest: now, Expires: now.Add(29 * 24 * time.Hour),
		Strata: []operator.SampledPart{
			{Version: "1", Stratum: f.text("seven"), Rows: 130, Seen: 140, Devices: 8}, {Version: "1", Stratum: "zero", Rows: 1000, Seen: 52_000, Devices: 8},
		},
		Plans: []operator.SamplingPlan{{Version: "1", Release: digest1, Sampling: release.Sampling{
			Recipient: "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", Rows: 16, Rate: 0.01, Strata: "class", Expires: release.Duration(30 * 24 * time.Hour),
		}}},
	}, nil
}
