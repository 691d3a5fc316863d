package cli

import "testing"

func TestDidYouMean(t *testing.T) {
	known := []string{"apps", "nodes", "servers", "sockets", "vservices"}
	for word, want := range map[string]string{
		"app":      ": did you mean apps?",
		"APPS":     ": did you mean apps?",
		"sevrers":  ": did you mean servers?",
		"vservice": ": did you mean vservices?",
		"s":        "",
		"quux":     "",
		"":         "",
	} {
		if got := didYouMean("", word, known); got != want {
			t.Errorf("didYouMean(%q) = %q, want %q", word, got, want)
		}
	}
	if got := didYouMean("--", "oyt", []string{"out", "oat"}); got != ": did you mean --oat or --out?" {
		t.Errorf("got %q", got)
	}
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"abc", "abc", 0}, {"get", "gte", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 1}} {
		if got := distance(tc.a, tc.b); got != tc.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}
