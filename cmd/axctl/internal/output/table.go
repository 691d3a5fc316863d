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
	Tones  [][]Tone // of the rows' cells, for a terminal; rows and cells beyond its end are plain
	// Widths are the least widths of the columns: a table that is written in parts keeps its columns.
	Widths []int
}

// Column is one column of a table of T.
type Column[T any] struct {
	Name  string
	Wide  bool // shown with -o wide only
	Value func(T) string
	Tone  func(T) Tone // nil: plain
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
		row, tones := make([]string, 0, len(t.Header)), make([]Tone, 0, len(t.Header))
		for _, c := range cs {
			if !wide && c.Wide {
				continue
			}
			row = append(row, c.Value(item))
			tone := Plain
			if c.Tone != nil {
				tone = c.Tone(item)
			}
			tones = append(tones, tone)
		}
		t.Rows, t.Tones = append(t.Rows, row), append(t.Tones, tones)
	}
	return t
}

// Write writes the table: the header and a dashed rule under it unless headers is false, then the rows. It keeps the
// widths of the columns in t. On a terminal cells have the colours of their tones.
func (t *Table) Write(w io.Writer, headers bool) error {
	coloured := Coloured(w)
	var lines [][]cell
	if headers {
		line := make([]cell, len(t.Header))
		for i, name := range t.Header {
			line[i] = cell{name, Strong}
		}
		lines = append(lines, line)
	}
	for i, row := range t.Rows {
		line := make([]cell, len(row))
		for j, text := range row {
			line[j] = cell{Sanitize(text), t.tone(i, j)}
		}
		lines = append(lines, line)
	}
	for len(t.Widths) < len(t.Header) {
		t.Widths = append(t.Widths, 0)
	}
	for _, line := range lines {
		for i, c := range line {
			t.Widths[i] = max(t.Widths[i], widths.StringWidth(c.text))
		}
	}
	var b bytes.Buffer
	for i, line := range lines {
		b.WriteString(joinCells(line, t.Widths, coloured))
		b.WriteByte('\n')
		if headers && i == 0 {
			b.WriteString(strings.Repeat("-", ruleWidth(t.Widths)))
			b.WriteByte('\n')
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (t *Table) tone(row, column int) Tone {
	if row < len(t.Tones) && column < len(t.Tones[row]) {
		return t.Tones[row][column]
	}
	return Plain
}

// cell is a piece of a line, safe to show.
type cell struct {
	text string
	tone Tone
}

func joinCells(cells []cell, columns []int, coloured bool) string {
	var b strings.Builder
	pending := 0 // blanks that are written only if something follows
	for i, c := range cells {
		text := strings.TrimRight(c.text, " ")
		if text != "" {
			b.WriteString(strings.Repeat(" ", pending))
			pending = 0
			if coloured {
				b.WriteString(c.tone.paint(text))
			} else {
				b.WriteString(text)
			}
		}
		pending += columns[i] - widths.StringWidth(text) + len(gap)
	}
	return b.String()
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
