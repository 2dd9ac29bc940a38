package divergence

import (
	"encoding/json"
	"math"
	"os"
	"sort"
	"testing"

	"github.com/vedette-edge/vedette/protocol/sketch"
)

// vectors are what SciPy says: testdata/vectors.py makes them.
type vectors struct {
	Tables []struct {
		Name          string
		Before, After []float64
		Ordered       bool
		Want          struct {
			PSI, P, JS, KS float64
			DF             float64
			Chi2P          float64 `json:"chi2_p"`
			KSP            float64 `json:"ks_p"`
			LInf           float64 `json:"l_inf"`
		}
	}
	Shares     []struct{ A, B, N, M, P float64 }
	Kolmogorov []struct{ X, P float64 }
	Values     []struct {
		X, Y, Edges []float64
		D, P        float64
	}
}

func readVectors(t *testing.T) *vectors {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
	return v
}

// agree compares relatively, also far out in a tail.
func agree(got, want float64) bool {
	return math.Abs(got-want) <= 1e-9*math.Max(1e-3, math.Abs(want)) || want > 0 && math.Abs(math.Log(got/want)) < 1e-6
}

func total(counts []float64) (n float64) {
	for _, c := range counts {
		n += c
	}
	return n
}

func TestTablesAgreeWithSciPy(t *testing.T) {
	for _, v := range readVectors(t).Tables {
		c := cells{p: v.Before, q: v.After, n: total(v.Before), m: total(v.After)}
		if v.Ordered {
			c.ordered = len(v.Before)
		}
		s := c.score()
		if float64(s.Bins-1) != v.Want.DF {
			t.Errorf("%s: %d degrees of freedom, want %v", v.Name, s.Bins-1, v.Want.DF)
		}
		for _, x := range []struct {
			name      string
			got, want float64
		}{
			{"PSI", s.PSI, v.Want.PSI},
			{"p of PSI", s.P, v.Want.P},
			{"p of χ²", s.Chi2P, v.Want.Chi2P},
			{"Jensen–Shannon", s.JS, v.Want.JS},
			{"L-infinity", s.LInf, v.Want.LInf},
			{"KS", s.KS, v.Want.KS},
			{"p of KS", s.KSP, v.Want.KSP},
		} {
			if !agree(x.got, x.want) {
				t.Errorf("%s: %s is %.12g, SciPy says %.12g", v.Name, x.name, x.got, x.want)
			}
		}
	}
}

func TestSharesAgreeWithSciPy(t *testing.T) {
	for _, v := range readVectors(t).Shares {
		if got := fisher(v.A, v.B, v.N, v.M); !agree(got, v.P) {
			t.Errorf("%v of %v beside %v of %v: p is %.9g, SciPy says %.9g", v.A, v.N, v.B, v.M, got, v.P)
		}
	}
}

func TestKolmogorovAgreesWithSciPy(t *testing.T) {
	for _, v := range readVectors(t).Kolmogorov {
		if got := kolmogorov(v.X); !agree(got, v.P) {
			t.Errorf("Kolmogorov's distribution above %v: %.12g, SciPy says %.12g", v.X, got, v.P)
		}
	}
}

// The distance of the values lies within the bounds that their bins give, and
// their p-value is no larger than that of the bins.
func TestBinsBoundTheDistanceOfValues(t *testing.T) {
	for i, v := range readVectors(t).Values {
		s := sketch.Stream{Kind: sketch.Continuous, Counts: make([]uint64, len(v.Edges)+1)}
		bins := len(s.Counts)
		c := cells{p: make([]float64, bins), q: make([]float64, bins), ordered: bins, n: float64(len(v.X)), m: float64(len(v.Y))}
		for _, x := range v.X {
			c.p[sort.SearchFloat64s(v.Edges, x)]++
		}
		for _, y := range v.Y {
			c.q[sort.SearchFloat64s(v.Edges, y)]++
		}
		f := c.score()
		if f.KS > v.D || f.KSUp < v.D || f.KSP < v.P || f.KS == 0 {
			t.Errorf("values %d: distance %.4f (p %.4g), bins say %.4f to %.4f (p %.4g)", i, v.D, v.P, f.KS, f.KSUp, f.KSP)
		}
	}
}
