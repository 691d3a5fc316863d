package output

import (
	"bytes"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	for _, tc := range []struct {
		name    string
		table   Table
		headers bool
		want    string
	}{
		{
			name:    "columns line up by display width",
			table:   Table{Header: []string{"A", "B"}, Rows: [][]string{{"网络", "x"}, {"é", "y"}, {"abcde", "z"}}},
			headers: true,
			want:    "A      B\n--------\n网络   x\né      y\nabcde  z\n",
		},
		{
			name:    "nothing but the header",
			table:   Table{Header: []string{"NAME", "ID"}},
			headers: true,
			want:    "NAME  ID\n--------\n",
		},
		{
			name:  "without header the columns are as narrow as the rows",
			table: Table{Header: []string{"LONGNAME", "ID"}, Rows: [][]string{{"a", "1"}, {"", "2"}}},
			want:  "a  1\n-  2\n",
		},
		{
			name:  "terminal escapes are shown, not obeyed",
			table: Table{Header: []string{"A"}, Rows: [][]string{{"\x1b[2Jx\n\u202ey\xff"}}},
			want:  `\x1b[2Jx\n\u202ey` + "\ufffd\n",
		},
		{
			name:  "columns are at least as wide as in the part before",
			table: Table{Header: []string{"A", "B"}, Rows: [][]string{{"a", "1"}}, Widths: []int{4}},
			want:  "a     1\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := tc.table.Write(&b, tc.headers); err != nil {
				t.Fatal(err)
			}
			if b.String() != tc.want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), tc.want)
			}
		})
	}
}

func TestTones(t *testing.T) {
	line := []cell{{"NAME", Strong}, {"ok", Good}, {" ", Bad}}
	if got, want := joinCells(line, []int{5, 3, 4}, true), "\x1b[1mNAME\x1b[0m   \x1b[32mok\x1b[0m"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := joinCells(line, []int{5, 3, 4}, false), "NAME   ok"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if Coloured(&bytes.Buffer{}) {
		t.Error("a buffer is no terminal")
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour:                   "0s",
		0:                            "0s",
		59 * time.Second:             "59s",
		119 * time.Second:            "119s",
		2 * time.Minute:              "2m0s",
		90*time.Minute + time.Hour:   "2h30m",
		76 * time.Hour:               "3d4h",
		400*24*time.Hour + time.Hour: "400d1h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestZones(t *testing.T) {
	for want, labels := range map[string]map[string]string{
		"[]":              {"role": "prod"},
		"[zone==default]": {"zone": "default", "role": "x"},
	} {
		if got := zones(labels); got != want {
			t.Errorf("zones(%v) = %s, want %s", labels, got, want)
		}
	}
}

func TestFormatFlag(t *testing.T) {
	f := NewFormatFlag(FormatTable, FormatJSON)
	if err := f.Set("wide"); err == nil || f.Value != FormatTable {
		t.Errorf("wide: got error %v and %s, want an error and table", err, f.Value)
	}
	if err := f.Set("json"); err != nil || f.Value != FormatJSON {
		t.Errorf("json: got %v and %s", err, f.Value)
	}
}
