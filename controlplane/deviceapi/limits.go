package deviceapi

import (
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rates. A token's secret cannot be guessed; the limits keep one machine from
// using up the server's disk syncs.
const (
	DefaultEnrolRate  = 10 // a second, of one address
	DefaultEnrolBurst = 50
	renewRate         = 0.1 // a second, of one device
	renewBurst        = 5
	// maxLimiters bounds the memory that strangers can take.
	maxLimiters = 10_000
)

// limits is a rate limit per name.
type limits struct {
	rate  rate.Limit
	burst int

	mu sync.Mutex
	by map[string]*rate.Limiter // guarded by mu
}

func newLimits(perSecond float64, burst int) *limits {
	return &limits{rate: rate.Limit(perSecond), burst: burst, by: map[string]*rate.Limiter{}}
}

// allow returns a *tooMany when the name has to wait.
func (l *limits) allow(name string) error {
	r := l.of(name).Reserve()
	wait := r.Delay()
	if wait == 0 {
		return nil
	}
	r.Cancel()
	return &tooMany{wait: wait}
}

func (l *limits) of(name string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found, ok := l.by[name]; ok {
		return found
	}
	if len(l.by) >= maxLimiters {
		// Starting over forgives some; a list of who came last would cost more
		// than it protects.
		clear(l.by)
	}
	fresh := rate.NewLimiter(l.rate, l.burst)
	l.by[name] = fresh
	return fresh
}

// tooMany says how long to wait.
type tooMany struct{ wait time.Duration }

func (t *tooMany) seconds() int { return int(math.Ceil(t.wait.Seconds())) }

// Error tells people.
func (t *tooMany) Error() string {
	return fmt.Sprintf("too many requests: try again in %d s", t.seconds())
}
