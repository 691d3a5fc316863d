package suite

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestParsePython(t *testing.T) {
	got := ParsePython(strings.Join([]string{
		"test_a (test.test_x.X.test_a) ... ok",
		"test_b (test.test_x.X.test_b)",
		"What it is for. ... ok",
		"test_c (test.test_x.X.test_c) ... skipped 'not here'",
		"test_d (test.test_x.X.test_d) ... noise (of the test) ok, it says",
		"more noise",
		"ERROR",
		"test_e (test.test_x.X.test_e) ... expected failure",
		"test_f (test.test_x.X.test_f) ... ok",
		"test_g (test.test_x.X.test_g) ... FAIL",
		"test_h (test.test_x.X.test_h) ... ",
		"======",
		"FAIL: test_f (test.test_x.X.test_f) [a subtest]",
	}, "\n"))
	want := Results{
		"test.test_x.X.test_a": Pass, "test.test_x.X.test_b": Pass, "test.test_x.X.test_c": Skip, "test.test_x.X.test_d": Fail,
		"test.test_x.X.test_e": Pass, "test.test_x.X.test_f": Fail, "test.test_x.X.test_g": Fail, "test.test_x.X.test_h": Unfinished,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got.Count(Fail) != 3 {
		t.Errorf("%d failures", got.Count(Fail))
	}
}

func TestParseGo(t *testing.T) {
	got := ParseGo(strings.Join([]string{
		"=== RUN   TestA", "=== RUN   TestA/one", "=== PAUSE TestA/one", "=== CONT  TestA/one", "    a_test.go:1: noise",
		"--- PASS: TestA (0.10s)", "    --- PASS: TestA/one (0.00s)",
		"=== RUN   TestB", "text without an end of line--- FAIL: TestB (0.00s)", "=== RUN   TestC", "--- SKIP: TestC (0.00s)", "=== RUN   TestD",
	}, "\n"))
	want := Results{"TestA": Pass, "TestA/one": Pass, "TestB": Fail, "TestC": Skip, "TestD": Unfinished}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParseTable(t *testing.T) {
	table, err := ParseTable("# what differs\n\ndiffers  TestA*  why it does\nleft-out TestB because it hangs\n")
	want := []Entry{{Pattern: "TestA*", Reason: "why it does"}, {Pattern: "TestB", LeftOut: true, Reason: "because it hangs"}}
	if err != nil || !slices.Equal(table, want) {
		t.Errorf("got %v, %v", table, err)
	}
	if left := LeftOut(table); !slices.Equal(left, []string{"TestB"}) {
		t.Errorf("left out: %v", left)
	}
	for _, bad := range []string{"differs TestA", "maybe TestA why", "differs [ why", "differs"} {
		if table, err := ParseTable(bad); err == nil {
			t.Errorf("%q: %v", bad, table)
		}
	}
}

func TestCompare(t *testing.T) {
	entry := Entry{Pattern: "TestA*", Reason: "why"}
	for _, c := range []struct {
		what          string
		native, under Results
		table         []Entry
		all           bool
		want          []string
	}{
		{"the same", Results{"T": Pass, "U": Fail, "V": Skip}, Results{"T": Pass, "U": Fail, "V": Skip}, nil, true, nil},
		{"better than natively", Results{"T": Fail}, Results{"T": Pass}, nil, true, nil},
		{"a failure", Results{"T": Pass}, Results{"T": Fail}, nil, true, []string{"T passes natively; under ax run: fail"}},
		{"a test that isn't run", Results{"T": Pass}, Results{}, nil, true, []string{"T passes natively; under ax run: not run"}},
		{"what is skipped is lost", Results{"T": Pass}, Results{"T": Skip}, nil, true, []string{"T passes natively; under ax run: skip"}},
		{"a known one", Results{"TestA/x/y": Pass}, Results{"TestA/x/y": Fail}, []Entry{entry}, true, nil},
		{"no longer", Results{"TestA": Pass, "TestAB": Pass}, Results{"TestA": Pass, "TestAB": Fail}, []Entry{entry}, true,
			[]string{"TestA no longer differs: take it out of the table"}},
		{"it never passed", Results{"TestA": Fail}, Results{"TestA": Fail}, []Entry{entry}, true,
			[]string{"no test differs that is like TestA*: take it out of the table"}},
		{"an entry for nothing", Results{"T": Pass}, Results{"T": Pass}, []Entry{entry}, true, []string{"no test differs that is like TestA*: take it out of the table"}},
		{"skipped in both", Results{"TestA": Pass, "TestB": Skip}, Results{"TestA": Fail, "TestB": Skip}, []Entry{{Pattern: "Test*", Reason: "why"}}, true, nil},
		{"in a part of the suite", Results{"T": Pass}, Results{"T": Pass}, []Entry{entry}, false, nil},
		{"left out", Results{}, Results{}, []Entry{{Pattern: "TestA", LeftOut: true}}, true, nil},
		{"left out, not really", Results{"TestA": Pass}, Results{"TestA": Pass}, []Entry{{Pattern: "TestA", LeftOut: true}}, true,
			[]string{"TestA was run, and should have been left out"}},
	} {
		if got := Compare(c.native, c.under, c.table, c.all); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}
