package tracking

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits, MLflow's where it has one.
const (
	MaxBatch     = 1000 // metrics, parameters and tags together in one call
	MaxMetrics   = 1000
	MaxParams    = 100
	MaxTags      = 100
	MaxKey       = 250       // bytes of a key
	MaxParam     = 6000      // characters of a parameter
	MaxTag       = 8000      // characters of a tag
	MaxName      = 256       // bytes of a name
	MaxText      = 64 << 10  // bytes of a description or a place
	MaxRunState  = 640 << 10 // bytes of all that a run is now, without histories: a checkpoint keeps it in one value
	MaxSnapshot  = 640 << 10 // the same of an experiment or a model
	maxModelTags = 1000
)

var (
	keyForm   = regexp.MustCompile(`^[/\w.\- ]*$`)
	runForm   = regexp.MustCompile(`^[a-zA-Z0-9][\w\-]{0,255}$`)
	aliasForm = regexp.MustCompile(`^[\w\-]{1,255}$`)
)

// checkKey checks the key of a parameter, a tag or a metric.
func checkKey(what, key string) error {
	switch {
	case key == "":
		return refuse(Invalid, "a %s needs a key", what)
	case len(key) > MaxKey:
		return refuse(Invalid, "%s key %.40q… has %d bytes, at most %d are allowed", what, key, len(key), MaxKey)
	case !keyForm.MatchString(key):
		return refuse(Invalid, "%s key %q may hold only letters, digits, underscores, dashes, periods, spaces and slashes", what, key)
	case key[0] == '/' || key == "." || slices.Contains(strings.Split(key, "/"), ".."):
		return refuse(Invalid, "%s key %q must not look like a path that leads elsewhere", what, key)
	}
	return nil
}

func checkText(what, text string, most int) error {
	if len(text) > most {
		return refuse(Invalid, "%s has %d bytes, at most %d are allowed", what, len(text), most)
	}
	if !utf8.ValidString(text) {
		return refuse(Invalid, "%s is not valid UTF-8", what)
	}
	return nil
}

// checkValue is checkText for what MLflow counts in characters. Bytes are bounded
// by what a run and a record may have.
func checkValue(what, value string, most int) error {
	if n := utf8.RuneCountInString(value); n > most {
		return refuse(Invalid, "%s has %d characters, at most %d are allowed", what, n, most)
	}
	return checkText(what, value, len(value))
}

func checkTag(key, value string) error {
	if err := checkKey("tag", key); err != nil {
		return err
	}
	return checkValue("tag "+key, value, MaxTag)
}

func checkTags(tags map[string]string) error {
	for k, v := range tags {
		if err := checkTag(k, v); err != nil {
			return err
		}
	}
	if len(tags) > maxModelTags {
		return refuse(Invalid, "%d tags, at most %d are allowed", len(tags), maxModelTags)
	}
	return nil
}

// checkName checks the name of an experiment or a model.
func checkName(what, name string) error {
	if strings.TrimSpace(name) == "" {
		return refuse(Invalid, "%s needs a name", what)
	}
	return checkText("name of the "+what, name, MaxName)
}

// checkModelName checks a name that stands in paths and URIs (models:/NAME/1).
func checkModelName(name string) error {
	if err := checkName("registered model", name); err != nil {
		return err
	}
	if strings.ContainsAny(name, "/:") {
		return refuse(Invalid, "the name of a registered model must not hold '/' or ':': %q", name)
	}
	return nil
}

func checkAlias(alias string) error {
	switch {
	case !aliasForm.MatchString(alias):
		return refuse(Invalid, "alias %.60q must be 1 to 255 letters, digits, underscores or dashes", alias)
	case strings.EqualFold(alias, "latest"):
		return refuse(Invalid, "alias %q is reserved", alias)
	case versionAlias.MatchString(alias):
		return refuse(Invalid, "alias %q looks like a version number", alias)
	}
	return nil
}

var versionAlias = regexp.MustCompile(`^[vV]\d+$`)

// check checks what is logged at once, before it is seen against the run.
func (b *Batch) check() error {
	for _, part := range []struct {
		what       string
		have, most int
	}{
		{"metrics", len(b.Metrics), MaxMetrics},
		{"params", len(b.Params), MaxParams},
		{"tags", len(b.Tags), MaxTags},
		{"metrics, params and tags", len(b.Metrics) + len(b.Params) + len(b.Tags), MaxBatch},
	} {
		if part.have > part.most {
			return refuse(Invalid, "%d %s in one batch, at most %d are allowed", part.have, part.what, part.most)
		}
	}
	for i := range b.Metrics {
		if err := checkKey("metric", b.Metrics[i].Key); err != nil {
			return err
		}
	}
	for k, v := range b.Params {
		if err := checkKey("param", k); err != nil {
			return err
		}
		if err := checkValue("param "+k, v, MaxParam); err != nil {
			return err
		}
	}
	return checkTags(b.Tags)
}
