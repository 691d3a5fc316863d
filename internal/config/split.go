package config

import (
	"fmt"
	"strings"
)

// Split cuts a string of options into words as a shell does: blanks separate, '…' is literal, in "…" a backslash
// escapes " and \, elsewhere it escapes any character. Nothing is expanded.
func Split(s string) ([]string, error) {
	var (
		words  []string
		word   strings.Builder
		inWord bool
		quote  rune
	)
	rest := []rune(s)
	for i := 0; i < len(rest); i++ {
		r := rest[i]
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == '"' && r == '\\' && i+1 < len(rest) && (rest[i+1] == '"' || rest[i+1] == '\\'):
			i++
			word.WriteRune(rest[i])
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == '\\':
			if i+1 == len(rest) {
				return nil, fmt.Errorf("%q: ends with a backslash", s)
			}
			i++
			word.WriteRune(rest[i])
			inWord = true
		case strings.ContainsRune(" \t\r\n", r):
			if inWord {
				words, inWord = append(words, word.String()), false
				word.Reset()
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("%q: the quote %c is not closed", s, quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
