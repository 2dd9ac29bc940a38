package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/parquet-go/parquet-go"
)

// The file to score: as many rows of as many columns.
const (
	scoreRows    = 1_000_000
	scoreColumns = 30
	scoreModel   = "bc_mlp" // takes that many
)

// scoring compares scoring a whole file with the slower of reading it and
// computing the model by themselves.
func (b *bench) scoring(ctx context.Context) error {
	rows := scoreRows
	if b.quick {
		rows /= 20
	}
	schema, err := b.scoreSchema()
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name  string
		write func(path string, rows int) error
	}{{"rows.csv", writeCSV}, {"rows.parquet", writeParquet}} {
		if err := file.write(b.path(file.name), rows); err != nil {
			return fmt.Errorf("write %s: %w", file.name, err)
		}
		if err := b.scoreFile(ctx, file.name, schema); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) scoreFile(ctx context.Context, name, schema string) error {
	graph, err := b.graph(scoreModel)
	if err != nil {
		return err
	}
	out, err := b.output(ctx, nil, b.program("vedette-agent"), "score", b.path(name), "--graph", graph, "--schema", schema,
		"--to", b.path("scored"+filepath.Ext(name)), "--measure", strconv.Itoa(b.rounds(7)), "-o", "json")
	if err != nil {
		return err
	}
	var r struct {
		Threads             int
		Parse, Infer, Score []float64
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("read rates: %w", err)
	}
	bound := make([]float64, len(r.Parse))
	for i := range bound {
		bound[i] = min(r.Parse[i], r.Infer[i])
	}
	b.atLeast(Figure{
		Part: "score", What: name + ": scoring over the slower of its parts by one thread", Value: median(ratios(r.Score, bound)), Unit: "×",
		Detail: fmt.Sprintf("rows/s: parse %.3g, infer %.3g, score %.3g on %d threads", median(r.Parse), median(r.Infer), median(r.Score), r.Threads),
	}, 0.8)
	return nil
}

func column(i int) string { return "f" + strconv.Itoa(i) }

func (b *bench) scoreSchema() (path string, err error) {
	type tensor struct {
		Name     string              `json:"name"`
		Datatype string              `json:"datatype"`
		Shape    []int               `json:"shape"`
		Features []map[string]string `json:"features,omitempty"`
	}
	in := tensor{Name: "X", Datatype: "FP32", Shape: []int{-1, scoreColumns}}
	for i := range scoreColumns {
		in.Features = append(in.Features, map[string]string{"name": column(i)})
	}
	raw, err := json.Marshal(map[string]any{
		"inputs": []tensor{in},
		"outputs": []tensor{
			{Name: "label", Datatype: "INT64", Shape: []int{-1}}, {Name: "probabilities", Datatype: "FP32", Shape: []int{-1, 2}},
		},
		"classes": []string{"malignant", "benign"}, "label": "label", "scores": "probabilities",
	})
	if err != nil {
		return "", fmt.Errorf("encode schema: %w", err)
	}
	path = b.path("schema.json")
	return path, os.WriteFile(path, raw, 0o600)
}

// values are the same in both files.
func values() func() float32 {
	rnd := rand.New(rand.NewPCG(1, 30)) //nolint:gosec // rows, not secrets
	return func() float32 { return float32(rnd.NormFloat64()) }
}

func writeCSV(path string, rows int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, next, line := bufio.NewWriterSize(f, 1<<20), values(), []byte(nil)
	for i := range scoreColumns {
		line = append(append(line, column(i)...), ',')
	}
	for range rows {
		line[len(line)-1] = '\n'
		if _, err := w.Write(line); err != nil {
			return err
		}
		line = line[:0]
		for range scoreColumns {
			line = append(strconv.AppendFloat(line, float64(next()), 'g', -1, 32), ',')
		}
	}
	line[len(line)-1] = '\n'
	if _, err := w.Write(line); err != nil {
		return err
	}
	return w.Flush()
}

func writeParquet(path string, rows int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	columns := parquet.Group{}
	for i := range scoreColumns {
		columns[column(i)] = parquet.Compressed(parquet.Leaf(parquet.FloatType), &parquet.Snappy)
	}
	w, next, row := parquet.NewWriter(f, parquet.NewSchema("rows", columns)), values(), make(parquet.Row, scoreColumns)
	for range rows {
		for i := range row {
			row[i] = parquet.FloatValue(next()).Level(0, 0, i)
		}
		if _, err := w.WriteRows([]parquet.Row{row}); err != nil {
			return err
		}
	}
	return w.Close()
}
