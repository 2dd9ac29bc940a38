package demo

import (
	"bytes"
	"embed"
	"encoding/csv"
	"fmt"
	"strconv"
)

// Rows and columns of one image.
const side = 8

//go:embed models
var models embed.FS

// image is one 8×8 picture of a digit, row-major, grey values 0 to 16, with
// the digit it really shows.
type image struct {
	pixels [side * side]float32
	digit  int
}

// heldout reads the images that no model was trained on.
func heldout() ([]image, error) {
	b, err := models.ReadFile("models/heldout.csv")
	if err != nil {
		return nil, fmt.Errorf("read held-out images: %w", err)
	}
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read held-out images: %w", err)
	}
	images := make([]image, 0, len(rows)-1)
	for n, row := range rows[1:] {
		img, err := parse(row)
		if err != nil {
			return nil, fmt.Errorf("held-out image %d: %w", n+1, err)
		}
		images = append(images, img)
	}
	return images, nil
}

func parse(row []string) (image, error) {
	var img image
	if len(row) != len(img.pixels)+1 {
		return img, fmt.Errorf("%d columns, want %d", len(row), len(img.pixels)+1)
	}
	for i := range img.pixels {
		v, err := strconv.ParseFloat(row[i], 32)
		if err != nil {
			return img, fmt.Errorf("pixel %d: %w", i, err)
		}
		img.pixels[i] = float32(v)
	}
	digit, err := strconv.Atoi(row[len(img.pixels)])
	img.digit = digit
	return img, err
}

// lens is what stands between the meter and the sensor.
type lens func(image) image

func unclouded(img image) image { return img }

// faded is an ageing lens: blur, half the contrast, haze. It computes what
// train.py's fade computes, to the bit: every intermediate value is a multiple
// of 1/32, so rounding never differs.
func faded(img image) image {
	img.pixels = blur(blur(img.pixels, side, 1), 1, side)
	for i, v := range img.pixels {
		img.pixels[i] = float32(int(v*0.5 + 3 + 0.5))
	}
	return img
}

// blur applies the kernel ¼ ½ ¼ along the direction whose neighbours are
// `step` apart; `across` is the step of the other direction. Edges repeat.
func blur(p [side * side]float32, step, across int) (out [side * side]float32) {
	for line := range side {
		for at := range side {
			here := p[line*across+at*step]
			before := p[line*across+max(at-1, 0)*step]
			after := p[line*across+min(at+1, side-1)*step]
			out[line*across+at*step] = (before + 2*here + after) / 4
		}
	}
	return out
}

// deadRow is a sensor whose fourth row of pixels no longer answers.
func deadRow(img image) image {
	for i := range side {
		img.pixels[3*side+i] = 0
	}
	return img
}
