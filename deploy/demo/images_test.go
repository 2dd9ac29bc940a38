package demo

import (
	"bytes"
	"encoding/csv"
	"strconv"
	"testing"
)

func TestHeldout(t *testing.T) {
	images, err := heldout()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(images), 540; got != want {
		t.Fatalf("held-out images: got %d, want %d", got, want)
	}
	seen := map[int]int{}
	for _, img := range images {
		seen[img.digit]++
	}
	if len(seen) != 10 {
		t.Errorf("digits in the held-out images: got %v, want all ten", seen)
	}
}

// The second half of version 2's training rows is the first half as train.py
// fades it: the cameras of the demo must fade alike.
func TestFadedIsWhatTheTrainingScriptComputes(t *testing.T) {
	b, err := models.ReadFile("models/digits-2.train.csv")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	rows = rows[1:]
	half := len(rows) / 2
	for n := range half {
		got := faded(pixels(t, rows[n])).pixels
		if want := pixels(t, rows[half+n]).pixels; got != want {
			t.Fatalf("row %d: got %v, want %v", n, got, want)
		}
	}
}

func pixels(t *testing.T, row []string) image {
	t.Helper()
	var img image
	for i := range img.pixels {
		v, err := strconv.ParseFloat(row[i], 32)
		if err != nil {
			t.Fatal(err)
		}
		img.pixels[i] = float32(v)
	}
	return img
}

func TestDeadRowTouchesOneRowOnly(t *testing.T) {
	images, err := heldout()
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		got := deadRow(img)
		for i := range got.pixels {
			want := img.pixels[i]
			if i/side == 3 {
				want = 0
			}
			if got.pixels[i] != want {
				t.Fatalf("pixel %d: got %v, want %v", i, got.pixels[i], want)
			}
		}
	}
}
