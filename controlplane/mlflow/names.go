package mlflow

import (
	"fmt"
	"math/rand/v2"
)

// Runs that nobody named get a name that is easier to say than an id.
var (
	adjectives = []string{
		"amber", "brave", "calm", "dapper", "eager", "fleet", "gentle", "hardy", "keen", "lively", "mellow", "nimble",
		"patient", "quiet", "rapid", "sober", "steady", "tidy", "upright", "vivid", "wary", "young", "zesty",
	}
	nouns = []string{
		"badger", "crane", "dunlin", "egret", "falcon", "grebe", "heron", "ibex", "jackdaw", "kestrel", "lapwing", "marten",
		"otter", "plover", "quail", "raven", "sentry", "tern", "urchin", "vole", "wren", "picket", "scout",
	}
)

func randomName() string {
	//nolint:gosec // a name, not a secret
	return fmt.Sprintf("%s-%s-%d", adjectives[rand.IntN(len(adjectives))], nouns[rand.IntN(len(nouns))], rand.IntN(1000))
}
