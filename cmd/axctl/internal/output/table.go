package output

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/mattn/go-runewidth"
)

// gap separates columns.
const gap = "  "

// widths measures text as terminals do. Characters of ambiguous width count one column whatever the locale, so that
// the same table is the same text everywhere.
var widths = runewidth.Condition{EastAsianWidth: false, StrictEmojiNeutral: true}

// Table is a header and rows of as many cells.
type Table struct {
	Header []string
	Rows   [][]string
}

// Column is one column of a table of T.
type Column[T any] struct {
	Name  string
	Wide  bool // shown with -o wide only
	Value func(T) string
}

// Columns are the columns of a table of T, in order.
type Columns[T any] []Column[T]

// Table fills in a row for each item, in the order given.
func (cs Columns[T]) Table(items []T, wide bool) Table {
	var t Table
	for _, c := range cs {
		if wide || !c.Wide {
			t.Header = append(t.Header, c.Name)
		}
	}
	for _, item := range items {
		row := make([]string, 0, len(t.Header))
		for _, c := range cs {
			if wide || !c.Wide {
				row = append(row, c.Value(item))
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// Write writes the table: the header and a dashed rule under it unless headers is false, then the rows.
func (t Table) Write(w io.Writer, headers bool) error {
	lines := make([][]string, 0, len(t.Rows)+1)
	if headers {
		lines = append(lines, t.Header)
	}
	for _, row := range t.Rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = Sanitize(cell)
		}
		lines = append(lines, cells)
	}
	columns := make([]int, len(t.Header))
	for _, line := range lines {
		for i, cell := range line {
			columns[i] = max(columns[i], widths.StringWidth(cell))
		}
	}
	var b bytes.Buffer
	for i, line := range lines {
		b.WriteString(joinCells(line, columns))
		b.WriteByte('\n')
		if headers && i == 0 {
			b.WriteString(strings.Repeat("-", ruleWidth(columns)))
			b.WriteByte('\n')
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func joinCells(cells []string, columns []int) string {
	var b strings.Builder
	for i, cell := range cells {
		b.WriteString(cell)
		b.WriteString(strings.Repeat(" ", columns[i]-widths.StringWidth(cell)))
		b.WriteString(gap)
	}
	return strings.TrimRight(b.String(), " ")
}

func ruleWidth(columns []int) int {
	n := len(gap) * (len(columns) - 1)
	for _, w := range columns {
		n += w
	}
	return max(n, 0)
}

// Sanitize makes text that came from elsewhere safe for a terminal: what is not printable is written as an escape. An
// empty text becomes "-", so that every row has as many fields as the header has.
func Sanitize(s string) string {
	if s == "" {
		return "-"
	}
	s = strings.ToValidUTF8(s, string(unicode.ReplacementChar))
	if strings.IndexFunc(s, unsafeRune) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !unsafeRune(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRune(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

// unsafeRune tells control and format characters (bidirectional overrides are of these) from what a table may show.
func unsafeRune(r rune) bool { return !unicode.IsPrint(r) }

// Fields writes name: value lines with the values in one column.
func Fields(w io.Writer, fields ...[2]string) error {
	width := 0
	for _, f := range fields {
		width = max(width, widths.StringWidth(f[0]))
	}
	for _, f := range fields {
		pad := strings.Repeat(" ", width-widths.StringWidth(f[0]))
		if _, err := fmt.Fprintf(w, "%s:%s%s%s\n", f[0], pad, gap, Sanitize(f[1])); err != nil {
			return err
		}
	}
	return nil
}
