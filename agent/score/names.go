package score

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// maxHeader bounds the header of a CSV file, in bytes.
const maxHeader = 1 << 20

// Columns names the columns of a table in their order, from the header of a CSV
// file or the footer of a Parquet one. For Parquet the input must be an
// io.ReaderAt of a known size.
func Columns(in Input, format string) ([]string, error) {
	if format == Parquet {
		return parquetColumns(in)
	}
	header, err := csv.NewReader(io.LimitReader(in, maxHeader)).Read()
	if err != nil {
		return nil, fmt.Errorf("%s: read header: %w", in.Name, err)
	}
	header[0] = strings.TrimPrefix(header[0], "\xef\xbb\xbf")
	for i := range header {
		header[i] = strings.TrimSpace(header[i])
	}
	return header, nil
}

func parquetColumns(in Input) (names []string, err error) {
	defer recovered(&err)
	at, ok := in.Reader.(io.ReaderAt)
	if !ok || in.Size == 0 {
		return nil, fmt.Errorf("%w: Parquet is read from its end: name a file that is not empty instead of a stream", ErrInput)
	}
	f, err := parquet.OpenFile(at, in.Size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInput, in.Name, err)
	}
	for _, c := range f.Root().Columns() {
		names = append(names, c.Name())
	}
	return names, nil
}
