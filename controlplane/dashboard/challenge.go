package dashboard

import (
	"context"
	"math"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// modelView is a model with what runs beside its versions.
type modelView struct {
	*operator.ModelDetail

	Challenge *challengeView // nil where there never was one
	History   *operator.History
	Labels    *groundTruth

	Promotions *promotionsView
}

// challengeView is a challenge as a page shows it.
type challengeView struct {
	*operator.ChallengeDetail
}

// challengeOf is the newest challenge of a model, nil for none.
func (s *Server) challengeOf(ctx context.Context, model string) (*challengeView, error) {
	c, err := s.cfg.Service.Challenge(ctx, model)
	if operator.CodeOf(err) == operator.NotFound {
		return nil, nil //nolint:nilnil // a model needs no challenger
	}
	if err != nil {
		return nil, err
	}
	return &challengeView{c}, nil
}

// Part is what the challenger takes part in.
func (c *challengeView) Part() string { return partText(c.Role, c.Share) }

// Where are the devices it is meant for.
func (c *challengeView) Where() string {
	switch {
	case c.Device != "":
		return c.Device
	case c.Selector != "":
		return c.Selector
	}
	return "all devices that have the model"
}

// partText says in words what a challenger takes part in.
func partText(role string, perMille int) string {
	share := strconv.FormatFloat(float64(perMille)/10, 'f', -1, 64) + "\u2009%"
	switch {
	case role == operator.Share:
		return "answers " + share + " of the calls"
	case perMille == 0 || perMille == 1000:
		return "shadow of all calls"
	}
	return "shadow of " + share + " of the calls"
}

// faster compares two latencies in words.
func faster(us, primary uint64) string {
	if us == 0 || primary == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(us)/float64(primary), 'f', 2, 64) + " ×"
}

func challengeForm(ctx context.Context, s Service, r *request) (*form, error) {
	v, err := s.Version(ctx, r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	return &form{
		Title: "Run " + v.Model + " " + v.Version.Version + " beside what serves", Button: "Run it",
		Back: "/models/" + queryPath(v.Model),
		Text: "Matching devices fetch it, try it as any version, and run it beside the one they serve. As a shadow it answers nobody; with a share it answers that share of the calls, by the key of each. It takes the place of the model's present challenger. Once it is proven to be no worse it is proposed for promotion, once it is proven to be worse it is taken away.",
		Fields: append([]field{
			{Name: "role", Label: "Part", Value: operator.Shadow, Options: []string{operator.Shadow, operator.Share}},
			{Name: "share", Label: "Share of the calls, percent", Hint: "Empty is all of them for a shadow."},
			{Name: "selector", Label: "Devices", Hint: "Labels, for example site=b. Empty is every device that has the model."},
		}, testFields()...),
	}, nil
}

func setChallenge(ctx context.Context, s Service, r *request) error {
	n := operator.ChallengeCreate{
		Version: r.PathValue("version"), Role: r.PostForm.Get("role"), Selector: strings.TrimSpace(r.PostForm.Get("selector")), Reason: reasonOf(r),
	}
	if text := strings.TrimSuffix(strings.TrimSpace(r.PostForm.Get("share")), "%"); text != "" {
		percent, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || !(percent > 0 && percent <= 100) {
			return operator.Errorf(operator.Invalid, "share %.20q is no percentage above 0 and up to 100", text)
		}
		n.Share = int(math.Round(percent * 10))
	}
	if err := testRules(r.PostForm, &n); err != nil {
		return err
	}
	_, err := s.SetChallenge(ctx, r.PathValue("model"), n)
	return err
}

func endChallengeForm(_ context.Context, _ Service, r *request) (*form, error) {
	model := r.PathValue("model")
	return &form{
		Title: "End the challenge of " + model, Button: "Take it away", Danger: true, Back: "/models/" + queryPath(model),
		Text: "Devices stop the challenger and go on with the version they serve. What it showed stays here.",
	}, nil
}

func endChallenge(ctx context.Context, s Service, r *request) error {
	_, err := s.EndChallenge(ctx, r.PathValue("model"), operator.Reasoned{Reason: reasonOf(r)})
	return err
}
