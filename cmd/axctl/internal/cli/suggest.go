package cli

import (
	"slices"
	"strings"
)

// didYouMean names the known words nearest to one that is not known, each with prefix; empty if none is near.
func didYouMean(prefix, word string, known []string) string {
	var near []string
	best := max(2, len(word)/3) + 1
	for _, k := range known {
		d := distance(strings.ToLower(word), k)
		if len(word) > 1 && strings.HasPrefix(k, strings.ToLower(word)) {
			d = 1
		}
		switch {
		case d < best:
			best, near = d, []string{prefix + k}
		case d == best && near != nil:
			near = append(near, prefix+k)
		}
	}
	if len(near) == 0 {
		return ""
	}
	slices.Sort(near)
	return ": did you mean " + strings.Join(near, " or ") + "?"
}

// orOneOf lists the known words if no near one was found.
func orOneOf(hint string, known []string) string {
	if hint == "" {
		return ": want one of " + strings.Join(known, ", ")
	}
	return hint
}

// distance counts the single-character insertions, deletions, replacements and swaps that turn a into b.
func distance(a, b string) int {
	before, last, row := []int(nil), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, make([]int, len(b)+1)
	}
	return last[len(b)]
}
